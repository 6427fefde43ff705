"""EngineSpec: one replica with every setting resolved. Planner, simulator, emulator, calibration and doctor ask it."""

from collections.abc import Iterable
from dataclasses import dataclass

from atoll.engines.catalog import find_engine
from atoll.engines.engine import MemoryFacts, Release, SchedulerLimits, StepFacts
from atoll.errors import InputError
from atoll.inventory.box import Box
from atoll.inventory.catalog import GpuKind, find_gpu
from atoll.layout.layout import ENGINE_VERSION, EngineFlags, Layout, Replica
from atoll.model.card import ModelCard

DEFAULT_ENGINE = "vllm"  # the engine that is meant where none is named
PLAIN = EngineFlags()


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """One replica of an engine: what it is, where it stands, its settings with the engine's defaults filled in."""

    engine: str
    engine_version: str  # as it is written
    version: Release
    card: ModelCard
    kind: GpuKind  # of every GPU of the replica
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    box: Box | None = None  # the links; None: the best that this kind of card can have
    gpus: tuple[int, ...] = ()  # in that box, tensor-parallel neighbours first

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int  # asked for, else the model's own; what the KV cache holds may be less
    gpu_memory_utilization: float
    kv_cache_dtype: str  # `auto`: as computed
    quantization: str | None
    enforce_eager: bool
    prefix_caching: bool
    expert_parallel: bool

    limits: SchedulerLimits
    memory: MemoryFacts
    steps: StepFacts

    @property
    def chunked_prefill(self) -> bool:
        return self.limits.chunked_prefill

    @property
    def async_scheduling(self) -> bool:
        return self.limits.async_scheduling

    @classmethod
    def of(cls, layout: Layout, replica: Replica, card: ModelCard) -> "EngineSpec":
        """A replica of a layout.

        Raises:
            InputError: no such engine or version, cards that are not named, or cards of several kinds.
            UnknownGpu: a card that the catalogue does not have.
        """
        return cls.on(
            card,
            kind_of(layout, replica),
            tensor_parallel=replica.tensor_parallel,
            pipeline_parallel=replica.pipeline_parallel,
            box=layout.box,
            gpus=replica.gpus,
            flags=layout.flags,
            engine=layout.engine,
            engine_version=layout.engine_version,
        )

    @classmethod
    def on(
        cls,
        card: ModelCard,
        kind: GpuKind,
        *,
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
        box: Box | None = None,
        gpus: tuple[int, ...] = (),
        flags: EngineFlags = PLAIN,
        engine: str = DEFAULT_ENGINE,
        engine_version: str = ENGINE_VERSION,
        from_image: bool = True,
    ) -> "EngineSpec":
        """A replica on cards of this kind, in a layout or not, run from the engine's own image unless told otherwise.

        Worked: Qwen2.5-32B on an H100 NVL under 0.32 without flags has 1024 seats and steps of 8192 tokens, scheduled
        while the one before runs; under 0.8.5 the same batch sizes, and the GPU waits for the host.

        Raises:
            InputError: no such engine or version.
        """
        rules = find_engine(engine)
        full = rules.fill_flags(flags, engine_version, kind, max_model_len=flags.max_model_len or card.max_context)
        limits = rules.scheduler_limits(full, engine_version)
        return cls(
            engine=engine,
            engine_version=engine_version,
            version=rules.parse_version(engine_version),
            card=card,
            kind=kind,
            tensor_parallel=tensor_parallel,
            pipeline_parallel=pipeline_parallel,
            box=box,
            gpus=gpus,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
            max_model_len=flags.max_model_len or card.max_context,
            gpu_memory_utilization=full.gpu_memory_utilization or rules.memory_utilization(engine_version),
            kv_cache_dtype=rules.cache_dtype(flags, card),
            quantization=flags.quantization,
            enforce_eager=flags.enforce_eager,
            prefix_caching=rules.caches_prefixes(flags, engine_version, card),
            expert_parallel=bool(flags.enable_expert_parallel),
            limits=limits,
            memory=rules.memory_facts(
                full,
                engine_version,
                card,
                kind,
                tensor=tensor_parallel,
                pipeline=pipeline_parallel,
                from_image=from_image,
            ),
            steps=rules.step_facts(full, engine_version, kind),
        )


def kind_of(layout: Layout, replica: Replica) -> GpuKind:
    """The kind of card that all GPUs of the replica are; raises InputError for several, or for one without a name."""
    names = [layout.box.gpu(index).name for index in replica.gpus]
    known = [name for name in names if name is not None]
    if len(known) < len(names):
        raise InputError(f"{layout.name}: box.gpus does not name its cards; name them with --gpu.")
    return only_kind([find_gpu(name) for name in dict.fromkeys(known)], place=f"{layout.name}: ")


def only_kind(kinds: Iterable[GpuKind], *, place: str = "") -> GpuKind:
    """The one kind among these; raises InputError, which begins with `place`, when they are of several kinds."""
    found = {kind.name: kind for kind in kinds}
    if len(found) > 1:
        why = mixed_kinds(found)
        raise InputError(f"{place}{why[0].lower()}{why[1:]}" if place else why)
    return next(iter(found.values()))


def mixed_kinds(names: Iterable[str]) -> str:
    """Why no replica stands on cards of several kinds, one sentence."""
    return (
        f"A replica on cards of several kinds ({', '.join(names)}) goes at the pace of the slowest and cannot be"
        " reckoned with; give each kind replicas of its own."
    )
