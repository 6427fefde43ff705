"""The records of a run that was cut short, from what its folder has: see load/records.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.errors import BadRun
from atoll.load.rows import CLOCKS, OUTCOMES, ROW, UNDER_WAY, WORDS, make_table, renumber
from atoll.traffic.record import Floats, Outcome, RecordTable

_BYTES_OF_BEFORE = 128  # of a row before there were ids and wanted lengths; they came behind it


def read_records(folder: Path) -> RecordTable:
    """The records of a run that was cut short: its parts and its tails, up to the last whole row.

    A request that was under way is there as cancelled, with the error `killed` and the times it had got.

    Raises:
        BadRun: there are none, or what is there cannot be read.
    """
    place = folder / "records"
    try:
        start = json.loads((place / "clock.json").read_text())
        origin, ids, row_bytes = float(start["origin"]), start.get("ids"), int(start.get("row_bytes", _BYTES_OF_BEFORE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadRun(f"{folder} holds no records of a run that was cut short.") from None
    rows, times, words = _gather(place, origin, row_bytes)
    whole, clock = _join_pieces(rows, times, words)
    return make_table(whole, clock, words, origin, ids=ids)


def _gather(place: Path, origin: float, row_bytes: int) -> tuple[list[NDArray[Any]], list[Floats], list[str]]:
    """Rows (their words renumbered into one list) and times of every part and tail, all by the clock of `origin`."""
    every: dict[str, int] = {}
    rows: list[NDArray[Any]] = []
    times: list[Floats] = []
    for path in sorted(place.glob("*part-*.parquet")):
        part_rows, part_times = _read_part(path, every)
        rows.append(part_rows)
        times.append(part_times + _moved(part_rows, path, origin))
    for path in sorted(place.glob("*.rows")):
        if path.with_name(path.name.replace("tail", "part")).with_suffix(".parquet").exists():
            continue  # killed between writing the part and removing its tail
        tail_rows, tail_times = _read_tail(path, every, row_bytes)
        rows.append(tail_rows)
        times.append(tail_times + _moved(tail_rows, path, origin))
    return rows, times, list(every)


def _moved(rows: NDArray[Any], path: Path, origin: float) -> float:
    """Move the times of rows from another machine to our clock; gives by how much, 0 for rows of this machine."""
    own = path.with_name(f"{path.name.partition('-')[0]}-clock.json")
    if not own.is_file():
        return 0.0
    ahead = origin - float(json.loads(own.read_text())["origin"])
    for name in CLOCKS:
        rows[name] += ahead
    return ahead


def _read_part(path: Path, every: dict[str, int]) -> tuple[NDArray[Any], Floats]:
    from atoll.outside.parquet import read_parquet

    columns = read_parquet(path)
    rows = np.zeros(len(columns["number"]), dtype=ROW)
    for name in ROW.names or ():
        if name in WORDS:
            said = columns.get(name) or [""] * len(rows)
            rows[name] = [every.setdefault(word, len(every)) if word else -1 for word in said]
        elif name in columns:
            rows[name] = columns[name]
    lists = columns["token_clock"]
    return rows, np.concatenate(lists) if len(lists) else np.empty(0)


def _read_tail(path: Path, every: dict[str, int], row_bytes: int) -> tuple[NDArray[Any], Floats]:
    """Up to the last row whose times and words are all there."""
    data = path.read_bytes()
    rows = _rows_of(data, row_bytes)
    beside = path.with_suffix(".tokens")
    data = beside.read_bytes() if beside.is_file() else b""  # killed between opening the two
    times = np.frombuffer(data[: len(data) // 8 * 8], dtype=np.float64)
    words = _read_words(path.with_name(f"{path.name.rpartition('-')[0]}-words.jsonl"))
    fits = np.cumsum(rows["tokens"]) <= len(times)
    for name in WORDS:
        fits &= rows[name] < len(words)
    rows = rows[: len(rows) if fits.all() else int(np.argmin(fits))]
    renumber(rows, words, every)
    return rows, times[: int(rows["tokens"].sum())]


def _rows_of(data: bytes, row_bytes: int) -> NDArray[Any]:
    """Whole rows of so many bytes, which may be the first ones of dtype ROW."""
    count = len(data) // row_bytes
    rows = np.zeros(count, dtype=ROW)
    rows["model"] = -1
    told = np.frombuffer(data[: count * row_bytes], dtype=np.uint8).reshape(count, row_bytes)
    rows.view(np.uint8).reshape(count, ROW.itemsize)[:, :row_bytes] = told
    return rows


def _read_words(path: Path) -> list[str]:
    """Up to the last whole line; none when nothing was ever named."""
    words: list[str] = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            words.append(json.loads(line))
        except ValueError:
            break
    return words


def _join_pieces(rows: list[NDArray[Any]], times: list[Floats], words: list[str]) -> tuple[NDArray[Any], Floats]:
    """One row a request: the ended one if there is one, else the last of those under way with all its times."""
    if not rows:
        return np.zeros(0, dtype=ROW), np.empty(0)
    ended = [part["outcome"] != UNDER_WAY for part in rows]
    numbers = np.concatenate([part["number"][mask] for part, mask in zip(rows, ended, strict=True)])
    whole = [part[mask] for part, mask in zip(rows, ended, strict=True)]
    clock = [part[np.repeat(mask, row["tokens"])] for row, part, mask in zip(rows, times, ended, strict=True)]
    cut = _cut_short(rows, times, known=set(numbers.tolist()))
    for row, _ in cut:
        row["error"] = _number_of(words, "killed")
    whole += [row for row, _ in cut]
    clock += [pieces for _, pieces in cut]
    return np.concatenate(whole), np.concatenate(clock)


def _cut_short(rows: list[NDArray[Any]], times: list[Floats], *, known: set[int]) -> list[tuple[NDArray[Any], Floats]]:
    """Requests without an ended row. Each tail repeats all of a request's times, so the fullest tail counts."""
    best: dict[int, tuple[NDArray[Any], Floats]] = {}
    for part, clock in zip(rows, times, strict=True):
        stops = np.cumsum(part["tokens"], dtype=np.int64)
        mine: dict[int, list[int]] = {}
        for place in np.flatnonzero(part["outcome"] == UNDER_WAY).tolist():
            mine.setdefault(int(part["number"][place]), []).append(place)
        for number in mine.keys() - known:
            places = mine[number]
            pieces = np.concatenate([clock[stops[at] - part["tokens"][at] : stops[at]] for at in places])
            row = part[places[-1] : places[-1] + 1].copy()
            row["outcome"], row["tokens"] = OUTCOMES.index(Outcome.CANCELLED), len(pieces)
            if number not in best or len(pieces) >= len(best[number][1]):
                best[number] = (row, pieces)
    return list(best.values())


def _number_of(words: list[str], word: str) -> int:
    if word not in words:
        words.append(word)
    return words.index(word)
