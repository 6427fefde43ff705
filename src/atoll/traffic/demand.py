"""Which requests the users will make: the same plan for the simulator and for the load generator.

Lengths are drawn per user (closed loop) or per request (open loop) from the workload's seed alone, never from what
happens in the run. So user 7's third request is the same in virtual time and over HTTP, whoever answers sooner.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, starmap
from typing import NamedTuple

import numpy as np

from atoll.errors import BadTraffic
from atoll.traffic.arrivals import due_times
from atoll.traffic.lengths import draw_lengths
from atoll.traffic.request import Request
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Arrivals, Lengths, Start, Workload

_BATCH = 64  # lengths drawn at once for one user; part of what a seed means, so do not change it
_ARRIVALS, _SIZES, _USERS, _PROMPTS = 1, 2, 3, 5  # independent streams of one seed; the router's dice are the fourth


class Drawn(NamedTuple):
    """One request of a user, as far as it is known before it is sent."""

    prompt_tokens: int
    output_tokens: int
    shared_prefix_tokens: int = 0
    turn: int = 0
    session: int | None = None
    history_tokens: int = 0
    prefix: int = 0


class Demand:
    """The requests of one run.

    Closed loop: `starts()` says when each user sends first; then `next_request(user, number)` is that user's next
    one, to be sent `workload.think_s` after the last answer ended, as long as `goes_on(now_s, sent)`.
    Open loop: `open_requests()` gives every request with its due time, in order.
    """

    def __init__(self, workload: Workload, trace: Sequence[TraceRow] = ()) -> None:
        """Raises BadTraffic when the workload asks for a trace and `trace` is empty."""
        if not trace and (workload.arrivals is Arrivals.TRACE or _from_trace(workload.prompt, workload.output)):
            raise BadTraffic("this workload takes its requests from a trace, but no trace was given.")
        self.workload = workload
        self._until_s = float("inf") if workload.duration_s is None else workload.duration_s
        self._most = float("inf") if workload.requests is None else workload.requests
        self._trace = tuple(trace)
        self._users: dict[int, Iterator[Drawn]] = {}
        self._prompts: list[tuple[int, int]] = []  # those that come again

    @property
    def is_closed(self) -> bool:
        return self.workload.arrivals is Arrivals.CLOSED

    def starts(self) -> tuple[float, ...]:
        """Closed loop: when each user sends the first request, evenly spread from 0 over the workload's `start`.

        Raises BadTraffic when it is still to be spread over an answer's time, which is for `settle_start` to say.
        """
        users, start = self.workload.users or 0, self.workload.start
        if start is Start.SPREAD and users > 1:
            raise BadTraffic("users are to start spread over one answer's time, and nobody said how long that is.")
        over_s = 0.0 if isinstance(start, Start) else start
        return tuple(over_s * user / users for user in range(users))

    def goes_on(self, now_s: float, sent: int) -> bool:
        """Whether one more request may be sent at `now_s` when `sent` have been: within duration and number."""
        return now_s < self._until_s and sent < self._most

    def next_request(self, user: int, number: int) -> Request:
        """Closed loop: the user's next request; `number` is how many were sent before it by all users."""
        drawn = self.draw(user)
        return Request(
            number=number,
            user=user,
            turn=drawn.turn,
            prompt_tokens=drawn.prompt_tokens,
            output_tokens=drawn.output_tokens,
            shared_prefix_tokens=drawn.shared_prefix_tokens,
            session=drawn.session,
            history_tokens=drawn.history_tokens,
            prefix=drawn.prefix,
        )

    def draw(self, user: int) -> Drawn:
        """Closed loop: the lengths of the user's next request, for who needs nothing else of it."""
        plan = self._users.get(user)
        if plan is None:
            plan = self._users[user] = self._plan_of(user)
        return next(plan)

    def open_requests(self) -> Iterator[Request]:
        """Open loop: every request of the run, in order of its due time."""
        for (number, due), drawn in zip(enumerate(self._due_times()), self._open_draws(), strict=False):
            if not self.goes_on(due, number):
                return
            yield Request(
                number=number,
                user=number,
                due_s=due,
                prompt_tokens=drawn.prompt_tokens,
                output_tokens=drawn.output_tokens,
                shared_prefix_tokens=drawn.shared_prefix_tokens,
                prefix=drawn.prefix,
                session=drawn.session,
            )

    def _open_draws(self) -> Iterator[Drawn]:
        distinct = self.workload.distinct_prompts
        if distinct is None and self.workload.arrivals is Arrivals.TRACE:
            singles = self._singles(self._open_lengths())
            return (one._replace(session=row.session) for one, row in zip(singles, self._trace, strict=False))
        if distinct is None:
            return self._singles(self._open_lengths())
        if self.workload.arrivals is not Arrivals.TRACE:
            return self._repeated(0, 1, distinct)
        rows = enumerate(self._open_lengths())
        return (Drawn(prompt, output, prompt, prefix=number % distinct) for number, (prompt, output) in rows)

    def _due_times(self) -> Iterator[float]:
        if self.workload.arrivals is Arrivals.TRACE:
            return iter([row.due_s for row in self._trace])
        return due_times(self.workload, self._rng(_ARRIVALS))

    def _open_lengths(self) -> Iterator[tuple[int, int]]:
        if self.workload.arrivals is Arrivals.TRACE:
            return iter([(row.prompt_tokens, row.output_tokens) for row in self._trace])
        return self._lengths(self._rng(_SIZES))

    def _plan_of(self, user: int) -> Iterator[Drawn]:
        """One user's requests without end."""
        load = self.workload
        if load.distinct_prompts is not None:
            return self._repeated(user, load.users or 1, load.distinct_prompts)
        lengths = self._lengths(self._rng(_USERS, user))
        return self._singles(lengths) if load.turns == 1 else self._sessions(user, lengths)

    def _singles(self, lengths: Iterator[tuple[int, int]]) -> Iterator[Drawn]:
        head = self.workload.shared_prefix_tokens
        if not head:
            return starmap(Drawn, lengths)
        return (Drawn(prompt, output, min(head, prompt)) for prompt, output in lengths)

    def _sessions(self, session: int, lengths: Iterator[tuple[int, int]]) -> Iterator[Drawn]:
        load = self.workload
        while True:
            history = 0
            for turn in range(load.turns):
                fresh, output = next(lengths)
                prompt = history + fresh
                yield Drawn(prompt, output, min(load.shared_prefix_tokens, prompt), turn, session, history)
                history = prompt + output
            session += load.users or 1

    def _repeated(self, first: int, step: int, distinct: int) -> Iterator[Drawn]:
        """Prompts `first`, `first + step`, ... of a list of `distinct` ones that begins again at its end."""
        if not self._prompts:
            self._prompts = [next(self._lengths(self._rng(_PROMPTS, number))) for number in range(distinct)]
        for number in count(first, step):
            prompt, output = self._prompts[number % distinct]
            yield Drawn(prompt, output, prompt, prefix=number % distinct)

    def _lengths(self, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Pairs of prompt and output tokens, without end."""
        return chain.from_iterable(self._batches(rng))

    def _batches(self, rng: np.random.Generator) -> Iterator[Iterable[tuple[int, int]]]:
        load = self.workload
        while True:
            rows = rng.integers(len(self._trace), size=_BATCH) if _from_trace(load.prompt, load.output) else None
            yield zip(self._draw(load.prompt, 0, rows, rng), self._draw(load.output, 1, rows, rng), strict=True)

    def _draw(self, lengths: Lengths, column: int, rows: np.ndarray | None, rng: np.random.Generator) -> list[int]:
        """Prompt (column 0) or output (column 1) tokens; from one row of the trace when both come from it."""
        if lengths.kind != "trace" or rows is None:
            return list(draw_lengths(lengths, _BATCH, rng).tolist())
        chosen = [self._trace[row] for row in rows]
        counts = [row.output_tokens if column else row.prompt_tokens for row in chosen]
        high = lengths.high if lengths.high is not None else max(counts)
        return [min(max(count, lengths.low), high) for count in counts]

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.workload.seed, *stream])))


def _from_trace(*lengths: Lengths) -> bool:
    return any(item.kind == "trace" for item in lengths)
