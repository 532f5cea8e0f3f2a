"""`llamita`, and `python -m llamita`: the command line of cli/, from the first moment on."""

import sys


def main() -> int:
    """Run the command line; Ctrl-C while it is loaded shows no stack either."""
    try:
        from llamita.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # cli.INTERRUPTED, which may not be there yet


if __name__ == "__main__":
    sys.exit(main())
