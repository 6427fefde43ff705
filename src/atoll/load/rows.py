"""A request's record as one row of fixed size, and many of them as a RecordTable."""

import json
import struct
from array import array
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atoll.traffic.record import Floats, Outcome, RecordTable

OUTCOMES = (Outcome.OK, Outcome.FAILED, Outcome.CANCELLED)
UNDER_WAY = 3  # in a tail only: a request that had not ended when this row was written
PACK = struct.Struct("<qqqddddddqqqqiiiBBxxqqqHHi")
ROW = np.dtype(
    {
        "names": [
            "number",
            "user",
            "turn",
            "due_s",
            "sent_s",
            "first_byte_s",
            "first_token_s",
            "last_token_s",
            "done_s",
            "prompt_tokens",
            "output_tokens",
            "cached_tokens",
            "status",
            "error",
            "detail",
            "replica",
            "outcome",
            "counted_from_chunks",
            "tokens",
            "asked_prompt_tokens",
            "asked_output_tokens",
            "resent",
            "retried",
            "model",
        ],
        "formats": [
            *["<i8"] * 3,
            *["<f8"] * 6,
            *["<i8"] * 4,
            *["<i4"] * 3,
            "u1",
            "u1",
            *["<i8"] * 3,
            "<u2",
            "<u2",
            "<i4",
        ],
        "offsets": [*range(0, 104, 8), 104, 108, 112, 116, 117, 120, 128, 136, 144, 146, 148],
        "itemsize": 152,
    }
)
WORDS = ("error", "detail", "replica", "model")  # numbers of strings; -1 is none
CLOCKS = ("due_s", "sent_s", "first_byte_s", "first_token_s", "last_token_s", "done_s")
NAN = float("nan")


class UnderWay(Protocol):
    """A request that has not ended: what of it can be told. Times are clock values, NaN where there is none."""

    sent: float
    due: float
    logged: int  # how many of `times` the tail already has

    @property
    def number(self) -> int: ...
    @property
    def user(self) -> int: ...
    @property
    def turn(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def resent(self) -> int: ...
    @property
    def first_byte(self) -> float: ...
    @property
    def status(self) -> int: ...
    @property
    def replica(self) -> str | None: ...
    @property
    def times(self) -> "array[float]": ...


def start_text(origin: float, ids: str | None) -> str:
    """What clock.json says of such rows: the clock's value at the start, and what the requests' ids begin with."""
    return json.dumps({"origin": origin, "row_bytes": ROW.itemsize, "ids": ids})


def pack_under_way(request: UnderWay, fresh: "array[float]", replica: int) -> bytes:
    times = request.times
    return PACK.pack(
        request.number,
        request.user,
        request.turn,
        request.due,
        request.sent,
        request.first_byte,
        times[0] if times else NAN,
        times[-1] if times else NAN,
        NAN,
        request.prompt_tokens,
        len(times),
        0,
        request.status,
        -1,
        -1,
        replica,
        UNDER_WAY,
        True,
        len(fresh),
        request.prompt_tokens,
        0,
        request.resent,
        0,
        -1,
    )


def join_logs(logs: Iterable[tuple[bytes, bytes, list[str], float]], *, ids: str | None = None) -> RecordTable:
    """One table of several logs: rows, tokens and words as a RecordLog gives them, and the clock at its start.

    `ids`: see make_table.
    """
    logs = list(logs)
    every: dict[str, int] = {}
    rows: list[NDArray[Any]] = []
    clock = np.empty(sum(len(raw_times) for _, raw_times, _, _ in logs) // 8)
    filled = 0
    for raw_rows, raw_times, words, origin in logs:
        own = np.frombuffer(raw_rows, dtype=ROW).copy()
        for name in CLOCKS:
            own[name] -= origin
        renumber(own, words, every)
        rows.append(own)
        times = np.frombuffer(raw_times, dtype=np.float64)
        np.subtract(times, origin, out=clock[filled : filled + len(times)])
        filled += len(times)
    return make_table(np.concatenate(rows), clock, list(every), 0.0, ids=ids)


def renumber(rows: NDArray[Any], words: list[str], every: dict[str, int]) -> None:
    """Let the rows name their words by the numbers of one common list, which grows."""
    numbers = np.array([*(every.setdefault(word, len(every)) for word in words), -1], dtype=np.int32)
    for name in WORDS:
        rows[name] = numbers[rows[name]]


def make_table(
    rows: NDArray[Any], clock: Floats, words: list[str], origin: float, *, ids: str | None = None
) -> RecordTable:
    """A table from rows of dtype ROW and their times, both in one order; sorted by when they were sent.

    Args:
        rows: of dtype ROW.
        clock: the times of their tokens.
        words: the strings that they name.
        origin: what the clock showed at the start of the run.
        ids: what the requests' ids begin with, before the number; None: none were sent.
    """
    counts = rows["tokens"].astype(np.int64)
    stops = np.cumsum(counts, dtype=np.int64)
    order = np.lexsort((rows["number"], rows["sent_s"]))
    sorted_rows, counts, starts = rows[order], counts[order], (stops - counts)[order]
    named = np.array([*words, None], dtype=object)
    with_tokens = np.flatnonzero(counts)
    seconds: dict[str, Any] = {name: _seconds(sorted_rows[name], origin) for name in CLOCKS}
    whole: dict[str, Any] = {
        name: sorted_rows[name].astype(np.int64)
        for name in (
            "number",
            "user",
            "turn",
            "prompt_tokens",
            "output_tokens",
            "cached_tokens",
            "status",
            "asked_prompt_tokens",
            "asked_output_tokens",
            "resent",
            "retried",
        )
    }
    outcomes = np.array([*map(str, OUTCOMES)], dtype=object)
    return RecordTable(
        **whole,
        **seconds,
        outcome=tuple(outcomes[sorted_rows["outcome"]].tolist()),
        error=tuple(named[sorted_rows["error"]].tolist()),
        detail=tuple(named[sorted_rows["detail"]].tolist()),
        replica=tuple(named[sorted_rows["replica"]].tolist()),
        model=tuple(named[sorted_rows["model"]].tolist()),
        request_id=tuple(None if ids is None else f"{ids}{number}" for number in sorted_rows["number"].tolist()),
        counted_from_chunks=sorted_rows["counted_from_chunks"].astype(np.bool_),
        token_clock=clock - origin if origin else clock,
        span_row=with_tokens.astype(np.int64),
        span_start=starts[with_tokens],
        span_stop=(starts + counts)[with_tokens],
    )


def _seconds(values: NDArray[Any], origin: float) -> Floats:
    made: Floats = np.ascontiguousarray(values, dtype=np.float64) - origin
    return made


def part_columns(rows: NDArray[Any], clock: Floats, words: list[str]) -> dict[str, Any]:
    """Columns of a part: the fields of ROW with their strings written out, and the times."""
    from atoll.outside.parquet import Ragged

    named = np.array([*words, None], dtype=object)
    columns: dict[str, Any] = {name: np.ascontiguousarray(rows[name]) for name in ROW.names or ()}
    for name in WORDS:
        columns[name] = ["" if word is None else word for word in named[rows[name]].tolist()]
    columns["token_clock"] = Ragged(clock, rows["tokens"])
    return columns
