"""--template of `chat`, `serve` and `finetune`: which chat template a model is talked to with."""

from collections.abc import Callable
from typing import Any

import click


def template_option(whose: str) -> Callable[..., Any]:
    """The flag; whose: how its help begins."""
    return click.option(
        "--template",
        metavar="NAME|PATH",
        default="",
        help=f"{whose} chat template: llama2, llama3, chatml, zephyr, story, or a file of Jinja; else the model's own.",
    )


def template_source(template: str) -> str:
    """The name of a template, or the content of a file."""
    from llamita.files import read_file
    from llamita.tokenizer.jinja_template import MAX_CHARACTERS
    from llamita.tokenizer.named_templates import TEMPLATES

    if not template or template in TEMPLATES:
        return template
    return read_file(template, 4 * MAX_CHARACTERS).decode("utf-8", errors="replace")
