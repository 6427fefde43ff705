"""The scheduler against vLLM's loop written out request by request, and what it conserves."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.engines.engine import SchedulerLimits
from atoll.simulate.blocks import BlockPool
from atoll.simulate.job import Job
from atoll.simulate.scheduler import Scheduler

BLOCK = 16


@dataclass(eq=False)
class PlainRequest:
    """vLLM's Request: tokens known so far, tokens computed, blocks held."""

    number: int
    prompt: int
    output: int
    eos: bool
    tokens: int = 0
    computed: int = 0
    blocks: int = 0
    placeholders: int = 0
    preempted: bool = False
    gone: bool = False

    def __post_init__(self):
        self.tokens = self.prompt

    @property
    def known_end(self):
        """All tokens of the answer are there or on their way, and the engine knows that no more follow."""
        return not self.eos and self.tokens + self.placeholders >= self.prompt + self.output


@dataclass
class PlainScheduler:
    """schedule() of vllm/v1/core/sched/scheduler.py and update_from_output(), without prefix cache."""

    limits: SchedulerLimits
    free: int
    waiting: list = field(default_factory=list)
    running: list = field(default_factory=list)

    def grow(self, request, tokens):
        need = -(-tokens // BLOCK) - request.blocks
        if need > self.free:
            return False
        self.free -= need
        request.blocks += need
        return True

    def preempt(self, request):
        self.running.remove(request)
        self.free += request.blocks
        request.blocks = request.computed = 0
        request.tokens += request.placeholders  # what is on its way still arrives
        request.placeholders = 0
        request.preempted = True
        self.waiting.insert(0, request)

    def schedule(self):  # noqa: PLR0912 - in one piece, as vLLM has it
        limits, budget = self.limits, self.limits.max_num_batched_tokens
        scheduled, preempted, index = [], [], 0
        most = limits.long_prefill_token_threshold
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            new = request.tokens + request.placeholders - request.computed
            new = min(new, budget, most or new)
            if request.known_end:
                new = 0
            if new == 0:
                index += 1
                continue
            while not self.grow(request, request.computed + new):
                victim = self.running[-1]
                self.preempt(victim)
                preempted.append(victim)
                if victim is request:
                    break
            else:
                scheduled.append((request, new, request.computed))
                budget -= new
                index += 1
                continue
            break
        if not preempted:
            while self.waiting and budget > 0 and len(self.running) < limits.max_num_seqs:
                request = self.waiting[0]
                new = min(request.tokens, most or request.tokens)
                if not limits.chunked_prefill and new > budget:
                    break
                new = min(new, budget)
                if limits.reserve_full_prompt and -(-request.tokens // BLOCK) > self.free:
                    break
                if not self.grow(request, new):
                    break
                self.waiting.pop(0)
                self.running.append(request)
                scheduled.append((request, new, 0))
                budget -= new
        for request, new, _ in scheduled:
            request.computed += new
        done = [r for r, _, _ in scheduled if r.computed == r.tokens + r.placeholders]
        for request in done:
            request.placeholders += 1
        return scheduled, done, preempted

    def complete(self, done):
        """The step's tokens arrive."""
        finished = []
        for request in done:
            if request.gone:
                continue
            if request.placeholders:
                request.placeholders -= 1
                request.tokens += 1
            if request.tokens >= request.prompt + request.output:
                request.gone = True
                if request in self.running:
                    self.running.remove(request)
                else:
                    self.waiting.remove(request)
                self.free += request.blocks
                finished.append(request)
        return finished


lengths = st.integers(1, 120)


@st.composite
def worlds(draw, *, threshold=False):
    limits = SchedulerLimits(
        max_num_seqs=draw(st.integers(1, 8)),
        max_num_batched_tokens=draw(st.sampled_from([8, 16, 40, 64, 200])),
        reserve_full_prompt=draw(st.booleans()),
        async_scheduling=draw(st.booleans()),
        long_prefill_token_threshold=draw(st.sampled_from([3, 20, 50])) if threshold else 0,
    )
    blocks = draw(st.integers(15, 60))
    jobs = draw(
        st.lists(st.tuples(lengths, lengths, st.booleans(), st.integers(0, 40)), min_size=1, max_size=14)
    )  # prompt, output, ends by eos, the step before which it arrives
    return limits, blocks, jobs


def make_job(number, prompt, output, eos):
    return Job(number=number, prompt_tokens=prompt, output_tokens=output, ends_by_eos=eos)


def steps_of(scheduler, jobs, arrivals, complete, schedule):
    """Drive it as an engine does: the next step is scheduled before the last is complete, or after it."""
    ahead_of_time = scheduler.limits.async_scheduling
    under_way, count = None, 0
    while True:
        for job in arrivals.pop(count, ()):
            scheduler.add(job) if isinstance(scheduler, Scheduler) else scheduler.waiting.append(job)
        step = schedule(scheduler)
        if not ahead_of_time:
            if step is None and not arrivals:
                return
            if step is not None:
                yield step, complete(scheduler, step)
        else:
            if under_way is not None:
                yield under_way, complete(scheduler, under_way)
            if step is None and under_way is None and not arrivals:
                return
            under_way = step
        count += 1
        assert count < 30_000


def seen_by_us(scheduler, jobs, arrivals):
    def schedule(s):
        step = s.schedule()
        if step is None:
            return None
        tokens = sorted(job.number for job in step.tokens())
        return step, tokens

    for (step, tokens), finished in steps_of(scheduler, jobs, arrivals, lambda s, step: s.complete(step[0]), schedule):
        yield (
            tuple(step.batch.prefills),
            step.batch.decodes,
            step.batch.decode_context,
            tuple(job.number for job in step.preempted),
            tokens,
            sorted(job.number for job in finished),
        )


def seen_plainly(scheduler, requests, arrivals):
    unreported = []

    def schedule(s):
        scheduled, done, preempted = s.schedule()
        preempted = unreported + preempted
        unreported[:] = [] if scheduled else preempted
        if not scheduled:
            assert not preempted or s.limits.async_scheduling
            return None
        # What is no decode: the first computing of a prompt, or of prompt and answer after preemption.
        decode = [r for r, new, context in scheduled if r.last_prefilled]
        prefills = [(new, context) for r, new, context in scheduled if not r.last_prefilled]
        context = sum(context for r, _, context in scheduled if r.last_prefilled)
        tokens = sorted(r.number for r in done if r.emitted < r.output)
        for r in done:
            r.emitted += 1
            r.last_prefilled = True
        return prefills, len(decode), context, [r.number for r in preempted], tokens, done

    for step, finished in steps_of(scheduler, requests, arrivals, lambda s, step: s.complete(step[5]), schedule):
        prefills, decodes, context, preempted, tokens, _ = step
        yield tuple(prefills), decodes, context, tuple(preempted), tokens, sorted(r.number for r in finished)


class MarkedRequest(PlainRequest):
    """Remembers whether its prompt is computed, which tells a decode from a chunk."""

    last_prefilled = False
    emitted = 0


class MarkingScheduler(PlainScheduler):
    def preempt(self, request):
        super().preempt(request)
        request.last_prefilled = False


def compare(world):
    limits, blocks, jobs = world
    ours = Scheduler(limits, BlockPool(blocks, prefix_caching=False))
    theirs = MarkingScheduler(limits, blocks)
    our_arrivals, their_arrivals = {}, {}
    for number, (prompt, output, eos, when) in enumerate(jobs):
        our_arrivals.setdefault(when, []).append(make_job(number, prompt, output, eos))
        their_arrivals.setdefault(when, []).append(
            MarkedRequest(number, prompt, output, eos and limits.async_scheduling)
        )
    our_steps = list(seen_by_us(ours, jobs, our_arrivals))
    their_steps = list(seen_plainly(theirs, jobs, their_arrivals))
    assert our_steps == their_steps
    assert ours.pool.free == blocks == theirs.free


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_every_step_is_vllms_step(world):
    compare(world)


@settings(max_examples=150, deadline=None)
@given(worlds(threshold=True))
def test_long_prefill_token_threshold_holds_back_as_vllm_does(world):
    compare(world)
