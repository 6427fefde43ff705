"""Which prompts begin alike: blocks of real tokens -> the streams that the KV pool knows.

vLLM finds a cached block by a hash over all tokens up to its end. The pool of simulate/blocks.py works on streams: rows
of blocks that several requests begin with. Here each block hash is given to the stream of the request that brought it
first; a later prompt that begins alike names that stream as far as it agrees, and a stream of its own from there on.
"""

from collections import OrderedDict
from collections.abc import Sequence

from atoll.emulate.words import block_hashes
from atoll.engines.engine import BLOCK_TOKENS
from atoll.simulate.job import Chain


class PrefixIndex:
    """Block hash -> stream, for the streams used last; `most_blocks` bounds its size."""

    def __init__(self, most_blocks: int) -> None:
        self._most = most_blocks
        self._streams: OrderedDict[int, list[int]] = OrderedDict()  # stream -> its block hashes, oldest use first
        self._owner: dict[int, int] = {}
        self._next = 0

    def chain(self, tokens: Sequence[object]) -> Chain:
        """The streams in which this prompt's blocks may be found; the last one is new, for what follows."""
        hashes = block_hashes(tokens, BLOCK_TOKENS)
        parts: list[tuple[int, int | None]] = []
        known = 0
        for block, number in enumerate(hashes):
            owner = self._owner.get(number)
            if owner is None:
                break
            known = block + 1
            if parts and parts[-1][0] == owner:
                parts[-1] = (owner, known)
            else:
                parts.append((owner, known))
        for stream, _ in parts:
            self._streams.move_to_end(stream)
        parts.append((self._add(hashes[known:]), None))
        return tuple(parts)

    def extend(self, chain: Chain, tokens: Sequence[object]) -> None:
        """The answer is known: a later prompt may begin with prompt and answer together."""
        stream, _ = chain[-1]
        if stream not in self._streams:
            return
        for number in block_hashes(tokens, BLOCK_TOKENS):
            if number not in self._owner:
                self._own(int(str(stream)), number)
        self._forget_oldest()

    def _add(self, hashes: list[int]) -> int:
        stream, self._next = self._next, self._next + 1
        self._streams[stream] = []
        for number in hashes:
            self._own(stream, number)
        self._forget_oldest()
        return stream

    def _own(self, stream: int, number: int) -> None:
        self._owner[number] = stream
        self._streams[stream].append(number)

    def _forget_oldest(self) -> None:
        while len(self._owner) > self._most and len(self._streams) > 1:
            _, hashes = self._streams.popitem(last=False)
            for number in hashes:
                del self._owner[number]
