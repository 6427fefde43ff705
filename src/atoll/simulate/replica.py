"""One replica in virtual time: its scheduler, and the clock of its steps.

Steps in which nothing but decoding happens are taken many at a time. The clock then holds exactly the times that one
step after another gives: the timer makes them from the same expression, and they are added up in the same order.
"""

from collections import deque
from collections.abc import Callable
from itertools import chain

import numpy as np

from atoll.cost.step import StepBatch, StepTimer
from atoll.engines.engine import SchedulerLimits
from atoll.simulate.blocks import BlockPool
from atoll.simulate.job import Job
from atoll.simulate.scheduler import Scheduler, Step
from atoll.simulate.timeline import Timeline
from atoll.traffic.record import Floats, Ints

# (row, of prompts, start, stop): the request in that row had a token at each of a clock's entries start ... stop - 1.
# Which clock: the older engine's steps of prompts (1) have one of their own.
Span = tuple[int, int, int, int]


class StepClock:
    """When each step ended, seconds, in pages that are never moved."""

    PAGE = 1 << 14

    def __init__(self) -> None:
        self.ticks = 0
        self._full: list[Floats] = []
        self._page = np.empty(self.PAGE)
        self._used = 0

    def tick(self, now: float) -> None:
        if self._used == len(self._page):
            self._turn_page(1)
        self._page[self._used] = now
        self._used += 1
        self.ticks += 1

    def tick_run(self, ends: Floats) -> None:
        """Many steps, one after the other."""
        stop = self._used + len(ends)
        if stop > len(self._page):
            self._turn_page(len(ends))
            stop = len(ends)
        self._page[self._used : stop] = ends
        self._used = stop
        self.ticks += len(ends)

    @property
    def pages(self) -> list[Floats]:
        """All of them, in order; shape (ticks,) together."""
        return [*self._full, self._page[: self._used]]

    def _turn_page(self, steps: int) -> None:
        self._full.append(self._page[: self._used])
        self._page = np.empty(max(self.PAGE, steps))
        self._used = 0


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
        self._limits = limits
        self._kv_blocks = kv_blocks
        self._prefix_caching = prefix_caching
        self._timer = timer
        self._timeline = timeline
        self._answered = answered
        self._step_by_step = step_by_step
        self.clock = StepClock()  # the older engine's steps of prompts are not among them
        self._prompt_clock: list[float] = []
        self._spans: list[Span] = []
        self._front: deque[tuple[float, Job]] = deque()  # (when the scheduler gets it, job)
        self._event = 0  # only the newest end of step counts
        self._settling = False  # a step has just ended
        self._quiet: int = 0  # how many quiet steps could be taken now
        self._through = False  # with async scheduling: the run under way takes in the last of them
        self._start_afresh()

    @property
    def prompt_clock(self) -> Floats:
        """When the older engine's steps of prompts ended."""
        return np.array(self._prompt_clock)

    @property
    def spans(self) -> Ints:
        """One a row, of shape (spans, 4); those of one request stand in order of time."""
        flat = np.fromiter(chain.from_iterable(self._spans), dtype=np.int64, count=4 * len(self._spans))
        return flat.reshape(-1, 4)

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
        elif self._ends is not None:
            self._cut_run(ready, joins=self.scheduler.can_admit(job))
        return True

    def fail(self) -> list[Job]:
        """The engine dies; these are the requests that it had."""
        if self._ends is not None:
            ended = int(self._ends.searchsorted(self._timeline.now, side="left"))
            self.clock.tick_run(self._ends[:ended])
        lost = [*self.scheduler.running, *self.scheduler.waiting, *(job for _, job in self._front)]
        for job in lost:
            self._close(job, self.clock.ticks)
        reached = map(self._as_far_as_it_came, self._spans)
        self._spans = [span for span in reached if span[2] < span[3]]  # start < stop
        self.is_up = False
        self._start_afresh()
        return lost

    def restart(self) -> None:
        """Up again, with an empty cache."""
        self.is_up = True

    def _as_far_as_it_came(self, span: Span) -> Span:
        """Steps that were scheduled but have not ended gave no token."""
        row, of_prompts, start, stop = span
        entries = len(self._prompt_clock) if of_prompts else self.clock.ticks
        return row, of_prompts, start, min(stop, entries)

    def _start_afresh(self) -> None:
        pool = BlockPool(self._kv_blocks, prefix_caching=self._prefix_caching)
        self.scheduler = Scheduler(self._limits, pool, lists_decoding=False)
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
        if not self._limits.async_scheduling:
            self._begin_next()
            return
        # The step scheduled before starts, and the one after it is scheduled.
        step = self._step = self._ahead or self._schedule(self.clock.ticks)
        self._ahead = None
        self._busy = step is not None
        self._quiet = 0
        if step is None:
            return
        if not (step.prefills or step.finished or self._step_by_step) and step.decodes == self.scheduler.decodes:
            # One of decodes, in which nobody ends and from which nobody has left since.
            self._quiet = self.scheduler.quiet_steps()
        if not self._quiet:
            self._ahead = self._schedule(self.clock.ticks + 1)

    def _begin_next(self) -> None:
        """Without async scheduling."""
        self._quiet = 0 if self._step_by_step else self.scheduler.quiet_steps()
        if not self._quiet:
            self._step = self._schedule(self.clock.ticks)
        self._busy = self._quiet > 0 or self._step is not None

    def _schedule(self, entry: int) -> Step | None:
        """The next step, whose end will be the clock's entry of that number."""
        step = self.scheduler.schedule()
        if step is None:
            return None
        if step.preempted or step.held_back:
            self._interrupt(step, entry)
        for job in step.first_tokens:
            job.since = entry
            if self._limits.prefill_first:
                done = len(self._prompt_clock)
                self._spans.append((job.number, 1, done, done + 1))
        return step

    def _interrupt(self, step: Step, entry: int) -> None:
        """The preempted have no more token until their prompt is computed anew, those held back none in this step."""
        for job in (*step.preempted, *step.held_back):
            self._close(job, entry)
        for job in step.held_back:
            job.since = entry + 1

    def _close(self, job: Job, stop: int) -> None:
        if job.since is not None and job.since < stop:
            self._spans.append((job.number, 0, job.since, stop))
        job.since = None

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
        self._through = steps > 0 and self._limits.async_scheduling and not self._front
        if self._through:
            steps += 1
        if steps > 1:
            self._launch_run(batch, steps, ready)
        else:
            self._wake_at(now + self._timer.seconds(batch))

    def _launch_run(self, batch: StepBatch, steps: int, ready: float | None) -> None:
        ends = self._timer.decode_seconds(batch.decodes, batch.decode_context, steps)
        ends[0] += self._timeline.now
        np.add.accumulate(ends, out=ends)
        if ready is not None:
            ends = ends[: int(ends.searchsorted(ready, side="left")) + 1]
        self._ends = ends
        self._wake_at(float(ends[-1]))

    def _wake_at(self, when: float) -> None:
        self._event += 1
        self._timeline.at(when, self._end, self._event, rank=self.number)

    def _cut_run(self, ready: float, *, joins: bool) -> None:
        """Someone may join at the end of the step that is under way then, so the run ends there.

        Who cannot join beside these decodes perhaps can when some of them have ended, so the last step, which may be
        theirs, is left for itself. At the same moment as a step's end, an event of lower rank is before it, one of
        higher rank after it.
        """
        assert self._ends is not None
        earlier = ready > self._timeline.now or self._timeline.rank < self.number
        steps = int(self._ends.searchsorted(ready, side="left" if earlier else "right")) + 1
        if steps < len(self._ends) and (joins or self._through):
            self._ends = self._ends[: steps if joins else -1]
            self._through = False
            self._wake_at(float(self._ends[-1]))

    def _end(self, event: int) -> None:
        if event != self._event:
            return
        finished = self._end_quiet() if self._quiet else self._end_step()
        for job in finished:
            self._close(job, self.clock.ticks)
        self._step = None
        if self._front:
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
        step = self._step
        assert step is not None
        if step.prefills and self._limits.prefill_first:
            self._prompt_clock.append(self._timeline.now)
        else:
            self.clock.tick(self._timeline.now)
        return self.scheduler.complete(step) if step.finished else []

    def _end_quiet(self) -> list[Job]:
        steps = 1
        if self._ends is None:
            self.clock.tick(self._timeline.now)
        else:
            steps = len(self._ends)
            self.clock.tick_run(self._ends)
            self._ends = None
        if self._limits.async_scheduling and not self._through:
            self._ahead = self.scheduler.advance(steps)
            return []
        last = self.scheduler.advance(self._quiet if self._through else steps)
        if self._through:
            self._ahead = self._schedule(self.clock.ticks)  # as the engine did when the last step began
        return self.scheduler.complete(last)


def _steps_until(seconds: float, step_s: float) -> int:
    """No fewer steps than fit into so many seconds, the first of them given and the others no shorter."""
    return int(seconds / step_s) + 1 if 0 < step_s < seconds else 1
