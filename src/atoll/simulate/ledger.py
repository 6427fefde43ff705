"""What became of each simulated request, in columns; at the end they are a RecordTable."""

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from atoll.simulate.job import Job, chain_of
from atoll.simulate.replica import VirtualReplica
from atoll.traffic.demand import Drawn
from atoll.traffic.record import Floats, Ints, Outcome, RecordTable
from atoll.traffic.request import Request


class Sent(Job):
    """A request with what its row says besides."""

    __slots__ = ("due_s", "prefix", "replica", "sent_s", "session", "shared_tokens", "turn", "worker")

    def __init__(
        self, number: int, user: int, request: Drawn | Request, *, sent_s: float, due_s: float = np.nan
    ) -> None:
        super().__init__(
            number=number,
            user=user,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            chain=chain_of(request),
        )
        self.sent_s = sent_s
        self.due_s = due_s  # NaN: no due time of its own
        self.turn = request.turn
        self.session = request.session
        self.prefix = request.prefix
        self.shared_tokens = request.shared_prefix_tokens
        self.replica = -1  # -1: none took it
        self.worker = 0  # of the router


class Ledger:
    """One row a request, in the order of sending: the row's number is the request's."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.failures: dict[int, tuple[float, str, str, int]] = {}  # row -> when, class, sentence, HTTP status

    def __len__(self) -> int:
        return len(self.sent)

    def fail(self, row: int, now: float, error: str, detail: str, status: int = 0) -> None:
        self.failures[row] = (now, error, detail, status)

    def table(self, replicas: Sequence[VirtualReplica]) -> RecordTable:
        """All columns; requests that are still under way are cancelled."""
        clock, spans = _joined_spans(replicas)
        first, last, counts = _ends_of_rows(clock, spans, len(self))
        names = [str(replica.number) for replica in replicas] + [None]  # -1 is the last
        cut = [job.number for job in self.sent if not job.gone and job.number not in self.failures]
        ok = np.ones(len(self), dtype=np.bool_)
        ok[list(self.failures)] = False
        ok[cut] = False
        done, cached = last.copy(), self._ints("cached_tokens")
        for row, (when, _, _, _) in self.failures.items():
            done[row] = when
        done[cut] = np.nan
        cached[cut] = 0
        return RecordTable(
            number=np.arange(len(self), dtype=np.int64),
            user=self._ints("user"),
            turn=self._ints("turn"),
            due_s=np.array([job.due_s for job in self.sent], dtype=np.float64),
            sent_s=np.array([job.sent_s for job in self.sent], dtype=np.float64),
            first_byte_s=np.full(len(self), np.nan),
            first_token_s=first,
            last_token_s=last,
            done_s=done,
            prompt_tokens=self._ints("prompt_tokens"),
            output_tokens=np.where(ok, self._ints("output_tokens"), counts),
            cached_tokens=cached,
            outcome=self._outcomes(cut),
            error=self._words(1),
            detail=self._words(2),
            status=np.where(ok, 200, self._statuses()),
            replica=tuple([names[job.replica] for job in self.sent]),
            asked_prompt_tokens=np.zeros(len(self), dtype=np.int64),
            asked_output_tokens=np.zeros(len(self), dtype=np.int64),
            resent=np.zeros(len(self), dtype=np.int64),
            retried=np.zeros(len(self), dtype=np.int64),
            request_id=(None,) * len(self),
            model=(None,) * len(self),
            counted_from_chunks=np.zeros(len(self), dtype=np.bool_),
            token_clock=clock,
            span_row=spans[:, 0],
            span_start=spans[:, 1],
            span_stop=spans[:, 2],
        )

    def _ints(self, name: str) -> Ints:
        return np.fromiter(map(attrgetter(name), self.sent), dtype=np.int64, count=len(self))

    def _outcomes(self, cut: Sequence[int]) -> tuple[str, ...]:
        outcomes = [str(Outcome.OK)] * len(self)
        for row in self.failures:
            outcomes[row] = str(Outcome.FAILED)
        for row in cut:
            outcomes[row] = str(Outcome.CANCELLED)
        return tuple(outcomes)

    def _words(self, place: int) -> tuple[str | None, ...]:
        words: list[str | None] = [None] * len(self)
        for row, failure in self.failures.items():
            words[row] = str(failure[place])
        return tuple(words)

    def _statuses(self) -> Ints:
        statuses = np.zeros(len(self), dtype=np.int64)
        for row, failure in self.failures.items():
            statuses[row] = failure[3]
        return statuses


def _joined_spans(replicas: Sequence[VirtualReplica]) -> tuple[Floats, Ints]:
    """One clock after the other, and spans (row, start, stop) in it, those of a row in order of time."""
    clocks, parts, offset = [np.empty(0)], [np.empty((0, 3), dtype=np.int64)], 0
    for replica in replicas:
        spans, prompt_clock = replica.spans, replica.prompt_clock
        prompts = offset + replica.clock.ticks
        shift = np.where(spans[:, 1] == 1, prompts, offset)
        parts.append(np.column_stack([spans[:, 0], spans[:, 2] + shift, spans[:, 3] + shift]))
        clocks += [*replica.clock.pages, prompt_clock]
        offset = prompts + len(prompt_clock)
    joined = np.concatenate(parts)
    return np.concatenate(clocks), joined[np.argsort(joined[:, 0], kind="stable")]


def _ends_of_rows(clock: Floats, spans: Ints, rows: int) -> tuple[Floats, Floats, Ints]:
    """First token, last token and number of tokens of each row."""
    first, last = np.full(rows, np.nan), np.full(rows, np.nan)
    counts = np.bincount(spans[:, 0], weights=spans[:, 2] - spans[:, 1], minlength=rows).astype(np.int64)
    backwards = spans[::-1]
    first[backwards[:, 0]] = clock[backwards[:, 1]]  # of several, the one written last counts: the row's first span
    last[spans[:, 0]] = clock[spans[:, 2] - 1]
    return first, last, counts
