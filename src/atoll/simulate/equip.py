"""A layout's replicas as virtual engines: scheduler limits, KV blocks and step times, as planned for real ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.cost.memory import MemoryFit, fit_memory
from atoll.cost.profile import MachineProfile
from atoll.cost.step import StepFlags, StepModel, StepTimer
from atoll.engines.vllm.defaults import cache_dtype, effective_flags
from atoll.engines.vllm.splits import explain_sizes, why_not_flags, why_not_split
from atoll.engines.vllm.versions import parse_version
from atoll.errors import InputError, NothingFits
from atoll.inventory.catalog import GpuKind, find_gpu
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.card import ModelCard
from atoll.simulate.scheduler import SchedulerLimits

ASYNC_SCHEDULING_SINCE = (0, 14)  # the version that made it the default, see cost/step.py
CHUNKS_ALWAYS_SINCE = (0, 11)  # the first version without the V0 engine, which alone could leave chunking off
V0_WATERMARK = 0.01  # vllm/core/block_manager.py: joining requests leave this share of the blocks free


@dataclass(frozen=True, kw_only=True, slots=True)
class Equipment:
    """What simulate_layout needs besides the layout: one timer and one number of KV blocks a replica."""

    timers: tuple[StepTimer, ...]
    kv_blocks: tuple[int, ...]
    limits: SchedulerLimits
    max_model_len: int  # the longest request that the engines take


def equip_layout(layout: Layout, card: ModelCard, *, profile: MachineProfile | None = None) -> Equipment:
    """Timers, KV blocks and scheduler limits of every replica.

    Replicas over like GPUs and like links share a timer, which remembers what it has worked out.

    Raises:
        UnknownGpu: the box names a card that the catalogue does not have.
        NothingFits: the model does not fit on a replica, or not with `max_model_len`; or it cannot be split so.
        InputError: vLLM would not start with these options.
    """
    timers: list[StepModel] = []
    blocks: list[int] = []
    context = layout.flags.max_model_len or card.max_context
    flags = layout.flags
    _check_options(layout, card)
    for number, replica in enumerate(layout.replicas):
        kind = kind_of(layout, replica)
        flags = effective_flags(layout.flags, layout.engine_version, kind, max_model_len=context)
        fit = _fit(flags, card, kind, replica, layout.engine_version)
        _check(fit, layout, number, card)
        blocks.append(fit.kv_blocks)
        timers.append(_known_or_new(timers, _timer(layout, replica, card, flags=flags, kind=kind, profile=profile)))
    return Equipment(
        timers=tuple(timers),
        kv_blocks=tuple(blocks),
        limits=scheduler_limits(flags, layout.engine_version),
        max_model_len=min(context, *(16 * count for count in blocks)),
    )


def scheduler_limits(flags: EngineFlags, version: str) -> SchedulerLimits:
    """The scheduler's settings under these flags, their batch sizes filled in (effective_flags)."""
    if flags.max_num_batched_tokens is None or flags.max_num_seqs is None:
        raise InputError("max_num_batched_tokens and max_num_seqs are not filled in.")
    release = parse_version(version)
    chunked = flags.enable_chunked_prefill or release >= CHUNKS_ALWAYS_SINCE
    return SchedulerLimits(
        max_num_seqs=flags.max_num_seqs,
        max_num_batched_tokens=flags.max_num_batched_tokens,
        chunked_prefill=chunked,
        max_num_queued_reqs=flags.max_num_queued_reqs,
        async_scheduling=chunked and release >= ASYNC_SCHEDULING_SINCE,
        prefill_first=not chunked,
        watermark=0.0 if chunked else V0_WATERMARK,
    )


def kind_of(layout: Layout, replica: Replica) -> GpuKind:
    """The kind of card that all GPUs of the replica are."""
    names = {layout.box.gpu(index).name for index in replica.gpus}
    if len(names) > 1:
        raise InputError(f"{layout.name}: a replica stands on cards of several kinds, which cannot be reckoned with.")
    name = names.pop()
    if name is None:
        raise InputError(f"{layout.name}: box.gpus does not name its cards; name them with --gpu.")
    return find_gpu(name)


def _fit(flags: EngineFlags, card: ModelCard, kind: GpuKind, replica: Replica, version: str) -> MemoryFit:
    assert flags.max_num_batched_tokens is not None
    assert flags.max_num_seqs is not None
    return fit_memory(
        card,
        kind,
        tensor_parallel=replica.tensor_parallel,
        pipeline_parallel=replica.pipeline_parallel,
        max_num_batched_tokens=flags.max_num_batched_tokens,
        max_num_seqs=flags.max_num_seqs,
        gpu_memory_utilization=flags.gpu_memory_utilization,
        kv_dtype=flags.kv_cache_dtype,
        quantization=flags.quantization,
        enforce_eager=flags.enforce_eager,
        engine_version=version,
    )


def _check_options(layout: Layout, card: ModelCard) -> None:
    """What the engine itself would refuse at start."""
    why = why_not_flags(layout.flags)
    if why is not None:
        raise InputError(f"{layout.name}: {why}.")
    for size in sorted({replica.tensor_parallel for replica in layout.replicas}):
        why = why_not_split(card, size, expert_parallel=bool(layout.flags.enable_expert_parallel))
        if why is not None:
            raise NothingFits(f"{layout.name}: {why.rstrip('.')}; {explain_sizes(card)}.")


def _check(fit: MemoryFit, layout: Layout, number: int, card: ModelCard) -> None:
    """An engine that cannot hold one longest request does not start; without max_model_len we take what it can hold."""
    if not fit.fits:
        raise NothingFits(fit.reason or f"{card.name} does not fit on replica {number} of {layout.name}.")
    asked = layout.flags.max_model_len
    if asked is not None and fit.kv_tokens < asked:
        raise NothingFits(
            f"{layout.name}: the KV cache of replica {number} holds {fit.kv_tokens:,} tokens, and one request may have"
            f" {asked:,}; set max_model_len to {fit.kv_tokens} or less."
        )


def _timer(
    layout: Layout,
    replica: Replica,
    card: ModelCard,
    *,
    flags: EngineFlags,
    kind: GpuKind,
    profile: MachineProfile | None,
) -> StepModel:
    return StepModel(
        card,
        kind,
        tensor_parallel=replica.tensor_parallel,
        pipeline_parallel=replica.pipeline_parallel,
        box=layout.box,
        gpus=replica.gpus,
        flags=StepFlags(
            quantization=flags.quantization,
            kv_cache_dtype=cache_dtype(flags, card),
            max_num_seqs=flags.max_num_seqs,
            enforce_eager=flags.enforce_eager,
            engine_version=layout.engine_version,
        ),
        profile=profile,
    )


def _known_or_new(known: Sequence[StepModel], made: StepModel) -> StepModel:
    for timer in known:
        same_split = (timer.tensor_parallel, timer.pipeline_parallel) == (made.tensor_parallel, made.pipeline_parallel)
        if same_split and timer.kind == made.kind and timer.reduce == made.reduce:
            return timer
    return made
