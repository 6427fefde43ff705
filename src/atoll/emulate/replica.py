"""One replica of a layout -> the engine that stands in for it: limits, KV blocks and step times as planned for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.cost.links import version_tuple
from atoll.cost.memory import fit_memory
from atoll.cost.profile import MachineProfile
from atoll.cost.step import StepFlags, StepModel, StepTimer
from atoll.emulate.ask import Served
from atoll.errors import InputError, StartFailed
from atoll.inventory.catalog import GpuKind, find_gpu
from atoll.model.card import ModelCard
from atoll.plan.defaults import effective_flags
from atoll.plan.layout import EngineFlags, Layout, Replica
from atoll.simulate.blocks import BlockPool
from atoll.simulate.job import BLOCK_TOKENS
from atoll.simulate.scheduler import Scheduler, SchedulerLimits

ASYNC_SCHEDULING_SINCE = (0, 14)  # the version that made it the default, see cost/step.py
CHUNKS_ALWAYS_SINCE = (0, 11)  # the first version without the V0 engine, which alone could leave chunking off


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """All that the engine is built from."""

    served: Served
    limits: SchedulerLimits
    kv_blocks: int
    prefix_caching: bool
    timer: StepTimer
    fingerprint: str
    words: str  # one line for the log

    def scheduler(self) -> Scheduler:
        return Scheduler(self.limits, BlockPool(self.kv_blocks, prefix_caching=self.prefix_caching))


def blueprint_of(layout: Layout, number: int, card: ModelCard, *, profile: MachineProfile | None = None) -> Blueprint:
    """What stands in for replica `number` of the layout.

    Raises:
        InputError: there is no such replica, or its GPUs are not of one known kind.
        StartFailed: the model does not fit, as the engine itself would find out at start.
    """
    if not 0 <= number < len(layout.replicas):
        raise InputError(f"{layout.name} has replicas 0-{len(layout.replicas) - 1}; there is no replica {number}.")
    replica = layout.replicas[number]
    kind = _kind_of(layout, replica)
    asked_context = layout.flags.max_model_len or card.max_context
    flags = effective_flags(layout.flags, layout.engine_version, kind, max_model_len=asked_context)
    kv_blocks = _kv_blocks(flags, card, kind, replica, version=layout.engine_version, context=asked_context)
    return Blueprint(
        served=Served(model=_served_name(layout.model, flags.extra), max_model_len=asked_context),
        limits=_limits(flags, layout.engine_version),
        kv_blocks=kv_blocks,
        prefix_caching=flags.enable_prefix_caching,
        timer=_timer(flags, card, kind, layout, replica, profile=profile),
        fingerprint=f"emulated-{layout.engine_version}-tp{replica.tensor_parallel}",
        words=(
            f"replica {number} of {layout.name}: {card.name} on {len(replica.gpus)} x {kind.name},"
            f" TP {replica.tensor_parallel}, {flags.max_num_seqs} sequences, {flags.max_num_batched_tokens} tokens a"
            f" step, KV cache {kv_blocks * BLOCK_TOKENS:,} tokens"
        ),
    )


def _kind_of(layout: Layout, replica: Replica) -> GpuKind:
    names = {layout.box.gpu(index).name for index in replica.gpus}
    if len(names) > 1:
        raise InputError(f"{layout.name}: a replica stands on cards of several kinds; only one kind is emulated.")
    name = names.pop()
    if name is None:
        raise InputError(f"{layout.name}: box.gpus does not name its cards; name them with --gpu when planning.")
    return find_gpu(name)


def _kv_blocks(
    flags: EngineFlags, card: ModelCard, kind: GpuKind, replica: Replica, *, version: str, context: int
) -> int:
    """KV blocks of the replica; like vLLM, an engine that cannot hold one longest request does not start."""
    assert flags.max_num_batched_tokens is not None
    assert flags.max_num_seqs is not None
    fit = fit_memory(
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
    if not fit.fits:
        raise StartFailed(fit.reason or f"{card.name} does not fit on {len(replica.gpus)} x {kind.name}.")
    if fit.kv_tokens < context:
        raise StartFailed(
            f"{card.name} on {len(replica.gpus)} x {kind.name}: the KV cache holds {fit.kv_tokens:,} tokens, and one"
            f" request may have {context:,}; set max_model_len to {fit.kv_tokens} or less."
        )
    return fit.kv_blocks


def _limits(flags: EngineFlags, version: str) -> SchedulerLimits:
    assert flags.max_num_batched_tokens is not None
    assert flags.max_num_seqs is not None
    release = version_tuple(version)
    chunked = flags.enable_chunked_prefill or release >= CHUNKS_ALWAYS_SINCE
    return SchedulerLimits(
        max_num_seqs=flags.max_num_seqs,
        max_num_batched_tokens=flags.max_num_batched_tokens,
        chunked_prefill=chunked,
        max_num_queued_reqs=flags.max_num_queued_reqs,
        async_scheduling=release >= ASYNC_SCHEDULING_SINCE,
        prefill_first=not chunked,
    )


def _timer(
    flags: EngineFlags,
    card: ModelCard,
    kind: GpuKind,
    layout: Layout,
    replica: Replica,
    *,
    profile: MachineProfile | None,
) -> StepTimer:
    return StepModel(
        card,
        kind,
        tensor_parallel=replica.tensor_parallel,
        pipeline_parallel=replica.pipeline_parallel,
        box=layout.box,
        gpus=replica.gpus,
        flags=StepFlags(
            quantization=flags.quantization,
            kv_cache_dtype=flags.kv_cache_dtype,
            max_num_seqs=flags.max_num_seqs,
            enforce_eager=flags.enforce_eager,
            engine_version=layout.engine_version,
        ),
        profile=profile,
    )


def _served_name(model: str, extra: Sequence[str]) -> str:
    """`--served-model-name` among the further arguments, else the model's own name."""
    for place, word in enumerate(extra):
        if word.startswith("--served-model-name="):
            return word.partition("=")[2]
        if word == "--served-model-name" and place + 1 < len(extra):
            return extra[place + 1]
    return model
