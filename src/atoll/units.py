"""Seconds as people write them; bytes, tokens and seconds as people read them.

Inside atoll a size is an `int` of bytes and a time is a `float` of seconds, everywhere, JSON included.
"""

import re

from atoll.errors import InputError

MIB, GIB = 2**20, 2**30
KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12

_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)", re.IGNORECASE)


def parse_seconds(text: str) -> float:
    """`10m` is 600.0, `250ms` is 0.25, `1m30s` is 90.0; a bare number counts as seconds."""
    stripped = text.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", stripped):
        return float(stripped)
    position, total = 0, 0.0
    for match in _TIME_PART.finditer(stripped):
        if match.start() != position:
            break
        total += float(match[1]) * _TIMES[match[2].lower()]
        position = match.end()
    if position == 0 or position != len(stripped):
        raise InputError(f"{text!r} is not a duration. Write it like 10m, 90s, 250ms or 1m30s.")
    return total


def show_bytes(count: float) -> str:
    """Three significant digits in decimal units, as card makers write: `65.5 GB`."""
    for unit, size in (("TB", TB), ("GB", GB), ("MB", MB), ("kB", KB)):
        if abs(count) >= size:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count:.0f} B"


def show_seconds(seconds: float | None) -> str:
    """`1.3 s`, `48 ms`, `210 µs`, `10 min`; a dash for what is not known."""
    if seconds is None or seconds != seconds:  # noqa: PLR0124 - NaN
        return "-"
    size = abs(seconds)
    if size >= 600:
        return f"{_three_digits(seconds / 60)} min"
    if size >= 1:
        return f"{_three_digits(seconds)} s"
    if size >= 1e-3:
        return f"{_three_digits(seconds * 1e3)} ms"
    return f"{_three_digits(seconds * 1e6)} µs" if size > 0 else "0 s"


def show_count(number: float) -> str:
    """`32.8 B`, `7.6 M`, `1,234`: a count for a table cell."""
    for unit, size in (("T", TB), ("B", GB), ("M", MB)):
        if abs(number) >= size:
            return f"{_three_digits(number / size)} {unit}"
    return f"{number:,.0f}"


def _three_digits(number: float) -> str:
    size = abs(number)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
