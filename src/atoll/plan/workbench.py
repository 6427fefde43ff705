"""The engines that a search looks at: memory and step times of a replica under given flags, each made once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.cost.links import describe_group
from atoll.cost.memory import MemoryFit, fit_memory
from atoll.cost.profile import MachineProfile
from atoll.cost.step import StepFlags, StepModel
from atoll.engines.vllm.defaults import cache_dtype, effective_flags
from atoll.engines.vllm.versions import DEFAULT_VERSION
from atoll.inventory.box import Box
from atoll.inventory.catalog import GpuKind
from atoll.layout.layout import EngineFlags, Replica
from atoll.model.card import ModelCard
from atoll.plan.score import Station


@dataclass(kw_only=True)
class Workbench:
    """Makes timers and memory fits, and remembers them: equal replicas share one."""

    box: Box
    card: ModelCard
    kinds: Mapping[int, GpuKind]  # by GPU index
    engine_version: str = DEFAULT_VERSION
    profile: MachineProfile | None = None
    _timers: dict[object, StepModel] = field(default_factory=dict)
    _fits: dict[object, MemoryFit] = field(default_factory=dict)

    def kind(self, replica: Replica) -> GpuKind:
        """The kind with the least memory among the replica's cards: the one that all must live with."""
        return min((self.kinds[gpu] for gpu in replica.gpus), key=lambda kind: (kind.memory_bytes, kind.bf16_flops))

    def flags(self, replica: Replica, flags: EngineFlags) -> EngineFlags:
        """With what the engine takes for options left out."""
        return effective_flags(
            flags, self.engine_version, self.kind(replica), max_model_len=flags.max_model_len or self.card.max_context
        )

    def fit(self, replica: Replica, flags: EngineFlags) -> MemoryFit:
        kind, full = self.kind(replica), self.flags(replica, flags)
        key = (kind.name, replica.tensor_parallel, replica.pipeline_parallel, full)
        if key not in self._fits:
            self._fits[key] = fit_memory(
                self.card,
                kind,
                tensor_parallel=replica.tensor_parallel,
                pipeline_parallel=replica.pipeline_parallel,
                max_num_batched_tokens=full.max_num_batched_tokens or 8192,
                max_num_seqs=full.max_num_seqs or 256,
                gpu_memory_utilization=full.gpu_memory_utilization,
                kv_dtype=full.kv_cache_dtype,
                quantization=full.quantization,
                enforce_eager=full.enforce_eager,
                engine_version=self.engine_version,
            )
        return self._fits[key]

    def timer(self, replica: Replica, flags: EngineFlags) -> StepModel:
        """Seconds of this replica's steps. Replicas on alike links are timed alike."""
        kind = self.kind(replica)
        step_flags = StepFlags(
            quantization=flags.quantization,
            kv_cache_dtype=cache_dtype(flags, self.card),
            max_num_seqs=self.flags(replica, flags).max_num_seqs,
            enforce_eager=flags.enforce_eager,
            engine_version=self.engine_version,
        )
        key = (kind.name, self._links(replica, kind), replica.pipeline_parallel, step_flags)
        if key not in self._timers:
            self._timers[key] = StepModel(
                self.card,
                kind,
                tensor_parallel=replica.tensor_parallel,
                pipeline_parallel=replica.pipeline_parallel,
                box=self.box,
                gpus=replica.gpus,
                flags=step_flags,
                profile=self.profile,
            )
        return self._timers[key]

    def station(self, replica: Replica, flags: EngineFlags) -> Station:
        full = self.flags(replica, flags)
        return Station(
            timer=self.timer(replica, flags),
            kv_tokens=self.fit(replica, flags).kv_tokens,
            max_num_seqs=full.max_num_seqs or 256,
            max_num_batched_tokens=full.max_num_batched_tokens or 8192,
        )

    def _links(self, replica: Replica, kind: GpuKind) -> object:
        if replica.pipeline_parallel > 1 or (self.profile is not None and self.profile.reduces):
            return replica.gpus  # what lies between stages, or a curve measured for this very group
        return describe_group(self.box, replica.gpus, kind)


def common_flags(workbench: Workbench, replicas: Sequence[Replica], flags: EngineFlags) -> EngineFlags:
    """The flags with the context limited to what the tightest replica's KV cache holds, where that is less.

    vLLM does not start when one request of max_model_len tokens would not fit. Whole thousands (of 1024) are taken.
    """
    asked = flags.max_model_len or workbench.card.max_context
    least = min(workbench.fit(replica, flags).kv_tokens for replica in replicas)
    if least >= asked:
        return flags
    return flags.replace(max_model_len=least // 1024 * 1024 if least >= 2048 else max(1, least))
