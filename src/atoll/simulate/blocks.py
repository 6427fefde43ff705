"""The KV cache of one replica: blocks in use, free blocks, and free blocks that still hold a prefix worth reusing.

Only counts are kept, so a request without a shared prefix costs the same whether it holds ten blocks or a thousand.
Blocks that others may reuse belong to a Stream: a row of tokens that several requests begin with. Every request uses a
stream from its first block on, so what is present of a stream is always one piece, and since blocks are freed last
block first and reused oldest first, as in vLLM (v1/core/kv_cache_manager.py, `free`; block_pool.py, `get_new_blocks`),
it shrinks from its end.
"""

from collections.abc import Hashable

from atoll.engines.engine import BLOCK_TOKENS
from atoll.simulate.job import Job


class _Stream:
    """Blocks `start` to `present` are in the cache; those below `pinned` are in use."""

    __slots__ = ("name", "pinned", "pins", "present", "runs", "start")

    def __init__(self, name: Hashable, start: int) -> None:
        self.name = name
        self.start = start
        self.present = start
        self.pinned = start
        self.pins: dict[int, int] = {}  # how far jobs use it -> how many jobs
        self.runs: list[_Run] = []  # its free blocks in the queue, oldest (and highest) first


class _Run:
    """Free blocks that stand together in the queue of reuse; `stream` is None when nobody will ask for them."""

    __slots__ = ("high", "low", "stream")

    def __init__(self, stream: _Stream | None, low: int, high: int) -> None:
        self.stream = stream
        self.low = low
        self.high = high


