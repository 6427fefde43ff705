"""What vLLM does when an option is left out, by version and card; planner and simulator reckon with the same."""

from atoll.engines.vllm.scheduler import is_v0
from atoll.engines.vllm.versions import parse_version
from atoll.inventory.catalog import GpuKind
from atoll.layout.layout import EngineFlags
from atoll.model.card import ModelCard
from atoll.units import GIB

LARGEST_TIER_SINCE = (0, 28)  # cards of 160 GiB and more have batch sizes of their own
FULLER_SINCE = (0, 20)  # a larger share of the memory is taken
A100_SPARED_SINCE = (0, 9)  # large batches slowed the A100: vllm#17885


def fill_flags(
    flags: EngineFlags, version: str, kind: GpuKind | None, *, max_model_len: int | None = None
) -> EngineFlags:
    """The flags with batch sizes and share of the memory filled in as `vllm serve` of this version would.

    Args:
        flags: what was asked for; a value that is given stays.
        version: vLLM's, such as `0.32.0`.
        kind: the card; None counts as a small one.
        max_model_len: the model's context, used where flags.max_model_len is None and prompts are not chunked.

    Source: `_set_default_args_v1` (0.8 to 0.10) and `_set_default_args` (since 0.11) in vllm/engine/arg_utils.py.
    Worked: an H100 NVL (93.1 GiB) under 0.32 gets 8192 tokens and 1024 sequences, an A100-80GB 2048 and 256.
    """
    # V0, the older engine, had the same batch sizes on every card.
    tokens, sequences = (2048, 256) if is_v0(flags, version) else batch_defaults(version, kind)
    context = flags.max_model_len or max_model_len
    if not flags.enable_chunked_prefill and context is not None:
        tokens = max(tokens, context)
    tokens = flags.max_num_batched_tokens or tokens
    return flags.replace(
        max_num_batched_tokens=tokens,
        max_num_seqs=flags.max_num_seqs or min(sequences, tokens),
        gpu_memory_utilization=flags.gpu_memory_utilization or memory_utilization(version),
    )


def batch_defaults(version: str, kind: GpuKind | None) -> tuple[int, int]:
    """`max_num_batched_tokens` and `max_num_seqs` of `vllm serve` with neither option given."""
    release = parse_version(version)
    if kind is None:
        return 2048, 256
    if kind.memory_bytes >= 160 * GIB and release >= LARGEST_TIER_SINCE:
        return 16384, 1024
    spared = "a100" in kind.name.lower() and release >= A100_SPARED_SINCE
    return (8192, 1024) if kind.memory_bytes >= 70 * GIB and not spared else (2048, 256)


def memory_utilization(version: str) -> float:
    """`--gpu-memory-utilization` where it is not given: 0.92 since 0.20, 0.9 before (config/cache.py of those)."""
    return 0.92 if parse_version(version) >= FULLER_SINCE else 0.9


def cache_dtype(flags: EngineFlags, card: ModelCard) -> str:
    """What keys and values are held in: for `auto` the checkpoint's wish counts, and without one they stay as computed.

    Source: resolve_kv_cache_dtype_string in vllm/utils/torch_utils.py.
    """
    return (card.quantisation.kv_dtype or "auto") if flags.kv_cache_dtype == "auto" else flags.kv_cache_dtype
