"""What nccl-tests' `all_reduce_perf` prints -> a measured all-reduce curve.

The table's columns have changed over the years and differ by operation: `redop` and `root` may be missing. But a whole
row has always ended in the same eight: time, algbw, busbw and errors, out of place and then in place. Shorter rows
(ours, from torch) have `time` where the header says.
"""

import re
from collections.abc import Iterator

from atoll.cost.links import TransferCurve
from atoll.errors import RunFailed

_NUMBER = re.compile(r"^\d+(?:\.\d+)?(?:e[+-]?\d+)?$", re.IGNORECASE)


def parse_all_reduce(text: str, *, origin: str = "all_reduce_perf") -> TransferCurve:
    """Sizes in bytes and out-of-place seconds, sizes rising; lines of other programs (mpirun, NCCL_DEBUG) are passed.

    Raises:
        RunFailed: no line of measurements; the sentence carries the program's last words.
    """
    points = dict(_rows(text))
    points = {size: seconds for size, seconds in points.items() if size > 0 and seconds > 0}
    if not points:
        words = " ".join(line.strip() for line in text.strip().splitlines()[-3:])
        raise RunFailed(f"{origin} printed no measurement. Its last words: {words or 'none'}")
    return TransferCurve(points=tuple(sorted(points.items())), source=origin)


def _rows(text: str) -> Iterator[tuple[float, float]]:
    place: int | None = None
    for line in text.splitlines():
        words = line.replace("#", " ").split()
        if words[:2] == ["size", "count"] and "time" in words:
            place = words.index("time")
        elif place is not None and len(words) > place and all(map(str.isdigit, words[:2])):
            yield from _row(words, len(words) - _ENDING if len(words) >= _ENDING + 3 else place)


_ENDING = 8  # columns


def _row(words: list[str], place: int) -> Iterator[tuple[float, float]]:
    if _NUMBER.match(words[place]):
        yield float(words[0]), float(words[place]) * 1e-6
