"""The pool of KV blocks as vLLM lays it out where layers differ: pages of one size, layers in groups of one size.

Every group has a block table of its own, and all tables draw from one pool. A layer that keeps less for a token gets
longer blocks, a state as long a block as it takes to hold it. Source: `get_kv_cache_groups`,
`unify_kv_cache_spec_page_size` and `_get_kv_cache_groups_uniform_page_size` in vllm/v1/core/kv_cache_utils.py,
`_align_hybrid_block_size` in vllm/platforms/interface.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from atoll.engines.engine import BLOCK_TOKENS, PoolFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerKind:
    """Layers that keep the same; bytes of one layer on one GPU."""

    layers: int
    token_bytes: float = 0.0
    window: int | None = None  # tokens that are kept; None: all
    chunked: bool = False  # the window begins anew every `window` tokens (Llama 4) and does not slide
    state_bytes: int = 0  # of a sequence, whatever its length; such layers keep no tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class PageGroup:
    """Layers that share a block table."""

    block_tokens: int
    window: int | None = None
    chunked: bool = False
    states: int = 0  # blocks of a sequence whatever its length; 0: it keeps tokens

    def blocks(self, tokens: int, *, ahead: int) -> int:
        """Blocks of one sequence, of which `ahead` tokens may be computed before blocks behind the window are freed."""
        if self.states:
            return self.states
        if self.window is None:
            return ceil(tokens / self.block_tokens)
        if self.chunked:
            return ceil(min(self.window + ahead, tokens) / self.block_tokens)
        return ceil(min(self.window - 1 + ahead, tokens) / self.block_tokens) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class KvPool:
    """How many bytes a block takes, and how many blocks a sequence."""

    groups: tuple[PageGroup, ...]
    block_bytes: float  # of one block in all layers of a group, on one GPU
    ahead: int  # tokens of the steps that are under way at once: held beside a window

    def count(self, memory_bytes: int) -> int:
        """Blocks that so much memory of one GPU makes."""
        return int(max(0, memory_bytes) // self.block_bytes)

    def used_by(self, tokens: int) -> int:
        """Blocks that a sequence of so many tokens holds while it is answered."""
        return sum(group.blocks(tokens, ahead=1) for group in self.groups)

    def reserved_for(self, tokens: int) -> int:
        """Blocks that are reckoned for one at start, when prompts are computed in the largest steps."""
        return sum(group.blocks(tokens, ahead=self.ahead) for group in self.groups)

    def longest(self, blocks: int, *, limit: int) -> int:
        """Tokens of the longest sequence, up to `limit`, that may be asked for with so many blocks; 0 for none."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.reserved_for(middle) <= blocks else (low, middle - 1)
        return low

    def capacity(self, blocks: int, *, context: int) -> int:
        """Tokens in sequences of `context` tokens each, a part of a sequence counted as such."""
        if len(self.groups) == 1 and self.groups[0].window is None and not self.groups[0].states:
            return blocks * self.groups[0].block_tokens
        return int(blocks / self.used_by(context) * context)

    def printed(self, blocks: int, *, max_model_len: int) -> int:
        """`Maximum concurrency` x max_model_len, which is what newer versions print as the cache's size."""
        return int(blocks / self.reserved_for(max_model_len) * max_model_len)

    def printed_once(self, blocks: int) -> int:
        """The cache's size as older versions print it, which is too little where most groups keep a window.

        gemma-3-27b on an H100 under 0.19: 19.53 GiB make 15,999 blocks of ten layers; over seven groups 36,560 tokens.
        """
        return blocks // len(self.groups) * min(group.block_tokens for group in self.groups)

    @property
    def has_states(self) -> bool:
        return any(group.states for group in self.groups)


def make_pool(kinds: Sequence[LayerKind], facts: PoolFacts, *, ahead: int, share: float = 1.0) -> KvPool:
    """Layers as they share a pool.

    Args:
        kinds: all layers of the model that keep anything.
        facts: the engine's rules.
        ahead: tokens of the steps that may be under way at once.
        share: of the layers, on the fullest pipeline stage.

    Worked: Qwen3.5-27B keeps 4096 bytes a token in 16 layers and a state of 3.21 MB in 48: a block is 784 tokens long,
    16 layers of it take 51.4 MB, and 262,144 tokens take 335 + 3 blocks.
    """
    kept = [kind for kind in kinds if kind.layers]
    if not facts.groups:
        kept = [replace(kind, window=None) for kind in kept]
    merged = list(_merge(kept))
    tokens = [kind for kind in merged if not kind.state_bytes]
    states = [kind for kind in merged if kind.state_bytes]
    page = _page_bytes(tokens, states)
    size = _group_size([kind.layers for kind in merged], slack=facts.padding_slack)
    groups = [group for kind in (*tokens, *states) for group in [_group(kind, page, facts)] * ceil(kind.layers / size)]
    return KvPool(groups=tuple(groups), block_bytes=page * ceil(size * share), ahead=ahead)


def _merge(kinds: Sequence[LayerKind]) -> Iterator[LayerKind]:
    """Layers that differ in nothing but their number are of one kind."""
    seen: dict[LayerKind, int] = {}
    for kind in kinds:
        like = replace(kind, layers=0)
        seen[like] = seen.get(like, 0) + kind.layers
    for like, layers in seen.items():
        yield replace(like, layers=layers)


def _page_bytes(tokens: Sequence[LayerKind], states: Sequence[LayerKind]) -> float:
    """The largest page: a block of the widest layer, made long enough to hold the largest state."""
    block = max((BLOCK_TOKENS * kind.token_bytes for kind in tokens), default=0.0)
    state = max((kind.state_bytes for kind in states), default=0)
    if not block:
        return float(state)
    return block * max(1, ceil(state / block))


def _group_size(counts: Sequence[int], *, slack: float) -> int:
    """The smallest number of layers of a kind, and the largest where it is not much more: the rest is padding."""
    fewest, most = min(counts), max(counts)
    return most if most < fewest * slack else fewest


def _group(kind: LayerKind, page: float, facts: PoolFacts) -> PageGroup:
    if kind.state_bytes:
        return PageGroup(block_tokens=BLOCK_TOKENS, states=facts.states_a_sequence)
    block = max(BLOCK_TOKENS, int(page // kind.token_bytes))
    return PageGroup(block_tokens=block, window=kind.window, chunked=kind.chunked)
