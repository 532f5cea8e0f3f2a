"""Run a command and keep what it really printed as docs/run.svg, the picture in the README.

python tools/record_run.py llamita run -i "Once upon a time" -t 0.8 -s 7
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

TARGET = Path(__file__).resolve().parent.parent / "docs" / "run.svg"
COLUMNS = 100


def main(words: list[str]) -> int:
    """Run the words as a command and draw command, stdout and stderr as a terminal would show them."""
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=True)
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        console.print(Text.assemble(("$ ", "bold green"), (shlex.join(words), "bold")))
        console.print(Text(done.stdout.rstrip("\n")))
        console.print(Text(done.stderr.rstrip("\n"), style="dim"))
        picture = console.export_svg(title="llamita")
    TARGET.write_text(
        re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL), encoding="utf-8"
    )  # fonts from the network
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
