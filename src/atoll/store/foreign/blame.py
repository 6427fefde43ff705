"""Where in a foreign file the value stands with which it cannot be read: field and row, for the sentence.

The readers take a file as its tool writes it. Where one of them fails, this looks for what differs from its neighbours:
a word in a list of numbers, a list shorter than those beside it, a number beyond all floats, a row without a field.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

_LONGEST = 40  # characters of a value that are shown
_QUOTED = re.compile(r"'([^']*)'$")


def blame(text: str, error: Exception) -> str:
    """`itls[3][0] is 'abc' where numbers belong`; the kind of trouble where no place stands out."""
    rows = _documents(text)
    if rows is None:
        return _in_table(text, error) or _in_general(error)
    if isinstance(error, KeyError):
        name = str(error.args[0]) if error.args else ""
        return f"the field {name!r} is missing{_row_without(name, rows)}"
    return next(_odd(rows[0] if len(rows) == 1 else rows, ""), _in_general(error))


def _documents(text: str) -> list[Any] | None:
    """A JSON document, or those of JSON lines; None for other text."""
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()] or None
    except (ValueError, RecursionError):
        return None


def _row_without(name: str, rows: list[Any]) -> str:
    written = [name in json.dumps(row) for row in rows]
    return f" in row {written.index(False) + 1}" if len(rows) > 1 and False in written else ""


def _odd(value: Any, place: str) -> Iterator[str]:
    """What differs from its neighbours, from the outside in."""
    if isinstance(value, dict):
        yield from _of_other_length(value, place)
        for name, one in value.items():
            yield from _odd(one, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list) and value:
        yield from _of_other_kind(value, place)
        for number, one in enumerate(value):
            yield from _odd(one, f"{place}[{number}]" if place else f"row {number + 1}: ")
    elif isinstance(value, int | float) and not _is_finite(value):
        yield f"{_tidy(place)} is {_shown(value)}, which no time or count is"


def _of_other_length(plain: dict[str, Any], place: str) -> Iterator[str]:
    """Lists of one object go together, an entry a request."""
    lengths = Counter(len(one) for one in plain.values() if isinstance(one, list) and one)
    (usual, times), *_ = lengths.most_common(1) or [(0, 0)]
    for name, one in plain.items():
        if times > 1 and isinstance(one, list) and one and len(one) != usual:
            yield f"{_tidy(f'{place}.{name}' if place else name)} has {len(one)} entries, the lists beside it {usual}"


def _of_other_kind(values: list[Any], place: str) -> Iterator[str]:
    kinds = Counter(_kind(one) for one in values if one is not None)
    if len(kinds) < 2:
        return
    (usual, times), *_ = kinds.most_common()
    if times == 1 or usual == "text":  # no list of words is in the way of a reader
        usual = next(kind for kind in ("numbers", "lists", "objects", "text", "true or false") if kind in kinds)
    number = next(number for number, one in enumerate(values) if one is not None and _kind(one) != usual)
    where = f"{place}[{number}]" if place else f"row {number + 1}"
    yield f"{_tidy(where)} is {_shown(values[number])} where {usual} belong"


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "numbers"
    return "text" if isinstance(value, str) else "lists" if isinstance(value, list) else "objects"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _tidy(place: str) -> str:
    return place.replace(": .", ": ").rstrip(": ")


def _in_table(text: str, error: Exception) -> str | None:
    """`row 7, column 3: 'Valu47.07' is no number`, where the error quotes a cell."""
    quoted = _QUOTED.search(str(error))
    if quoted is None:
        return f"the column {error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else None
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error:
        return None
    cells = ((r, c) for r, row in enumerate(rows, 1) for c, cell in enumerate(row, 1) if cell.strip() == quoted[1])
    where = next((f"row {r}, column {c}: " for r, c in cells), "")
    return f"{where}{quoted[1][:_LONGEST]!r} is no number"


def _in_general(error: Exception) -> str:
    if isinstance(error, OverflowError):
        return "a number in it is too large"
    if isinstance(error, IndexError):
        return "a list in it is shorter than the others"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a value in it is of another kind than this tool writes"
