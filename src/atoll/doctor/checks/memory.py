"""Engines on their GPUs, and the memory arithmetic that several checks share, with vLLM's own defaults."""

from collections.abc import Iterator
from dataclasses import dataclass

from atoll.cost.memory import MemoryFit, fit_memory
from atoll.doctor.checks.places import Place
from atoll.doctor.compose import Service
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.tree import Node, Source, read_yaml
from atoll.doctor.vllm import VllmCommand, show_version
from atoll.engines.vllm.versions import DEFAULT_VERSION
from atoll.inventory.box import Box
from atoll.inventory.catalog import GpuKind
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard


def default_max_num_seqs(kind: GpuKind | None) -> int | None:
    """The engine's own default: 1024 from 70 GiB up but for the A100, else 256; None for an unknown card."""
    return None if kind is None else 1024 if _is_large(kind) else 256


def default_batched_tokens(kind: GpuKind | None) -> int:
    """The engine's own default for these cards; 8192, the H100 class's, where they are not known."""
    if kind is None:
        return 8192
    return 16384 if kind.memory_bytes >= 160 * 10**9 else 8192 if _is_large(kind) else 2048


def _is_large(kind: GpuKind) -> bool:
    return kind.memory_bytes >= 70 * 2**30 and "A100" not in kind.name  # engine/arg_utils.py of 0.32.0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One engine on its GPUs, from a compose file or from a layout. None where the files do not tell."""

    name: str
    place: Place  # where a finding about it stands
    split: Place  # where its tensor-parallel size is written
    gpus: tuple[int, ...] | None
    tensor_parallel: int
    pipeline_parallel: int
    card: ModelCard | None
    kind: GpuKind | None
    box: Box | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    max_model_len: int | None  # None: the model's own
    shortens: bool  # --max-model-len auto
    utilization: float
    kv_dtype: str = "auto"
    quantization: str | None = None
    enforce_eager: bool = False
    version: str = DEFAULT_VERSION
    service: Service | None = None
    ours: bool = False  # of a rendered bundle

    @property
    def size(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel

    def fit(self, tensor_parallel: int | None = None) -> MemoryFit | None:
        """How the memory of one of its GPUs is shared out; None when model or GPU is not known."""
        if self.card is None or self.kind is None:
            return None
        return fit_memory(
            self.card,
            self.kind,
            tensor_parallel=tensor_parallel or self.tensor_parallel,
            pipeline_parallel=self.pipeline_parallel,
            max_num_batched_tokens=self.max_num_batched_tokens or default_batched_tokens(self.kind),
            max_num_seqs=self.max_num_seqs or default_max_num_seqs(self.kind) or 256,
            gpu_memory_utilization=self.utilization,
            kv_dtype=self.kv_dtype,
            quantization=self.quantization,
            enforce_eager=self.enforce_eager,
            engine_version=self.version,
        )

    @property
    def longest(self) -> int | None:
        """Tokens of the longest request it must hold; None when not known or when vLLM shortens it by itself."""
        if self.shortens:
            return None
        return self.max_model_len or (self.card.max_context if self.card is not None else None)


def placements(facts: Facts) -> Iterator[Placement]:
    """Every engine whose split can be told: those of the compose files, then those of layouts that stand alone."""
    for engine in facts.engines:
        placed = placement_of(facts, engine)
        if placed is not None:
            yield placed
    folders = {source.path.rpartition("/")[0] for source in _rendered(facts)}
    for source, layout in facts.layouts:
        if source.path.rpartition("/")[0] not in folders:
            yield from _of_layout(facts, source, layout)


def _rendered(facts: Facts) -> Iterator[Source]:
    yield from (source for project in facts.projects for source in project.sources)
    yield from (config.source for config in facts.nginx)


def placement_of(facts: Facts, engine: ServedEngine) -> Placement | None:
    command, service = engine.command, engine.service
    tp, pp, share = command.tensor_parallel, command.pipeline_parallel, command.memory_utilization
    untold = {"--kv-cache-memory-bytes", "--cpu-offload-gb", "--num-gpu-blocks-override"}
    if tp is None or pp is None or share is None or command.has(*untold) or min(tp, pp) < 1:
        return None
    length = command.option("--max-model-len")
    folder = service.file.rpartition("/")[0]
    return Placement(
        name=engine.name,
        place=service,
        split=_option_place(command, service),
        gpus=facts.gpus_of(service),
        tensor_parallel=tp,
        pipeline_parallel=pp,
        card=engine.card,
        kind=facts.kind_of(service),
        box=facts.box_of(service),
        max_num_seqs=command.integer("--max-num-seqs"),
        max_num_batched_tokens=command.integer("--max-num-batched-tokens"),
        max_model_len=length.integer() if length is not None else None,
        shortens=length is not None and length.value in {"auto", "-1"},
        utilization=share,
        kv_dtype=command.text("--kv-cache-dtype") or "auto",
        quantization=command.text("--quantization"),
        enforce_eager=command.has("--enforce-eager"),
        version=show_version(command.table.version),
        service=service,
        ours=any(source.path.rpartition("/")[0] == folder for source, _ in facts.layouts),
    )


def _option_place(command: VllmCommand, service: Service) -> Place:
    option = command.option("--tensor-parallel-size")
    return option.word if option is not None else service


def _of_layout(facts: Facts, source: Source, layout: Layout) -> Iterator[Placement]:
    root = read_yaml(source)[0]
    flags = layout.flags
    for number, replica in enumerate(layout.replicas):
        node = root.get("replicas", number) or root
        kinds = {facts.kind_at(layout.box, gpu) for gpu in replica.gpus}
        yield Placement(
            name=f"replica {number}",
            place=node,
            split=_node_at(node, "tensor_parallel"),
            gpus=replica.gpus,
            tensor_parallel=replica.tensor_parallel,
            pipeline_parallel=replica.pipeline_parallel,
            card=facts.cards.get(layout.model),
            kind=next(iter(kinds)) if len(kinds) == 1 else None,
            box=layout.box,
            max_num_seqs=flags.max_num_seqs,
            max_num_batched_tokens=flags.max_num_batched_tokens,
            max_model_len=flags.max_model_len,
            shortens=False,
            utilization=flags.gpu_memory_utilization,
            kv_dtype=flags.kv_cache_dtype,
            quantization=flags.quantization,
            enforce_eager=flags.enforce_eager,
            version=layout.engine_version,
        )


def _node_at(node: Node, key: str) -> Node:
    return node.get(key) or node


def fit_of(facts: Facts, engine: ServedEngine) -> MemoryFit | None:
    """How the memory of one of an engine's GPUs is shared out; None when model, GPU or a flag is not known."""
    placed = placement_of(facts, engine)
    return placed.fit() if placed is not None else None
