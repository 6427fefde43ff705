"""vLLM's scheduler by version: its limits, async scheduling, CUDA graphs, and the older engine (V0)."""

from atoll.engines.engine import SchedulerLimits, StepFacts
from atoll.engines.vllm.versions import parse_version
from atoll.errors import InputError
from atoll.inventory.catalog import GpuKind
from atoll.layout.layout import EngineFlags
from atoll.model.card import ModelCard

ASYNC_SINCE = (0, 14)  # async scheduling by default
CHUNKS_ALWAYS_SINCE = (0, 11)  # the first version without the V0 engine, which alone could leave chunking off
# Until then models with states have no prefix cache unless they are told to (vllm#23716, #50991). 0.19 with Qwen3.5-27B
# printed 33.04 sequences of 32,768 tokens for 1,487 blocks (vllm#40691): 42 of tokens and 3 of states each.
STATES_CACHED_SINCE = (0, 29)
LEANER_SINCE = (0, 10)  # cheaper input tensors for each sequence
V0_WATERMARK = 0.01  # vllm/core/block_manager.py: joining requests leave this share of the blocks free


def is_v0(flags: EngineFlags, version: str) -> bool:
    """Whether the older engine runs: without chunked prefill, as long as there was one."""
    return not flags.enable_chunked_prefill and parse_version(version) < CHUNKS_ALWAYS_SINCE


def is_async(flags: EngineFlags, version: str) -> bool:
    """Whether the next step is scheduled while one runs."""
    return parse_version(version) >= ASYNC_SINCE and not is_v0(flags, version)


def caches_prefixes(flags: EngineFlags, version: str, card: ModelCard) -> bool:
    """Whether prompts are looked up in a prefix cache, as the engine is started."""
    told = "--enable-prefix-caching" in flags.extra
    by_default = not card.attention.linear_layers or parse_version(version) >= STATES_CACHED_SINCE
    return told or (flags.enable_prefix_caching and by_default)


def scheduler_limits(flags: EngineFlags, version: str) -> SchedulerLimits:
    """The scheduler's settings under these flags; raises InputError when their batch sizes are not filled in."""
    if flags.max_num_batched_tokens is None or flags.max_num_seqs is None:
        raise InputError("max_num_batched_tokens and max_num_seqs are not filled in.")
    old = is_v0(flags, version)
    return SchedulerLimits(
        max_num_seqs=flags.max_num_seqs,
        max_num_batched_tokens=flags.max_num_batched_tokens,
        chunked_prefill=not old,
        max_num_queued_reqs=flags.max_num_queued_reqs,
        async_scheduling=is_async(flags, version),
        prefill_first=old,
        watermark=V0_WATERMARK if old else 0.0,
    )


def step_facts(flags: EngineFlags, version: str, kind: GpuKind) -> StepFacts:
    """How this version runs its steps under these flags on that card."""
    return StepFacts(
        graph_sizes=graph_sizes(flags, kind),
        async_scheduling=is_async(flags, version),
        early_inputs=parse_version(version) < LEANER_SINCE,
    )


def graph_sizes(flags: EngineFlags, kind: GpuKind) -> tuple[int, ...]:
    """Batch sizes that vLLM captures as CUDA graphs: 1, 2, 4, 8 ... 248, then by 16, to min(2 max_num_seqs, 512).

    `vllm/config/vllm.py` in 0.32.0; the cap is 1024 on Blackwell. A step of 9 sequences runs as one of 16.
    """
    if flags.enforce_eager:
        return ()
    cap = 1024 if kind.architecture == "blackwell" else 512
    if flags.max_num_seqs is not None:
        cap = min(2 * flags.max_num_seqs, cap)
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, 1025, 16)]
    return tuple(size for size in sizes if size <= cap) or (1,)
