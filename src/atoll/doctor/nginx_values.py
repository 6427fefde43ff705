"""nginx's ways to write times and sizes."""

import re

_TIME_UNITS = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
    "M": 2592000.0,
    "y": 31536000.0,
}


def nginx_seconds(text: str) -> float | None:
    """`60`, `60s`, `1m30s`, `500ms`; None for a variable."""
    if re.fullmatch(r"\d+", text):
        return float(text)
    parts = re.findall(r"(\d+)(ms|[smhdwMy])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.replace(" ", ""):
        return None
    return sum(int(number) * _TIME_UNITS[unit] for number, unit in parts)


def nginx_bytes(text: str) -> int | None:
    """`1m`, `64k`, `8192`; None for a variable."""
    found = re.fullmatch(r"(\d+)([kKmMgG]?)", text)
    if found is None:
        return None
    return int(found[1]) * {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}[found[2].lower()]
