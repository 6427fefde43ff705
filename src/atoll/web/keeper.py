"""`python -m atoll.web.keeper FOLDER -- ARGV`: a job's process.

It runs `atoll ARGV` and writes down how that ended, last.
"""

import signal
import sys
from pathlib import Path

from atoll.outside.clock import SystemClock
from atoll.outside.files import write_whole
from atoll.outside.processes import spawn
from atoll.outside.shell import environment
from atoll.web.jobs import JobEnd


def main(words: list[str]) -> int:
    """Signals are handed on to the command, which ends when the keeper is killed: a job without a keeper is cut."""
    folder, _, *argv = words
    place = Path(folder)
    command = spawn(
        [sys.executable, "-m", "atoll", *argv], log=place / "output.log", env=environment(), dies_with_parent=True
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: command.send_signal(got))
    code = command.wait()
    write_whole(place / "end.yaml", JobEnd(exit_code=code, ended_at=SystemClock().wall()).to_yaml())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
