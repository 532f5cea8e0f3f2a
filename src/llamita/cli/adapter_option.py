"""The flag of an adapter, which whoever opens a model may take, and what a model is called with one."""

from pathlib import Path

import click

adapter_option = click.option(
    "--adapter", metavar="FOLDER", default=None, help="Apply a LoRA adapter: the folder that `llamita finetune` or PEFT wrote."
)


def name_with(name: str, adapter: str | None) -> str:
    """What a model is called with an adapter: after both."""
    if adapter is None:
        return name
    path = Path(adapter)
    folder = path.parent if path.is_file() else path
    return f"{name}+{folder.resolve().name}"
