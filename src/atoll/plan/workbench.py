"""The engines that a search looks at: memory and step times of a replica under given flags, each made once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor

from atoll.cost.links import describe_group
from atoll.cost.memory import MemoryFit, fit_memory
from atoll.cost.profile import MachineProfile
from atoll.cost.step import StepModel
from atoll.engines import find_engine
from atoll.engines.engine import Engine
from atoll.engines.spec import DEFAULT_ENGINE, EngineSpec, only_kind
from atoll.inventory.box import Box
from atoll.inventory.catalog import GpuKind
from atoll.layout.layout import ENGINE_VERSION, EngineFlags, Replica
from atoll.model.card import ModelCard
from atoll.plan.score import Station


@dataclass(kw_only=True)
class Workbench:
    """Makes specs, timers and memory fits, and remembers them: equal replicas share one."""

    box: Box
    card: ModelCard
    kinds: Mapping[int, GpuKind]  # by GPU index
    engine: str = DEFAULT_ENGINE
    engine_version: str = ENGINE_VERSION
    profile: MachineProfile | None = None
    _specs: dict[object, EngineSpec] = field(default_factory=dict)
    _timers: dict[object, StepModel] = field(default_factory=dict)
    _fits: dict[object, MemoryFit] = field(default_factory=dict)

    @property
    def rules(self) -> Engine:
        """What the engine says of splits, cards and flags."""
        return find_engine(self.engine)

    def kind(self, replica: Replica) -> GpuKind:
        """The kind of the replica's cards; raises InputError for several."""
        return only_kind(self.kinds[gpu] for gpu in replica.gpus)

    def spec(self, replica: Replica, flags: EngineFlags) -> EngineSpec:
        """The replica with every setting resolved."""
        key = (replica.gpus, replica.tensor_parallel, flags)
        if key not in self._specs:
            self._specs[key] = EngineSpec.on(
                self.card,
                self.kind(replica),
                tensor_parallel=replica.tensor_parallel,
                pipeline_parallel=replica.pipeline_parallel,
                box=self.box,
                gpus=replica.gpus,
                flags=flags,
                engine=self.engine,
                engine_version=self.engine_version,
            )
        return self._specs[key]

    def fit(self, replica: Replica, flags: EngineFlags) -> MemoryFit:
        """Replicas on cards of one kind have room for the same, whatever joins them."""
        key = (self.kind(replica).name, replica.tensor_parallel, replica.pipeline_parallel, flags)
        if key not in self._fits:
            self._fits[key] = fit_memory(self.spec(replica, flags))
        return self._fits[key]

    def timer(self, replica: Replica, flags: EngineFlags) -> StepModel:
        """Seconds of this replica's steps. Replicas on alike links are timed alike."""
        spec = self.spec(replica, flags)
        settings = (spec.steps, spec.quantization, spec.kv_cache_dtype)
        key = (spec.kind.name, self._links(replica, spec.kind), replica.pipeline_parallel, settings)
        if key not in self._timers:
            self._timers[key] = StepModel(spec, profile=self.profile)
        return self._timers[key]

    def station(self, replica: Replica, flags: EngineFlags) -> Station:
        spec = self.spec(replica, flags)
        return Station(
            timer=self.timer(replica, flags),
            kv_tokens=self.fit(replica, flags).kv_tokens,
            max_num_seqs=spec.max_num_seqs,
            max_num_batched_tokens=spec.max_num_batched_tokens,
        )

    def _links(self, replica: Replica, kind: GpuKind) -> object:
        if replica.pipeline_parallel > 1 or (self.profile is not None and self.profile.reduces):
            return replica.gpus  # what lies between stages, or a curve measured for this very group
        return describe_group(self.box, replica.gpus, kind)


def common_flags(
    workbench: Workbench, replicas: Sequence[Replica], flags: EngineFlags, *, longest: int = 1
) -> EngineFlags:
    """The flags with the context limited to what the tightest replica's KV cache surely holds, where that is less.

    vLLM does not start when one request of max_model_len tokens would not fit, so that the memory's margin is left
    over as far as the longest request allows it. Whole thousands (of 1024) are taken. A limit that is given and that
    fits stays.

    Args:
        workbench: the engines.
        replicas: those of a layout.
        flags: theirs.
        longest: tokens of the longest request that is sent.
    """
    flags = _with_room_to_start(workbench, replicas, flags)
    asked = flags.max_model_len or workbench.card.max_context
    fits = [workbench.fit(replica, flags) for replica in replicas]
    least, sure = min(fit.longest for fit in fits), min(fit.sure_longest for fit in fits)
    if sure >= asked or (flags.max_model_len is not None and least >= asked):
        return flags
    limit = min(least, max(sure, longest), asked)
    rounded = limit // 1024 * 1024 if limit >= 2048 else max(1, limit)
    return flags.replace(max_model_len=max(rounded, min(limit, longest)))


def _with_room_to_start(workbench: Workbench, replicas: Sequence[Replica], flags: EngineFlags) -> EngineFlags:
    """The share of the cards lowered, in hundredths, to what CUDA graphs and warm-up outside of it leave over."""
    shares = [flags.gpu_memory_utilization or 1.0]
    for replica in replicas:
        fit = workbench.fit(replica, flags)
        if fit.budget_bytes + fit.outside_bytes > fit.card_bytes:
            shares.append(floor(100 * (1 - fit.outside_bytes / fit.card_bytes)) / 100)
    least = min(shares)
    return flags if least == shares[0] or least <= 0 else flags.replace(gpu_memory_utilization=least)
