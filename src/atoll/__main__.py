"""`python -m atoll` is the same as `atoll`."""

import gc
import io
import sys


def main() -> None:
    """The command line; its modules take a moment to import, and Ctrl-C then is no traceback either."""
    gc.set_threshold(20_000, 20, 20)  # at 700 it walks what was just imported again and again: 40 ms of 400
    for stream in (sys.stdout, sys.stderr):  # a terminal without Korean letters or lines is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        from atoll.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
