"""What `vocab`, `prepare` and `train` have in common: which text, and how it falls into documents."""

import click

text_argument = click.argument("text", nargs=-1, required=True)
field_option = click.option(
    "--field", metavar="NAME", default="", help="The column of the text in records; else the likeliest."
)
separator_option = click.option(
    "--separator",
    metavar="file|line|blank|TEXT",
    default="",
    help="What ends a document in a text file; else found out from the beginning of each.",
)
