"""The counting block pool against one that keeps every block by itself, as vLLM's does."""

from collections import OrderedDict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atoll.simulate.blocks import BlockPool
from atoll.simulate.job import Job

BLOCK = 16
TOTAL = 24


class PlainPool:
    """Blocks with hashes, reference counts and a free list in order of reuse (vllm/v1/core/block_pool.py)."""

    def __init__(self, total):
        self.free = OrderedDict((block, None) for block in range(total))
        self.hash_of = {}
        self.block_of = {}
        self.users = dict.fromkeys(range(total), 0)
        self.held = {}

    def hits(self, hashes, most):
        found = []
        for name in hashes[:most]:
            if name not in self.block_of:
                break
            found.append(self.block_of[name])
        return found

    def hold_cached(self, job, blocks):
        for block in blocks:
            self.free.pop(block, None)
            self.users[block] += 1
        self.held[job] = list(blocks)

    def take(self, job, count):
        for _ in range(count):
            block, _ = self.free.popitem(last=False)
            name = self.hash_of.pop(block, None)
            if name is not None:
                del self.block_of[name]
            self.users[block] = 1
            self.held[job].append(block)

    def publish(self, job, hashes, full):
        for block, name in zip(self.held[job][:full], hashes[:full], strict=False):
            if block not in self.hash_of and name not in self.block_of:
                self.hash_of[block] = name
                self.block_of[name] = block

    def release(self, job):
        for block in reversed(self.held.pop(job)):
            self.users[block] -= 1
            if not self.users[block]:
                self.free[block] = None


class Pools(RuleBasedStateMachine):
    """Jobs of a few sessions under a common head come, grow and go; both pools must agree on hits and free blocks."""

    @initialize(head=st.integers(0, 3))
    def start(self, head):
        self.head = head
        self.pool, self.plain = BlockPool(TOTAL), PlainPool(TOTAL)
        self.jobs = []
        self.number = 0
        self.said = {}  # session -> tokens so far; a session only grows

    def hashes(self, job, session):
        """Names of the job's blocks, as far as anybody else may ask for them."""
        head = min(self.head, job.prompt_tokens // BLOCK)
        names = [("prefix", block) for block in range(head)]
        if session is not None:
            names += [(session, block) for block in range(head, TOTAL)]
        elif job.is_open_ended:  # preempted before: it may find its own blocks
            names += [(job, block) for block in range(head, TOTAL)]
        return names

    def join(self, job, session):
        names = self.hashes(job, session)
        found = self.plain.hits(names, (job.tokens - 1) // BLOCK)
        hits = self.pool.hits(job)
        assert hits == len(found)
        blocks = -(-job.tokens // BLOCK)
        idle = sum(block in self.plain.free for block in found)
        fits = blocks - len(found) <= len(self.plain.free) - idle
        assert self.pool.fits(job, blocks, hits=hits) == fits
        if not fits:
            return
        self.pool.allocate(job, blocks, hits=hits)
        self.plain.hold_cached(job, found)
        self.plain.take(job, blocks - len(found))
        job.computed = job.tokens
        self.pool.publish(job, job.tokens // BLOCK)
        self.plain.publish(job, names, job.tokens // BLOCK)
        self.jobs.append((job, session))

    @rule(tokens=st.integers(1, 160), session=st.sampled_from([None, None, "a", "b"]))
    def arrive(self, tokens, session):
        if any(name == session is not None for _, name in self.jobs):
            return  # one request of a session at a time
        tokens += self.said.get(session, 0)
        if tokens % BLOCK == 0:
            return  # of a prompt that is cached whole the last block is computed again, and we keep no second copy
        self.number += 1
        head = min(self.head, tokens // BLOCK)
        chain = (("prefix", head),) if head else ()
        if session is not None:
            if head < self.head:
                return
            chain = (*chain, (session, None))
        self.join(Job(number=self.number, prompt_tokens=tokens, output_tokens=1, chain=chain), session)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), tokens=st.integers(1, 40))
    def grow(self, data, tokens):
        job, _ = data.draw(st.sampled_from(self.jobs))
        blocks = -(-(job.computed + tokens) // BLOCK)
        if blocks - job.blocks > self.pool.free:
            return
        self.plain.take(job, blocks - job.blocks)
        job.computed += tokens
        job.tokens = job.computed
        self.pool.grow(job, blocks)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def finish(self, data):
        job, session = data.draw(st.sampled_from(self.jobs))
        self.jobs.remove((job, session))
        if session is not None:
            self.said[session] = job.computed
            self.plain.publish(job, self.hashes(job, session), job.computed // BLOCK)
        self.pool.release(job)
        self.plain.release(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def preempt_and_resume(self, data):
        job, session = data.draw(st.sampled_from(self.jobs))
        if job.tokens % BLOCK == 0:
            return
        self.jobs.remove((job, session))
        self.pool.release(job, keep=True)
        self.plain.publish(job, self.hashes(job, session), job.computed // BLOCK)
        self.plain.release(job)
        self.join(job, session)

    @invariant()
    def free_blocks_agree(self):
        if self.pool is not None:
            assert self.pool.free == len(self.plain.free)

    def teardown(self):
        for job, _ in self.jobs:
            self.pool.release(job)
        assert self.pool.free == TOTAL

    pool = None
    jobs = ()


TestPools = Pools.TestCase
TestPools.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
