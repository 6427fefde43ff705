"""Engines on their GPUs, every setting resolved, and the memory arithmetic that several checks share."""

from collections.abc import Iterator
from dataclasses import dataclass

from atoll.cost.memory import MemoryFit, fit_memory
from atoll.doctor.checks.places import Place
from atoll.doctor.compose import Service
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.tree import Node, Source, read_yaml
from atoll.doctor.vllm import VllmCommand
from atoll.engines import find_engine
from atoll.engines.spec import DEFAULT_ENGINE, EngineSpec
from atoll.inventory.box import Box
from atoll.inventory.catalog import GpuKind, find_gpu
from atoll.layout.layout import EngineFlags, Layout
from atoll.model.card import ModelCard

UNKNOWN = find_gpu("H100-SXM-80GB")  # a card that is not known counts as one of this class: nothing is said too much


def usual_flags(command: VllmCommand, kind: GpuKind | None) -> EngineFlags:
    """The batch sizes that the engine takes by itself on that card; those of a large card where it is not known."""
    return find_engine(DEFAULT_ENGINE).fill_flags(EngineFlags(), command.release, kind or UNKNOWN)


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
    flags: EngineFlags
    shortens: bool  # --max-model-len auto
    engine: str
    engine_version: str
    service: Service | None = None
    ours: bool = False  # of a rendered bundle

    @property
    def size(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel

    def spec(self, tensor_parallel: int | None = None) -> EngineSpec | None:
        """The engine with every setting resolved, split so or otherwise; None when model or GPU is not known."""
        if self.card is None or self.kind is None:
            return None
        return EngineSpec.on(
            self.card,
            self.kind,
            tensor_parallel=tensor_parallel or self.tensor_parallel,
            pipeline_parallel=self.pipeline_parallel,
            flags=self.flags,
            engine=self.engine,
            engine_version=self.engine_version,
        )

    def fit(self, tensor_parallel: int | None = None) -> MemoryFit | None:
        """How the memory of one of its GPUs is shared out; None when model or GPU is not known."""
        spec = self.spec(tensor_parallel)
        return fit_memory(spec) if spec is not None else None

    @property
    def max_num_seqs(self) -> int:
        """Answers that run at once: as told, else what the engine takes on that card."""
        spec = self.spec()
        return spec.max_num_seqs if spec is not None else self.flags.max_num_seqs or 1024

    @property
    def longest(self) -> int | None:
        """Tokens of the longest request it must hold; None when not known or when vLLM shortens it by itself."""
        if self.shortens:
            return None
        return self.flags.max_model_len or (self.card.max_context if self.card is not None else None)


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
    flags = command.flags
    if tp is None or pp is None or share is None or flags is None or command.has(*untold):
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
        flags=flags,
        shortens=length is not None and length.value in {"auto", "-1"},
        engine=DEFAULT_ENGINE,
        engine_version=command.release,
        service=service,
        ours=any(source.path.rpartition("/")[0] == folder for source, _ in facts.layouts),
    )


def _option_place(command: VllmCommand, service: Service) -> Place:
    option = command.option("--tensor-parallel-size")
    return option.word if option is not None else service


def _of_layout(facts: Facts, source: Source, layout: Layout) -> Iterator[Placement]:
    root = read_yaml(source)[0]
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
            flags=layout.flags,
            shortens=False,
            engine=layout.engine,
            engine_version=layout.engine_version,
        )


def _node_at(node: Node, key: str) -> Node:
    return node.get(key) or node


def fit_of(facts: Facts, engine: ServedEngine) -> MemoryFit | None:
    """How the memory of one of an engine's GPUs is shared out; None when model, GPU or a flag is not known."""
    placed = placement_of(facts, engine)
    return placed.fit() if placed is not None else None


def on_boxes(facts: Facts) -> Iterator[tuple[Placement, Box, tuple[int, ...]]]:
    """Placements whose GPUs and box are known and agree."""
    for placed in placements(facts):
        if placed.box is not None and placed.gpus is not None and set(placed.gpus) <= set(placed.box.indices):
            yield placed, placed.box, placed.gpus