class BlockPool:
    """KV blocks of 16 tokens; `free` counts those not in use, cached ones included."""

    def __init__(self, blocks: int, *, prefix_caching: bool = True) -> None:
        self.blocks = blocks
        self.free = blocks
        self.prefix_caching = prefix_caching
        self._streams: dict[Hashable, _Stream] = {}
        # Oldest first. Empty while no free block is cached: then all free blocks are alike.
        self._queue: dict[_Run, None] = {}
        self._cached_runs = 0

    @property
    def usage(self) -> float:
        """Share of the blocks in use, as in vLLM's `kv_cache_usage_perc`."""
        return 1 - self.free / self.blocks if self.blocks else 1.0

    def hits(self, job: Job) -> int:
        """Blocks of the job's head that are in the cache; the last token is always computed, so at most tokens - 1."""
        if not job.chain or not self.prefix_caching:
            return 0
        most, found = (job.tokens - 1) // BLOCK_TOKENS, 0
        for name, stop in job.chain:
            stream = self._streams.get(name)
            if stream is None:
                break
            found = min(stream.present, most)
            if stop is None or stream.present < stop:
                break
            found = min(found, stop)
        return found

    def fits(self, job: Job, blocks: int, *, hits: int) -> bool:
        """Whether the job can come to hold so many blocks, of which `hits` are already in the cache."""
        return blocks - hits <= self.free - self._idle(job, hits) if hits else blocks <= self.free

    def allocate(self, job: Job, blocks: int, *, hits: int = 0) -> None:
        """Let a job that holds none hold so many, the first `hits` of them from the cache."""
        if hits:
            self._use(job, hits)
        job.blocks = blocks
        self.take(blocks - hits)

    def grow(self, job: Job, blocks: int) -> None:
        """Let the job hold so many blocks in all."""
        self.take(blocks - job.blocks)
        job.blocks = blocks

    def take(self, count: int) -> None:
        """Put so many free blocks to use, the longest free first; what they held is forgotten."""
        self.free -= count
        if self._cached_runs:
            self._reuse(count)

    def publish(self, job: Job, full_blocks: int) -> None:
        """The job's first blocks are computed: others may use them, as far as they are not in the cache already."""
        if not self.prefix_caching:
            return
        for start, stream, stop in self._segments(job):
            if stop is not None and job.shared >= stop:
                continue
            end = full_blocks if stop is None else min(full_blocks, stop)
            if job.shared < start or job.shared != stream.present or end <= stream.present:
                return
            self._repin(stream, job.shared if job.shared > start else None, end)
            stream.present = job.shared = end
            if end != stop:
                return

    def release(self, job: Job, *, keep: bool = False) -> None:
        """Take all blocks from the job; with `keep` its own computed blocks stay findable until they are reused."""
        if not job.chain and not keep and not self._cached_runs:  # nothing that anyone could ask for again
            self.free += job.blocks
            job.blocks = 0
            return
        if keep and not job.is_open_ended:
            job.chain = (*job.chain, (job, None))  # a stream of its own, named by itself
        if job.is_open_ended:
            self.publish(job, job.computed // BLOCK_TOKENS)
        self._put_back(None, 0, job.blocks - job.shared)
        if job.chain:
            self._unuse(job)
            if not keep:
                self._forget(job)
        job.blocks = job.shared = 0

    def _segments(self, job: Job) -> "list[tuple[int, _Stream, int | None]]":
        """(first block, stream, stop) of each part of the job's chain."""
        start, parts = 0, []
        for name, stop in job.chain:
            stream = self._streams.get(name)
            if stream is None:
                stream = self._streams[name] = _Stream(name, start)
            parts.append((start, stream, stop))
            start = stop if stop is not None else start
        return parts

    def _idle(self, job: Job, hits: int) -> int:
        """How many of the job's cached blocks are free now, and so would be missing from the free ones."""
        idle = 0
        for start, stream, stop in self._segments(job):
            end = hits if stop is None else min(hits, stop)
            idle += max(0, end - max(stream.pinned, start))
        return idle

    def _use(self, job: Job, hits: int) -> None:
        job.shared = hits
        for start, stream, stop in self._segments(job):
            end = hits if stop is None else min(hits, stop)
            if end > start:
                self._repin(stream, None, end)

    def _unuse(self, job: Job) -> None:
        """Last part first, so that the head stays longest."""
        if not job.shared:
            return
        for start, stream, stop in reversed(self._segments(job)):
            end = job.shared if stop is None else min(job.shared, stop)
            if end > start:
                self._unpin(stream, end)

    def _repin(self, stream: _Stream, before: int | None, end: int) -> None:
        """A job that used the stream up to block `before` (None: not at all) now uses it up to `end`."""
        if before is not None:
            self._drop_pin(stream, before)
        stream.pins[end] = stream.pins.get(end, 0) + 1
        if end > stream.pinned:
            if stream.runs:
                self._wake(stream, end)
            stream.pinned = end

    def _unpin(self, stream: _Stream, end: int) -> None:
        self._drop_pin(stream, end)
        still = max(stream.pins, default=stream.start)
        if still < stream.pinned:
            low, high, stream.pinned = still, stream.pinned, still
            self._put_back(stream, low, high)

    @staticmethod
    def _drop_pin(stream: _Stream, end: int) -> None:
        stream.pins[end] -= 1
        if not stream.pins[end]:
            del stream.pins[end]

    def _wake(self, stream: _Stream, end: int) -> None:
        """Free cached blocks of the stream below `end` come into use; the newest run holds the lowest blocks."""
        while stream.runs and stream.runs[-1].low < end:
            run = stream.runs[-1]
            taken = min(end, run.high) - run.low
            self.free -= taken
            run.low += taken
            if run.low == run.high:
                self._drop_run(run)

    def _put_back(self, stream: _Stream | None, low: int, high: int) -> None:
        """Free blocks go to the end of the queue."""
        if stream is not None:
            if not self._cached_runs and self.free:
                self._queue[_Run(None, 0, self.free)] = None
            run = _Run(stream, low, high)
            self._queue[run] = None
            stream.runs.append(run)
            self._cached_runs += 1
        elif self._cached_runs and high > low:
            self._queue[_Run(None, low, high)] = None
        self.free += high - low

    def _reuse(self, count: int) -> None:
        """Forget the content of the `count` longest free blocks; of a run the last block goes first."""
        while count:
            run = next(iter(self._queue))
            taken = min(count, run.high - run.low)
            run.high -= taken
            count -= taken
            if run.stream is not None:
                run.stream.present = run.high
            if run.low == run.high:
                self._drop_run(run)
            if not self._cached_runs:
                return

    def _drop_run(self, run: _Run) -> None:
        del self._queue[run]
        stream = run.stream
        if stream is None:
            return
        stream.runs.remove(run)
        self._uncache_one()
        if not stream.runs and not stream.pins and stream.present == stream.start:
            self._streams.pop(stream.name, None)

    def _uncache_one(self) -> None:
        self._cached_runs -= 1
        if not self._cached_runs:
            self._queue.clear()

    def _forget(self, name: Hashable) -> None:
        """Nobody will ask for this stream again: its free blocks are like any other."""
        stream = self._streams.pop(name, None)
        if stream is not None:
            for run in stream.runs:
                run.stream = None
                self._uncache_one()
            stream.runs = []
