"""What the door's log says: which replica answered how many requests, as nginx writes it (render/nginx.py)."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

MOST_BYTES = 256 * 1024  # from the end of the log: some thousand answers


def last_lines(path: Path, *, most_bytes: int = MOST_BYTES) -> tuple[str, ...]:
    """The whole lines at a log's end; none where there is no such log. A link is not followed."""
    if path.is_symlink() or not path.is_file():
        return ()
    with path.open("rb") as stream:
        begin = max(0, path.stat().st_size - most_bytes)
        stream.seek(begin)
        lines = stream.read(most_bytes).splitlines()
    return tuple(line.decode("utf-8", errors="replace") for line in (lines[1:] if begin else lines))


def lines_naming(path: Path, word: str) -> Iterator[str]:
    """The lines of a log of any size that hold this word; none where there is no such log. A link is not followed."""
    if path.is_symlink() or not path.is_file():
        return
    wanted = word.encode(errors="surrogateescape")  # as it was typed, be it no UTF-8
    with path.open("rb") as stream:
        while line := stream.readline(MOST_BYTES):
            if wanted in line:
                yield line.decode("utf-8", errors="replace").rstrip("\n")


def count_answers(lines: Iterable[str], *, since: float) -> dict[int, int]:
    """Requests that each replica answered since then (seconds since 1970); lines of another kind are passed over."""
    found: Counter[int] = Counter()
    for line in lines:
        try:
            row = json.loads(line)
            number, at = int(row["replica"]), datetime.fromisoformat(row["t"]).timestamp()
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
            continue
        if at >= since:
            found[number] += 1
    return dict(found)
