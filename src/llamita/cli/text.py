"""What `vocab`, `prepare` and `train` have in common: which text, and how it falls into documents."""

from typing import Any

import click


class UnicodeText(click.ParamType):
    """A text that a tokenizer can encode: the bytes of a call need be no UTF-8, and paths may be such."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            self.fail(f"found {value[error.start]!r} at character {error.start}, expected valid Unicode", param, ctx)
        return str(value)


UNICODE = UnicodeText()
text_argument = click.argument("text", nargs=-1, required=True)
field_option = click.option(
    "--field", type=UNICODE, metavar="NAME", default="", help="The column of the text in records; else the likeliest."
)
separator_option = click.option(
    "--separator",
    type=UNICODE,
    metavar="file|line|blank|TEXT",
    default="",
    help="What ends a document in a text file; else found out from the beginning of each.",
)
