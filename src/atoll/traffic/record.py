"""What came back: one Record a request, and all of a run's as columns.

Times are seconds from the start of the run, on one clock. Simulated, emulated and real runs all end as a RecordTable,
so whatever reads one reads all three.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Outcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"  # still under way when the run was ended, by its time limit or by hand


class Source(StrEnum):
    """Where a run's figures come from; these words and no others are shown."""

    SIMULATED = "simulated"  # virtual time
    EMULATED = "emulated"  # real HTTP, and an engine that the simulator paces
    MEASURED = "measured"  # a real engine

    @classmethod
    def of_engine(cls, engine: str) -> "Source":
        """`vllm` and `external`, somebody else's server, are measured unless the server says that it is emulated."""
        return cls(engine) if engine in {cls.SIMULATED, cls.EMULATED} else cls.MEASURED


class TokenSource(StrEnum):
    USAGE = "usage"  # the engine said how many
    CHUNKS = "chunks"  # counted from streamed chunks, because it did not


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What became of one request. Every request that was sent has exactly one."""

    number: int
    user: int
    turn: int = 0
    due_s: float | None = None  # open loop: when it should have been sent; latency counts from here
    sent_s: float  # its last byte was handed to the socket
    first_byte_s: float | None = None  # the answer's headers arrived
    token_s: Sequence[float] = ()  # arrival of each chunk that carries generated text; [0] is the first token
    done_s: float | None = None  # the answer ended, or failed
    prompt_tokens: int = 0
    output_tokens: int = 0
    token_source: TokenSource = TokenSource.USAGE
    cached_tokens: int = 0  # prompt tokens that the engine took from its prefix cache
    outcome: Outcome = Outcome.OK
    error: str | None = None  # class of failure, a short stable word such as `http_503` or `connection_reset`
    detail: str | None = None  # the sentence behind it
    status: int | None = None  # HTTP status
    replica: str | None = None  # which replica served it, "0", "1", ... or its address
    asked_prompt_tokens: int = 0  # as long as the prompt was meant to be; 0: nothing was meant
    asked_output_tokens: int = 0  # the length that the answer had to have; 0: it might end where it liked
    resent: int = 0  # times that it was sent again, because a connection that was kept open turned out to be closed
    retried: int = 0  # times that it was sent again after the pause that a refusal asked for (Retry-After)
    request_id: str | None = None  # as sent in X-Request-Id
    model: str | None = None  # where a run asks several


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordTable:
    """All records of a run, one row a request, in the order of sending.

    Token times are slices of one array: span j says that request `span_row[j]` had a token at each of
    `token_clock[span_start[j]:span_stop[j]]`. A measured run has one span a request, and the spans do not overlap.
    In a simulated one all requests of a batch share the replica's step clock, so the spans do overlap, which is what
    keeps millions of tokens small; a preempted request has several spans. Spans of one row stand in order of time.
    """

    number: Ints
    user: Ints
    turn: Ints
    due_s: Floats  # NaN: no due time of its own
    sent_s: Floats
    first_byte_s: Floats  # NaN: none came
    first_token_s: Floats  # NaN: none came
    last_token_s: Floats  # NaN: none came
    done_s: Floats  # NaN: still under way
    prompt_tokens: Ints
    output_tokens: Ints
    cached_tokens: Ints
    outcome: tuple[str, ...]
    error: tuple[str | None, ...]
    detail: tuple[str | None, ...]
    status: Ints  # 0: no answer
    replica: tuple[str | None, ...]
    asked_prompt_tokens: Ints
    asked_output_tokens: Ints
    resent: Ints
    retried: Ints
    request_id: tuple[str | None, ...]
    model: tuple[str | None, ...]
    counted_from_chunks: NDArray[np.bool_]
    token_clock: Floats
    span_row: Ints
    span_start: Ints
    span_stop: Ints

    def __len__(self) -> int:
        return len(self.number)

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> "RecordTable":
        """Columns of the records, sorted by when they were sent."""
        rows = sorted(records, key=lambda record: (record.sent_s, record.number))
        counts = np.array([len(row.token_s) for row in rows], dtype=np.int64)
        stops = np.cumsum(counts, dtype=np.int64)
        clock = np.concatenate([np.asarray(row.token_s, dtype=np.float64) for row in rows]) if rows else np.empty(0)
        with_tokens = np.flatnonzero(counts)
        return cls(
            number=_ints(row.number for row in rows),
            user=_ints(row.user for row in rows),
            turn=_ints(row.turn for row in rows),
            due_s=_floats(row.due_s for row in rows),
            sent_s=_floats(row.sent_s for row in rows),
            first_byte_s=_floats(row.first_byte_s for row in rows),
            first_token_s=_floats(row.token_s[0] if len(row.token_s) else None for row in rows),
            last_token_s=_floats(row.token_s[-1] if len(row.token_s) else None for row in rows),
            done_s=_floats(row.done_s for row in rows),
            prompt_tokens=_ints(row.prompt_tokens for row in rows),
            output_tokens=_ints(row.output_tokens for row in rows),
            cached_tokens=_ints(row.cached_tokens for row in rows),
            outcome=tuple(str(row.outcome) for row in rows),
            error=tuple(row.error for row in rows),
            detail=tuple(row.detail for row in rows),
            status=_ints(row.status or 0 for row in rows),
            replica=tuple(row.replica for row in rows),
            asked_prompt_tokens=_ints(row.asked_prompt_tokens for row in rows),
            asked_output_tokens=_ints(row.asked_output_tokens for row in rows),
            resent=_ints(row.resent for row in rows),
            retried=_ints(row.retried for row in rows),
            request_id=tuple(row.request_id for row in rows),
            model=tuple(row.model for row in rows),
            counted_from_chunks=np.array([row.token_source is TokenSource.CHUNKS for row in rows], dtype=np.bool_),
            token_clock=clock,
            span_row=with_tokens.astype(np.int64),
            span_start=(stops - counts)[with_tokens],
            span_stop=stops[with_tokens],
        )

    @classmethod
    def concatenate(cls, parts: "Sequence[tuple[RecordTable, float]]") -> "RecordTable":
        """Tables one after the other, such as the pieces of a run that was cut and resumed.

        Args:
            parts: each with the seconds to add to all of its times. Requests are numbered on from part to part.
        """
        if not parts:
            return cls.from_records([])
        columns: dict[str, list[Any]] = {field.name: [] for field in fields(cls)}
        rows = numbers = tokens = 0
        for table, shift_s in parts:
            offsets = {"number": numbers, "span_row": rows, "span_start": tokens, "span_stop": tokens}
            for name, column in columns.items():
                column.append(_shifted(getattr(table, name), shift_s if name in _TIMES else offsets.get(name)))
            rows += len(table)
            numbers += int(table.number.max()) + 1 if len(table) else 0
            tokens += len(table.token_clock)
        return cls(**{name: _joined(column) for name, column in columns.items()})

    def token_times(self, row: int) -> Floats:
        """Arrival of each text chunk of one row, in order."""
        spans = np.flatnonzero(self.span_row == row)
        if len(spans) == 0:
            return np.empty(0)
        return np.concatenate([self.token_clock[self.span_start[j] : self.span_stop[j]] for j in spans])

    def gaps(self, rows: NDArray[np.bool_]) -> tuple[Floats, Ints]:
        """Gaps between text chunks of the chosen rows, as (values, how often each occurred).

        Args:
            rows: a mask of shape (len(self),).
        """
        chosen = rows[self.span_row]
        row, start, stop = self.span_row[chosen], self.span_start[chosen], self.span_stop[chosen]
        if len(row) == 0:
            return np.empty(0), np.empty(0, dtype=np.int64)
        if _are_apart(start, stop):  # as in a measured run, where memory for millions of gaps costs more than sums
            values = np.diff(self.token_clock)[_inside(start, stop, len(self.token_clock))]
            counts: Ints = np.broadcast_to(np.int64(1), values.shape)
        else:
            values, counts = self._shared_gaps(start, stop)
        order = np.argsort(row, kind="stable")
        same = row[order][1:] == row[order][:-1]
        if not same.any():  # one span a row
            return values, counts
        between = self.token_clock[start[order][1:]] - self.token_clock[stop[order][:-1] - 1]
        return np.concatenate([values, between[same]]), np.concatenate(
            [counts, np.ones(int(same.sum()), dtype=np.int64)]
        )

    def _shared_gaps(self, start: Ints, stop: Ints) -> tuple[Floats, Ints]:
        """Gaps within spans that have positions of the clock in common."""
        # A gap at position i lies between token_clock[i] and [i + 1]; a span covers the gaps start ... stop - 2.
        cover = np.zeros(len(self.token_clock) + 1, dtype=np.int64)
        np.add.at(cover, start, 1)
        np.add.at(cover, stop - 1, -1)
        weights = np.cumsum(cover)[: max(0, len(self.token_clock) - 1)]
        used = weights > 0
        return np.diff(self.token_clock)[used], weights[used]


def _are_apart(start: Ints, stop: Ints) -> bool:
    """Whether no position of the clock is in two spans."""
    order = np.argsort(start, kind="stable")
    return bool((stop[order][:-1] <= start[order][1:]).all())


def _inside(start: Ints, stop: Ints, count: int) -> NDArray[np.bool_]:
    """Which of the count - 1 gaps between neighbours lie within one of the spans, which are apart."""
    cover = np.zeros(max(1, count), dtype=np.int8)
    np.add.at(cover, start, 1)
    np.add.at(cover, stop - 1, -1)
    inside: NDArray[np.bool_] = np.cumsum(cover, out=cover)[: max(0, count - 1)].view(np.bool_)
    return inside


_TIMES = frozenset({"due_s", "sent_s", "first_byte_s", "first_token_s", "last_token_s", "done_s", "token_clock"})


def _shifted(values: Any, offset: float | None) -> Any:
    return values if offset is None else values + offset


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], tuple):
        return tuple(value for part in parts for value in part)
    return np.concatenate(parts)


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def _floats(values: Iterable[float | None]) -> Floats:
    return np.fromiter((np.nan if value is None else value for value in values), dtype=np.float64)
