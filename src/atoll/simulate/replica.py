"""One replica in virtual time: its scheduler, and the clock of its steps.

Steps in which nothing but decoding happens are taken many at a time. The clock then holds exactly the times that one
step after another gives: the timer makes them from the same expression, and they are added up in the same order.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from atoll.cost.step import StepTimer
from atoll.simulate.blocks import BlockPool
from atoll.simulate.job import Job
from atoll.simulate.scheduler import Scheduler, SchedulerLimits, Step
from atoll.simulate.timeline import Timeline
from atoll.traffic.record import Floats


class Span(NamedTuple):
    """The request in row `row` had a token at each of a clock's entries start ... stop - 1."""

    row: int
    of_prompts: bool  # which clock: the older engine's steps of prompts have one of their own
    start: int
    stop: int


class VirtualReplica:
    """An engine that computes nothing but time."""

    def __init__(
        self,
        number: int,
        *,
        limits: SchedulerLimits,
        kv_blocks: int,
        prefix_caching: bool,
        timer: StepTimer,
        timeline: Timeline,
        answered: Callable[[int, list[Job]], None],
        step_by_step: bool = False,
    ) -> None:
        """`answered(number, jobs)` is called when these jobs have their last token; it may bring new ones at once."""
        self.number = number
        self.is_up = True
        self.spans: list[Span] = []
        self._limits = limits
        self._kv_blocks = kv_blocks
        self._prefix_caching = prefix_caching
        self._timer = timer
        self._timeline = timeline
        self._answered = answered
        self._step_by_step = step_by_step
        self._clock = np.empty(4096)
        self._ticks = 0  # entries of the clock
        self._prompt_clock: list[float] = []
        self._front: deque[tuple[float, Job]] = deque()  # (when the scheduler gets it, job)
        self._open: dict[Job, int] = {}  # since which entry a job has had a token at each
        self._event = 0  # only the newest end of step counts
        self._settling = False  # a step has just ended
        self._quiet: int = 0  # how many quiet steps could be taken now
        self._start_afresh()

    @property
    def clock(self) -> Floats:
        """When each step ended, seconds; the older engine's steps of prompts are not among them."""
        return self._clock[: self._ticks]

    @property
    def prompt_clock(self) -> Floats:
        """When the older engine's steps of prompts ended."""
        return np.array(self._prompt_clock)

    def takes(self, job: Job) -> bool:
        """Whether the job fits into this replica at all."""
        return self.scheduler.takes(job)

    def arrive(self, job: Job) -> bool:
        """A request comes in, and the scheduler has it when the API server is done with it; False when it is full.

        Those on their way count: vLLM looks before it tokenises, and again after. Nobody overtakes: one process reads
        the requests, and tokenises one after the other.
        """
        if self.scheduler.is_full(coming=len(self._front)):
            return False
        ready = self._timeline.now + self._timer.front_seconds(job.prompt_tokens)
        if self._front:
            ready = max(ready, self._front[-1][0])
        self._front.append((ready, job))
        if not self._busy:
            self._begin_and_launch()
        elif self._ends is not None and self.scheduler.can_admit(job):
            self._cut_run(ready)
        return True

    def fail(self) -> list[Job]:
        """The engine dies; these are the requests that it had."""
        if self._ends is not None:
            self._tick_run(int(np.searchsorted(self._ends, self._timeline.now, side="left")))
        lost = [*self.scheduler.running, *self.scheduler.waiting, *(job for _, job in self._front)]
        for job in list(self._open):
            self._close(job, self._ticks)
        self.spans = [span for span in map(self._as_far_as_it_came, self.spans) if span.start < span.stop]
        self.is_up = False
        self._start_afresh()
        return lost

    def restart(self) -> None:
        """Up again, with an empty cache."""
        self.is_up = True

    def _as_far_as_it_came(self, span: Span) -> Span:
        """Steps that were scheduled but have not ended gave no token."""
        entries = len(self._prompt_clock) if span.of_prompts else self._ticks
        return span._replace(stop=min(span.stop, entries))

    def _start_afresh(self) -> None:
        self.scheduler = Scheduler(self._limits, BlockPool(self._kv_blocks, prefix_caching=self._prefix_caching))
        self._front.clear()
        self._busy = False
        self._step: Step | None = None  # under way
        self._ahead: Step | None = None  # scheduled while that one runs
        self._ends: Floats | None = None  # of a run of quiet steps under way
        self._quiet = 0
        self._event += 1

    # Those on their way through the API server

    def _let_in(self) -> None:
        """The scheduler gets those that are through."""
        while self._front and self._front[0][0] <= self._timeline.now:
            self.scheduler.add(self._front.popleft()[1])

    def _let_in_one(self) -> None:
        """An idle engine begins with the first that is through; the next, however soon, finds the step begun.

        Even those whose times are equal here come one after the other through one process.
        """
        if self._front and self._front[0][0] <= self._timeline.now:
            self.scheduler.add(self._front.popleft()[1])

    def _rouse(self, event: int) -> None:
        """An idle engine's next request is through."""
        if event == self._event:
            self._begin_and_launch()

    # A step's life: _begin decides what it is, _launch lets it run, _end takes in what it gave.

    def _begin(self) -> None:
        """Schedule what comes next, as the engine does before anyone has seen the last step's tokens."""
        if self._limits.async_scheduling:
            self._begin_ahead()
            return
        self._quiet = 0 if self._step_by_step else self.scheduler.quiet_steps()
        if not self._quiet:
            self._step = self._schedule(self._ticks)
        self._busy = self._quiet > 0 or self._step is not None

    def _begin_ahead(self) -> None:
        """The step scheduled before starts, and the one after it is scheduled."""
        self._step = self._ahead if self._ahead is not None else self._schedule(self._ticks)
        self._ahead = None
        self._busy = self._step is not None
        self._quiet = 0
        if self._step is None:
            return
        if not self._step_by_step and self._is_quiet(self._step):
            self._quiet = self.scheduler.quiet_steps()
        if not self._quiet:
            self._ahead = self._schedule(self._ticks + 1)

    def _is_quiet(self, step: Step) -> bool:
        """Whether the step is one of decodes in which nobody ends and from which nobody has left since."""
        return not step.prefills and not step.finished and step.batch.decodes == self.scheduler.decodes

    def _schedule(self, entry: int) -> Step | None:
        """The next step, whose end will be the clock's entry of that number."""
        step = self.scheduler.schedule()
        if step is None:
            return None
        for job in (*step.preempted, *step.held_back):
            self._close(job, entry)
        for job in step.held_back:
            self._open[job] = entry + 1
        for job in step.first_tokens:
            self._open[job] = entry
            if self._limits.prefill_first:
                done = len(self._prompt_clock)
                self.spans.append(Span(job.number, True, done, done + 1))
        return step

    def _close(self, job: Job, stop: int) -> None:
        start = self._open.pop(job, None)
        if start is not None and start < stop:
            self.spans.append(Span(job.number, False, start, stop))

    def _begin_and_launch(self) -> None:
        if self._settling:
            return
        self._let_in_one()
        self._begin()
        if self._busy:
            self._launch()
        elif self._front:
            self._event += 1
            self._timeline.at(self._front[0][0], self._rouse, self._event)

    def _launch(self) -> None:
        """Let the step, or the quiet steps, run; no longer than until the next request may join."""
        now = self._timeline.now
        batch = self._step.batch if self._step is not None else self.scheduler.batch
        steps, ready = self._quiet, None
        if steps > 1 and self._front and self.scheduler.can_admit(self._front[0][1]):
            ready = self._front[0][0]
            steps = min(steps, _steps_until(ready - now, self._timer.seconds(batch)))
        if steps > 1:
            ends = np.empty(steps + 1)
            ends[0] = now
            ends[1:] = self._timer.decode_seconds(batch.decodes, batch.decode_context, steps)
            self._ends = ends.cumsum(out=ends)[1:]
            if ready is not None:
                self._ends = self._ends[: int(np.searchsorted(self._ends, ready, side="left")) + 1]
            self._wake_at(float(self._ends[-1]))
        else:
            self._wake_at(now + self._timer.seconds(batch))

    def _wake_at(self, when: float) -> None:
        self._event += 1
        self._timeline.at(when, self._end, self._event, rank=self.number)

    def _cut_run(self, ready: float) -> None:
        """Someone may join at the end of the step that is under way then, so the run ends there.

        At the same moment as a step's end, an event of lower rank is before it, one of higher rank after it.
        """
        assert self._ends is not None
        earlier = ready > self._timeline.now or self._timeline.rank < self.number
        steps = int(np.searchsorted(self._ends, ready, side="left" if earlier else "right")) + 1
        if steps < len(self._ends):
            self._ends = self._ends[:steps]
            self._wake_at(float(self._ends[-1]))

    def _end(self, event: int) -> None:
        if event != self._event:
            return
        finished = self._end_quiet() if self._quiet else self._end_step()
        for job in finished:
            self._close(job, self._ticks)
        self._step = None
        self._let_in()
        self._begin()
        if finished:
            self._settling = True
            self._answered(self.number, finished)
            self._settling = False
        if self._busy:
            self._launch()
        else:
            self._begin_and_launch()

    def _end_step(self) -> list[Job]:
        assert self._step is not None
        if self._limits.prefill_first and self._step.prefills:
            self._prompt_clock.append(self._timeline.now)
        else:
            self._tick(self._timeline.now)
        return self.scheduler.complete(self._step) if self._step.finished else []

    def _end_quiet(self) -> list[Job]:
        steps = 1
        if self._ends is None:
            self._tick(self._timeline.now)
        else:
            steps = len(self._ends)
            self._tick_run(steps)
            self._ends = None
        last = self.scheduler.advance(steps)
        if self._limits.async_scheduling:
            self._ahead = last
            return []
        return self.scheduler.complete(last)

    def _tick(self, now: float) -> None:
        if self._ticks == len(self._clock):
            self._grow(1)
        self._clock[self._ticks] = now
        self._ticks += 1

    def _tick_run(self, steps: int) -> None:
        assert self._ends is not None
        if self._ticks + steps > len(self._clock):
            self._grow(steps)
        self._clock[self._ticks : self._ticks + steps] = self._ends[:steps]
        self._ticks += steps

    def _grow(self, steps: int) -> None:
        clock = np.empty(2 * len(self._clock) + steps)
        clock[: self._ticks] = self._clock[: self._ticks]
        self._clock = clock


def _steps_until(seconds: float, step_s: float) -> int:
    """No fewer steps than fit into so many seconds, the first of them given and the others no shorter."""
    return int(seconds / step_s) + 1 if 0 < step_s < seconds else 1
