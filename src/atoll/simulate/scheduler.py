"""What one engine computes in its next step: vLLM's scheduler, step by step.

The rules are those of vLLM 0.32.0, v1/core/sched/scheduler.py `schedule()`: there are no prefill and decode phases, but
a budget of tokens a step. First the running requests take their share in order, then waiting ones join first come
first served. Without room in the KV cache the last running request is preempted and computed anew later. The older
engine (V0, the default until vLLM 0.8) is `prefill_first`: a step holds prompts only, or decodes only, prompts first.

To stay fast with a thousand decoding requests, their common progress is counted in beats. A beat is a step in which
every decoding request gets one token; a request decoding since some beat has `anchor + beat` tokens in the cache.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from atoll.cost.step import StepBatch
from atoll.engines.engine import BLOCK_TOKENS, SchedulerLimits
from atoll.simulate.blocks import BlockPool
from atoll.simulate.job import Job

# A prompt chunk: whose, and (new tokens, tokens already in the cache).
Prefill = tuple[Job, tuple[int, int]]


@dataclass(kw_only=True, slots=True)
class Step:
    """One engine step, or several equal decode steps in a row."""

    decodes: int  # of the last one, if several
    decode_context: int
    finished: list[Job]  # whose last token this step gives
    decoding: tuple[Job, ...] = ()  # who gets a token besides those below, if anybody wants to know
    prefills: tuple[Prefill, ...] = ()  # prompt chunks
    first_tokens: tuple[Job, ...] = ()  # whose prompt is complete with this step, so that a token comes out
    preempted: tuple[Job, ...] = ()  # back to the queue, since the last step was scheduled
    held_back: tuple[Job, ...] = ()  # decoding, but without a token in this step

    @property
    def batch(self) -> StepBatch:
        """What the timer wants to know."""
        return StepBatch(
            prefills=tuple([chunk for _, chunk in self.prefills]) if self.prefills else (),
            decodes=self.decodes,
            decode_context=self.decode_context,
        )

    def tokens(self) -> Iterator[Job]:
        """Who gets a token at the end of the step."""
        yield from (job for job in self.decoding if not job.gone)
        yield from (job for job in self.first_tokens if not job.gone)


class Scheduler:
    """The queue and the batch of one replica.

    One by one: `step = schedule()`, let `seconds(step.batch)` pass, `complete(step)`, and again. With
    `async_scheduling` the next step is scheduled before the last one is complete, as vLLM does.
    In a row: `quiet_steps()` says how many decode-only steps follow with the same requests, `advance(n)` takes n.
    """

    def __init__(self, limits: SchedulerLimits, pool: BlockPool, *, lists_decoding: bool = True) -> None:
        """Without `lists_decoding` the steps do not say who decodes, which saves time."""
        self.limits = limits
        self.pool = pool
        self.waiting: deque[Job] = deque()
        self.running: dict[Job, None] = {}  # in the order in which they joined
        self.preemptions = 0
        self.prefix_queries = 0  # prompt tokens looked up in the prefix cache ...
        self.prefix_hits = 0  # ... and found there
        self._lists_decoding = lists_decoding
        # The next step is scheduled before this one's tokens are there, so it has a slot for who ends with an EOS.
        self._sees_ends_late = limits.async_scheduling
        self._prefilling: dict[Job, None] = {}
        self._decoding: dict[Job, None] = {}
        self._beat = 0
        self._anchors = 0  # sum over the decoding
        self._phases = [0] * BLOCK_TOKENS  # decoding jobs by anchor mod 16: who needs a new block when
        self._ends: dict[int, dict[Job, None]] = {}  # beat -> whose last token it gives
        self._end_beats: list[int] = []  # heap of these beats
        self._lingering = 0  # decoding requests that have all their tokens
        self._serial = 0
        self._kept_free = int(limits.watermark * pool.blocks)
        self._longest = (pool.blocks - self._kept_free) * BLOCK_TOKENS + 1  # the last token is never in the cache
        self._unreported: tuple[Job, ...] = ()  # preempted, while nothing else was left to compute

    @property
    def kv_usage(self) -> float:
        return self.pool.usage

    @property
    def decodes(self) -> int:
        """How many requests are decoding."""
        return len(self._decoding)

    @property
    def batch(self) -> StepBatch:
        """The decoding requests as the next step would compute them."""
        count = len(self._decoding)
        return StepBatch(decodes=count, decode_context=self._anchors + self._beat * count)

    def takes(self, job: Job) -> bool:
        """Whether the job can ever be served; vLLM answers 400 to one that is longer than max_model_len."""
        whole = self.limits.chunked_prefill or job.prompt_tokens <= self.limits.max_num_batched_tokens
        return whole and job.prompt_tokens + job.output_tokens <= self._longest

    def is_full(self, coming: int = 0) -> bool:
        """Whether one more request would be refused, with `coming` that were let in but are not here yet.

        Running requests count as well: check_admission in vllm/v1/engine/async_llm.py asks for all unfinished ones.
        """
        most = self.limits.max_num_queued_reqs
        return most is not None and len(self.running) + len(self.waiting) + coming >= most

    def add(self, job: Job) -> bool:
        """Put the job at the end of the queue; False when the queue is full (503)."""
        if self.is_full():
            return False
        self.waiting.append(job)
        return True

    def abort(self, job: Job) -> None:
        """Forget the job, wherever it is; a step under way gives it no more token."""
        if job.gone:
            return
        job.gone = True
        if job in self.running:
            self._leave_batch(job)
            del self.running[job]
            self.pool.release(job)
        else:
            self.waiting.remove(job)

    # Step by step

    def schedule(self) -> Step | None:
        """The next step; None when there is nothing to compute."""
        older = self.limits.prefill_first
        if older and (step := self._prefill_step()) is not None:
            return step
        short = (self._prefilling or len(self._decoding) > self.pool.free) and self._make_room()
        step, prefills = self._share_step() if self._prefilling else (self.advance(1), [])
        if self.waiting and not short and not older:
            budget = self.limits.max_num_batched_tokens - step.decodes
            prefills += self._admit(budget - sum([new for _, (new, _) in prefills]))
        if prefills:
            self._add_prefills(step, prefills)
        elif not step.decodes:
            return None
        if self._unreported:
            step.preempted, self._unreported = self._unreported, ()
        return step

    def complete(self, step: Step) -> list[Job]:
        """The step has run: those whose last token it gave leave. Gives them, in the order in which they joined."""
        finished = [job for job in step.finished if not job.gone]
        for job in finished:
            self._finish(job)
        return finished

    def _prefill_step(self) -> Step | None:
        """The older engine: as many whole prompts as fit, and no decode beside them."""
        prefills = self._admit(self.limits.max_num_batched_tokens)
        if not prefills:
            return None
        step = Step(decodes=0, decode_context=0, finished=[])
        self._add_prefills(step, prefills)
        if self._unreported:
            step.preempted, self._unreported = self._unreported, ()
        return step

    def _share_step(self) -> tuple[Step, list[Prefill]]:
        """The running take their share of the step: prompts under way beside decodes."""
        chunks, held_back = self._shares()
        step = self._advance_others(held_back) if held_back else self.advance(1)
        return step, [self._prefill(job, chunk) for job, chunk in chunks]

    def _advance_others(self, held_back: tuple[Job, ...]) -> Step:
        """Every decoding request but those held back gets one token."""
        for job in held_back:
            self._interrupt_decoding(job)
        step = self.advance(1)
        step.held_back = held_back
        for job in held_back:
            if not job.stopping:
                self._start_decoding(job)
        return step

    def _who_decodes(self) -> tuple[Job, ...]:
        if self._lingering:
            return tuple([job for job in self._decoding if not job.stopping])
        return tuple(self._decoding)

    def _add_prefills(self, step: Step, prefills: list[Prefill]) -> None:
        step.prefills = tuple(prefills)
        step.first_tokens = tuple([job for job, _ in prefills if job.computed == job.tokens])
        for job in step.first_tokens:
            self._first_token(job, step)

    # Several steps at once

    def quiet_steps(self) -> int:
        """How many decode-only steps follow in which nobody joins, is preempted or, before the last one, ends."""
        if not self._decoding or self._prefilling or self._lingering or (self.waiting and self.can_admit()):
            return 0
        while not self._ends[self._end_beats[0]]:
            del self._ends[heapq.heappop(self._end_beats)]
        steps = self._end_beats[0] - self._beat + 1
        if (steps // BLOCK_TOKENS + 1) * len(self._decoding) <= self.pool.free:
            return steps
        return min(steps, self._steps_that_fit())

    def advance(self, steps: int) -> Step:
        """Every decoding request gets so many tokens; gives the last one's step."""
        decodes = len(self._decoding)
        context = self._anchors + (self._beat + steps - 1) * decodes
        decoding = self._who_decodes() if self._lists_decoding else ()
        growth = self._phases[-self._beat % BLOCK_TOKENS] if steps == 1 else self._growth(steps)
        if growth:
            self.pool.take(growth)
        self._beat += steps
        has_ends = self._end_beats and self._end_beats[0] < self._beat
        finished = self._end_decodes() if has_ends else []
        return Step(decodes=decodes, decode_context=context, finished=finished, decoding=decoding)

    def _end_decodes(self) -> list[Job]:
        """Those whose last token the beat just scheduled gives stop, in the order in which they joined."""
        finished: list[Job] = []
        while self._end_beats and self._end_beats[0] < self._beat:
            finished += self._ends.pop(heapq.heappop(self._end_beats))
        if len(finished) > 1:
            finished.sort(key=_serial_of)
        for job in finished:
            if job.ends_by_eos and self._sees_ends_late:
                self._lingering += 1
            else:
                self._stop_decoding(job)
            job.stopping = True
        return finished

    def _growth(self, steps: int) -> int:
        """Blocks that the decoding requests take in so many beats from now on."""
        if steps == 1:
            return self._phases[-self._beat % BLOCK_TOKENS]
        rounds, rest = divmod(steps, BLOCK_TOKENS)
        last = -self._beat % BLOCK_TOKENS + BLOCK_TOKENS + 1  # beat after beat, the phases come backwards
        return rounds * len(self._decoding) + sum((2 * self._phases)[last - rest : last])

    def _steps_that_fit(self) -> int:
        """For how many beats the free blocks last."""
        rounds = max(0, self.pool.free // len(self._decoding) - 1)
        steps = rounds * BLOCK_TOKENS
        left = self.pool.free - rounds * len(self._decoding)
        while (left := left - self._phases[-(self._beat + steps) % BLOCK_TOKENS]) >= 0:
            steps += 1
        return steps

    # Joining

    def _admit(self, budget: int) -> list[Prefill]:
        """Waiting requests join, first come first served, until one does not fit."""
        joined = []
        while self.waiting and (chunk := self._chunk_of(self.waiting[0], budget)) is not None:
            joined.append(self._join(self.waiting.popleft(), chunk))
            budget -= chunk
        return joined

    def can_admit(self, coming: Job | None = None) -> bool:
        """Whether the first waiting request, or without one the `coming` one, could join a step of decodes now."""
        job = self.waiting[0] if self.waiting else coming
        if job is None:
            return False
        beside = 0 if self.limits.prefill_first else len(self._decoding)
        return self._chunk_of(job, self.limits.max_num_batched_tokens - beside) is not None

    def _chunk_of(self, job: Job, budget: int) -> int | None:
        """How many of the waiting request's tokens can be computed now; None when it has to wait."""
        limits = self.limits
        if budget <= 0 or len(self.running) >= limits.max_num_seqs:
            return None
        hits = self.pool.hits(job) if job.chain else 0
        chunk = job.tokens - hits * BLOCK_TOKENS
        if 0 < limits.long_prefill_token_threshold < chunk:
            chunk = limits.long_prefill_token_threshold
        if chunk > budget:
            if limits.chunked_prefill:
                chunk = budget
            elif not job.preemptions or self._decoding:
                return None
        reach = job.tokens if limits.reserve_full_prompt else hits * BLOCK_TOKENS + chunk
        return chunk if self.pool.fits(job, _blocks(reach) + self._kept_free, hits=hits) else None

    def _join(self, job: Job, chunk: int) -> Prefill:
        hits = self.pool.hits(job) if job.chain else 0
        cached = hits * BLOCK_TOKENS
        self.prefix_queries += job.tokens
        self.prefix_hits += cached
        if not job.preemptions:
            job.cached_tokens = cached
        job.serial = self._serial = self._serial + 1
        job.computed = cached + chunk
        self.pool.allocate(job, _blocks(job.computed), hits=hits)
        self.running[job] = None
        if job.computed < job.tokens:
            self._prefilling[job] = None
        if job.chain:
            self.pool.publish(job, job.computed // BLOCK_TOKENS)
        return job, (chunk, cached)

    # Prompts

    def _shares(self) -> tuple[list[tuple[Job, int]], tuple[Job, ...]]:
        """What the running get of the coming step: a chunk for each prompt under way; decoding ones one token each,
        but for those held back.

        Without long_prefill_token_threshold there is at most one prompt under way, and it joined last: whoever joins
        with less than a whole prompt has used up the budget. So the decoding ones come first.
        """
        limits = self.limits
        if not limits.long_prefill_token_threshold:
            job = next(iter(self._prefilling))
            chunk = min(job.tokens - job.computed, limits.max_num_batched_tokens - len(self._decoding))
            return ([(job, chunk)] if chunk > 0 else []), ()
        return self._shares_in_order(limits.max_num_batched_tokens, limits.long_prefill_token_threshold)

    def _shares_in_order(self, budget: int, most: int) -> tuple[list[tuple[Job, int]], tuple[Job, ...]]:
        """One running request after the other takes what it needs while the budget lasts."""
        chunks, held_back = [], []
        if sum(min(job.tokens - job.computed, most) for job in self._prefilling) + len(self._decoding) <= budget:
            return [(job, min(job.tokens - job.computed, most)) for job in self._prefilling], ()
        for job in self.running:
            if job in self._prefilling:
                share = min(job.tokens - job.computed, most, budget)
                chunks += [(job, share)] if share else []
            elif job in self._decoding:
                share = min(1, budget)
                held_back += [] if share else [job]
            else:
                share = 0
            budget -= share
        return chunks, tuple(held_back)

    def _prefill(self, job: Job, chunk: int) -> Prefill:
        cached = job.computed
        job.computed += chunk
        self.pool.grow(job, _blocks(job.computed))
        if job.computed == job.tokens:
            del self._prefilling[job]
        if job.chain:
            self.pool.publish(job, job.computed // BLOCK_TOKENS)
        return job, (chunk, cached)

    def _first_token(self, job: Job, step: Step) -> None:
        """The prompt is computed, and with it a token comes out: the answer's first, or the next after preemption."""
        job.tokens += 1
        if job.tokens - job.prompt_tokens < job.output_tokens:
            self._start_decoding(job)
            return
        step.finished.append(job)
        if job.ends_by_eos and self._sees_ends_late:
            self._decode_on(job)
            self._lingering += 1
        job.stopping = True

    # Decoding

    def _start_decoding(self, job: Job) -> None:
        """From the coming beat on, until it has all its tokens."""
        self._decode_on(job)
        ending = self._ends.get(job.last)
        if ending is None:
            self._ends[job.last] = {job: None}
            heapq.heappush(self._end_beats, job.last)
        else:
            ending[job] = None

    def _decode_on(self, job: Job) -> None:
        self._decoding[job] = None
        anchor = job.anchor = job.computed - self._beat
        job.last = job.prompt_tokens + job.output_tokens - 2 - anchor
        self._anchors += anchor
        self._phases[anchor % BLOCK_TOKENS] += 1

    def _interrupt_decoding(self, job: Job) -> None:
        """Before its last token, unless it lingers."""
        if not job.stopping:
            del self._ends[job.last][job]
        self._stop_decoding(job)

    def _stop_decoding(self, job: Job) -> None:
        """Bring the job's own counts up to date and take it out of the common ones."""
        del self._decoding[job]
        anchor = job.anchor
        self._anchors -= anchor
        self._phases[anchor % BLOCK_TOKENS] -= 1
        computed = job.computed = anchor + self._beat
        job.tokens = computed + 1
        job.blocks = _blocks(computed)
        if job.stopping:  # what it computed since is thrown away
            self._lingering -= 1
            job.tokens = job.prompt_tokens + job.output_tokens

    # Leaving

    def _leave_batch(self, job: Job) -> None:
        self._prefilling.pop(job, None)
        if job in self._decoding:
            self._interrupt_decoding(job)

    def _finish(self, job: Job) -> None:
        job.gone = True
        if job not in self.running:
            self.waiting.remove(job)  # preempted while its last token was on its way
            return
        if self._prefilling or self._lingering:
            self._leave_batch(job)
        del self.running[job]
        self.pool.release(job)

    def _make_room(self) -> bool:
        """Preempt the last running requests until this step's new blocks fit; False when there is no need."""
        if self._blocks_wanted() <= self.pool.free:
            return False
        while self._blocks_wanted() > self.pool.free:
            self._preempt(next(reversed(self.running)))
        return True

    def _blocks_wanted(self) -> int:
        """New blocks that the running need for the coming step."""
        if not self._prefilling:
            return self._growth(1)
        chunks, held_back = self._shares()
        wanted = self._growth(1) + sum(_blocks(job.computed + chunk) - job.blocks for job, chunk in chunks)
        return wanted - sum((job.anchor + self._beat) % BLOCK_TOKENS == 0 for job in held_back)

    def _preempt(self, job: Job) -> None:
        """Give up its blocks and put it at the head of the queue, to be computed anew."""
        self._leave_batch(job)
        del self.running[job]
        self.pool.release(job, keep=True)
        job.computed = 0
        job.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(job)
        self._unreported += (job,)


_serial_of = attrgetter("serial")


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
