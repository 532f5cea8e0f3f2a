"""Write docs/cli.md from `llamita --help` and every verb's --help; with --check, only say whether it is up to date."""

import sys
from pathlib import Path

import click

from llamita.cli import VERBS, llamita

TARGET = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
COLUMNS = 100


def help_text(command: click.Command, name: str, parent: click.Context | None = None) -> str:
    """What NAME --help prints, at a width that no terminal decides."""
    with click.Context(command, parent, info_name=name, **command.context_settings) as context:
        context.terminal_width = context.max_content_width = COLUMNS
        return f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"


def reference() -> str:
    """The whole page."""
    parent = click.Context(llamita, info_name="llamita", **llamita.context_settings)
    verbs = [(verb, llamita.get_command(parent, verb)) for verb in VERBS]
    pages = [help_text(llamita, "llamita")] + [help_text(command, verb, parent) for verb, command in verbs if command]
    return "\n".join(["# Command line\n\nWritten from `--help` by `make docs`.\n", *pages])


def main() -> int:
    """Write the page, or compare it (--check)."""
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(reference(), encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != reference():
        print(f"{TARGET.name} differs from --help: run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
