"""What became of each simulated request, in columns; at the end they are a RecordTable."""

from collections.abc import Sequence

import numpy as np

from atoll.simulate.job import Job
from atoll.simulate.replica import VirtualReplica
from atoll.traffic.record import Floats, Ints, Outcome, RecordTable


class Ledger:
    """One row a request, in the order of sending: the row's number is the request's."""

    def __init__(self) -> None:
        self.count = 0
        self.user: list[int] = []
        self.turn: list[int] = []
        self.due_s: list[float] = []
        self.sent_s: list[float] = []
        self.prompt_tokens: list[int] = []
        self.output_tokens: list[int] = []
        self.replica: list[int] = []  # -1: none took it
        self.worker: list[int] = []
        self.cached: list[int] = []
        self.failures: dict[int, tuple[float, str, str, int]] = {}  # row -> when, class, sentence, HTTP status
        self.under_way: dict[int, Job] = {}

    def __len__(self) -> int:
        return self.count

    def send(self, job: Job, now: float, *, turn: int = 0, due_s: float = np.nan) -> None:
        """A user sends the request; the job's number is the next row's."""
        self.count += 1
        self.user.append(job.user)
        self.turn.append(turn)
        self.due_s.append(due_s)
        self.sent_s.append(now)
        self.prompt_tokens.append(job.prompt_tokens)
        self.output_tokens.append(job.output_tokens)
        self.replica.append(-1)
        self.worker.append(0)
        self.cached.append(0)

    def take(self, job: Job, replica: int, worker: int) -> None:
        """A replica has accepted the request."""
        self.replica[job.number] = replica
        self.worker[job.number] = worker
        self.under_way[job.number] = job

    def finish(self, job: Job) -> None:
        self.cached[job.number] = job.cached_tokens
        del self.under_way[job.number]

    def fail(self, row: int, now: float, error: str, detail: str, status: int = 0) -> None:
        self.failures[row] = (now, error, detail, status)
        job = self.under_way.pop(row, None)
        if job is not None:
            self.cached[row] = job.cached_tokens

    def table(self, replicas: Sequence[VirtualReplica]) -> RecordTable:
        """All columns; requests that are still under way are cancelled."""
        clock, spans = _joined_spans(replicas)
        first, last, counts = _ends_of_rows(clock, spans, len(self))
        names = [str(replica.number) for replica in replicas] + [None]  # -1 is the last
        ok = np.ones(len(self), dtype=np.bool_)
        ok[list(self.failures)] = False
        ok[list(self.under_way)] = False
        done = last.copy()
        for row, (when, _, _, _) in self.failures.items():
            done[row] = when
        done[list(self.under_way)] = np.nan
        return RecordTable(
            number=np.arange(len(self), dtype=np.int64),
            user=np.array(self.user, dtype=np.int64),
            turn=np.array(self.turn, dtype=np.int64),
            due_s=np.array(self.due_s, dtype=np.float64),
            sent_s=np.array(self.sent_s, dtype=np.float64),
            first_byte_s=np.full(len(self), np.nan),
            first_token_s=first,
            last_token_s=last,
            done_s=done,
            prompt_tokens=np.array(self.prompt_tokens, dtype=np.int64),
            output_tokens=np.where(ok, np.array(self.output_tokens, dtype=np.int64), counts),
            cached_tokens=np.array(self.cached, dtype=np.int64),
            outcome=self._outcomes(),
            error=self._words(1),
            detail=self._words(2),
            status=np.where(ok, 200, self._statuses()),
            replica=tuple([names[number] for number in self.replica]),
            counted_from_chunks=np.zeros(len(self), dtype=np.bool_),
            token_clock=clock,
            span_row=spans[:, 0],
            span_start=spans[:, 1],
            span_stop=spans[:, 2],
        )

    def _outcomes(self) -> tuple[str, ...]:
        outcomes = [str(Outcome.OK)] * len(self)
        for row in self.failures:
            outcomes[row] = str(Outcome.FAILED)
        for row in self.under_way:
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
        spans, clock = replica.spans, replica.clock
        prompts = offset + len(clock)
        shift = np.where(spans[:, 1] == 1, prompts, offset)
        parts.append(np.column_stack([spans[:, 0], spans[:, 2] + shift, spans[:, 3] + shift]))
        clocks += [clock, replica.prompt_clock]
        offset = prompts + len(replica.prompt_clock)
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
