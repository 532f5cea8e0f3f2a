"""`python -m llamita`: the same as the command `llamita`; see cli/."""

import sys

from llamita.cli import main

if __name__ == "__main__":
    sys.exit(main())
