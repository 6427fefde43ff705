"""`python -m atoll` is the same as `atoll`."""

import sys


def main() -> None:
    """The command line; its modules take a moment to import, and Ctrl-C then is no traceback either."""
    try:
        from atoll.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
