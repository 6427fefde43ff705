"""The scheduler and the step timer, run in real time.

One task per engine: schedule a step, wait until it would be over, hand out its tokens, and again. The end of a step is
counted from the end of the one before, not from when we woke up, so a late wake-up shortens the next wait and the pace
does not drift.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Protocol

from atoll.cost.step import StepTimer
from atoll.emulate.ask import Ask
from atoll.emulate.meters import Meters
from atoll.emulate.metrics import CacheFacts, Gauges
from atoll.emulate.prefixes import PrefixIndex
from atoll.engines.engine import BLOCK_TOKENS
from atoll.outside.clock import Clock
from atoll.simulate.job import Job
from atoll.simulate.scheduler import Scheduler, Step

EARLY_S = 0.0015  # event loops wake up to the millisecond; the rest is slept without the loop
MOST_LATE_S = 0.25  # further behind than this, the pace starts anew instead of rushing after


class Listener(Protocol):
    """Whoever waits for an answer."""

    def on_token(self) -> None:
        """One more token, not the last."""
        ...

    def on_finish(self, cached_tokens: int) -> None:
        """The last token; so many of the prompt's were in the prefix cache."""
        ...


class Running(Job):
    """A job with its listener and its times, in seconds of the engine's clock."""

    __slots__ = ("arrived", "ask", "first", "joined", "listener", "previous")

    def __init__(self, ask: Ask, listener: Listener, *, number: int, arrived: float, chain: object) -> None:
        super().__init__(
            number=number,
            prompt_tokens=ask.prompt_tokens,
            output_tokens=ask.output_tokens,
            chain=chain,  # type: ignore[arg-type]
            ends_by_eos=ask.finish_reason == "stop",
        )
        self.ask = ask
        self.listener = listener
        self.arrived = arrived
        self.joined = 0.0
        self.first = 0.0
        self.previous = 0.0


class EmulatedEngine:
    """One replica's engine. `speed` 10 runs ten times as fast as the timer says."""

    def __init__(
        self,
        scheduler: Scheduler,
        timer: StepTimer,
        *,
        clock: Clock,
        meters: Meters,
        speed: float = 1.0,
        hold: Callable[[float], None] = time.sleep,
    ) -> None:
        self.meters = meters
        self.steps = 0
        self._scheduler = scheduler
        self._timer = timer
        self._clock = clock
        self._speed = speed
        self._hold = hold
        self._numbers = count()
        self._front: deque[tuple[float, Running]] = deque()  # (when the scheduler gets it, job)
        self._wake = asyncio.Event()
        self._due = 0.0
        self._prefixes = PrefixIndex(4 * scheduler.pool.blocks) if scheduler.pool.prefix_caching else None

    def gauges(self) -> Gauges:
        """The scheduler's state now; the counters that it keeps are copied into the meters."""
        scheduler = self._scheduler
        self.meters.preemptions = scheduler.preemptions
        self.meters.prefix_queries = scheduler.prefix_queries
        self.meters.prefix_hits = scheduler.prefix_hits
        return Gauges(running=len(scheduler.running), waiting=len(scheduler.waiting), kv_usage=scheduler.kv_usage)

    def facts(self) -> CacheFacts:
        """What /metrics says of the KV cache once and for all."""
        pool = self._scheduler.pool
        return CacheFacts(
            blocks=pool.blocks,
            block_tokens=BLOCK_TOKENS,
            prefix_caching=pool.prefix_caching,
            max_model_len=self.meters.max_model_len,
        )

    def admits(self, count: int) -> bool:
        """Whether so many more requests would be let in now; one that would not is counted as rejected."""
        if count < 1 or not self._scheduler.is_full(coming=len(self._front) + count - 1):
            return True
        self.meters.rejected += 1
        return False

    def submit(self, ask: Ask, listener: Listener) -> Running | None:
        """Queue a request; None when the queue is full."""
        chain = self._prefixes.chain(ask.prompt) if self._prefixes is not None else ()
        job = Running(ask, listener, number=next(self._numbers), arrived=self._clock.now(), chain=chain)
        if self._scheduler.is_full(coming=len(self._front)):
            self.meters.rejected += 1
            return None
        ready = job.arrived + self._timer.front_seconds(job.prompt_tokens) / self._speed
        if self._front:  # nobody overtakes, as in simulate/replica.py
            ready = max(ready, self._front[-1][0])
        self._front.append((ready, job))
        self._wake.set()
        return job

    def _let_in(self) -> None:
        """The scheduler gets those whose time in the API server is over."""
        now = self._clock.now()
        while self._front and self._front[0][0] <= now:
            self._scheduler.add(self._front.popleft()[1])

    def abort(self, job: Running) -> None:
        """The client is gone."""
        if job.gone:
            return
        self.meters.finished["abort"] += 1
        entry = next((entry for entry in self._front if entry[1] is job), None)
        if entry is None:
            self._scheduler.abort(job)
            return
        job.gone = True
        self._front.remove(entry)

    async def run(self) -> None:
        """Until cancelled."""
        step: Step | None = None
        while True:
            if step is None:
                step = await self._first_step()
            seconds = self._timer.seconds(step.batch) / self._speed
            self._note_joined(step)
            following = self._schedule() if self._scheduler.limits.async_scheduling else None
            self._due += seconds
            await self._wait_until_due()
            self._hand_out(step)
            step = following if following is not None else self._schedule()

    def _schedule(self) -> Step | None:
        self._let_in()
        return self._scheduler.schedule()

    async def _first_step(self) -> Step:
        """Idle until there is something to compute; the pace starts then."""
        step = self._schedule()
        while step is None:
            if self._front:
                self._due = self._front[0][0]
                await self._wait_until_due()
            else:
                self._wake.clear()
                await self._wake.wait()
            step = self._schedule()
        self._due = self._clock.now()
        return step

    async def _wait_until_due(self) -> None:
        left = self._due - self._clock.now()
        await self._clock.sleep(max(0.0, left - EARLY_S))
        left = self._due - self._clock.now()
        if left > 0:
            self._hold(left)
        elif -left > MOST_LATE_S:
            self.meters.late_s -= left
            self._due -= left

    def _note_joined(self, step: Step) -> None:
        now = self._due
        for job, _ in step.prefills:
            assert isinstance(job, Running)
            job.joined = job.joined or now

    def _hand_out(self, step: Step) -> None:
        """Give every job of the step its token."""
        self.steps += 1
        now = self._clock.now()
        meters = self.meters
        finished = set(step.finished)
        gaps: dict[float, int] = {}
        tokens = 0
        for job in step.tokens():
            assert isinstance(job, Running)
            tokens += 1
            previous, job.previous = job.previous, now
            if previous:
                gap = now - previous
                gaps[gap] = gaps.get(gap, 0) + 1
            else:
                job.first = now
                meters.first_token.observe(now - job.arrived)
                meters.prompt_tokens += job.prompt_tokens
            if job in finished:
                self._finish(job, now)
            else:
                job.listener.on_token()
        for gap, times in gaps.items():
            meters.token_gap.observe(gap, times)
        meters.generation_tokens += tokens
        meters.step_tokens.observe(tokens + sum(new for _, (new, _) in step.prefills))
        self._scheduler.complete(step)

    def _finish(self, job: Running, now: float) -> None:
        ask, meters = job.ask, self.meters
        if self._prefixes is not None and job.chain:
            self._prefixes.extend(job.chain, [*ask.prompt, *ask.answer_pieces()])
        meters.finished[ask.finish_reason] += 1
        meters.request_prompt_tokens.observe(ask.prompt_tokens)
        meters.request_generation_tokens.observe(ask.output_tokens)
        meters.request_max_tokens.observe(ask.max_tokens)
        meters.request_computed.observe(ask.prompt_tokens - job.cached_tokens)
        meters.request_preemptions.observe(job.preemptions)
        if ask.index % ask.n == 0:  # once a request
            meters.request_n.observe(ask.n)
            meters.request_most_generated.observe(ask.output_tokens)
        meters.e2e.observe(now - job.arrived)
        meters.queue.observe(max(0.0, job.joined - job.arrived))
        meters.inference.observe(now - job.joined)
        meters.prefill.observe(max(0.0, job.first - job.joined))
        meters.decode.observe(now - job.first)
        if ask.output_tokens > 1:
            meters.time_per_token.observe((now - job.first) / (ask.output_tokens - 1))
        job.listener.on_finish(job.cached_tokens)
