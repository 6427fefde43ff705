"""Every layout worth looking at, lazily, and the splits that are not, with the reason.

Looked at are, for each tensor-parallel size that the engine can do: one replica, two, ... as many as there is room
for, so that leaving GPUs idle is among the choices; uneven layouts where equal replicas would leave GPUs over or where
the box's islands differ in size; and pipeline stages only where a model fits no other way. Each shape is pinned once,
to the groups with the best links. Where a box has cards of several kinds, each kind is looked at by itself, and kinds
together where each has its cards used up.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from atoll.engines.engine import Engine
from atoll.inventory.box import Box
from atoll.inventory.catalog import GpuKind
from atoll.inventory.islands import best_groups, islands
from atoll.layout.layout import Policy, Replica
from atoll.model.card import ModelCard


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """How one replica is split: GPUs = tensor_parallel x pipeline_parallel."""

    tensor_parallel: int
    pipeline_parallel: int = 1

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def name(self) -> str:
        return f"TP{self.tensor_parallel}" + (f"PP{self.pipeline_parallel}" if self.pipeline_parallel > 1 else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A split or layout that cannot be, and why, in one sentence."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Replicas pinned to GPUs; router and flags are still open."""

    name: str
    replicas: tuple[Replica, ...]

    @property
    def gpus(self) -> int:
        return sum(len(replica.gpus) for replica in self.replicas)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the user has settled already; None leaves it open."""

    tensor_parallel: int | None = None
    replicas: int | None = None
    policy: Policy | None = None
    pipeline_parallel: int | None = None
    fp8_cache: bool = False  # an fp8 KV cache may be chosen; it rounds keys and values, so not without being asked


OPEN = Wanted()


def list_splits(
    card: ModelCard, kinds: Mapping[int, GpuKind], engine: Engine, *, wanted: Wanted = OPEN
) -> tuple[tuple[Split, ...], tuple[Rejected, ...]]:
    """The tensor-parallel sizes up to the number of GPUs that the engine can do, and those it cannot."""
    most = len(kinds)
    sizes = range(1, most + 1) if wanted.tensor_parallel is None else (wanted.tensor_parallel,)
    refusal = next((why for kind in kinds.values() if (why := engine.why_not_on(card, kind)) is not None), None)
    splits: list[Split] = []
    rejected: list[Rejected] = []
    for size in sizes:
        why = refusal or _why_not(card, size, most, engine)
        if why is None:
            splits.append(Split(tensor_parallel=size))
        else:
            rejected.append(Rejected(name=f"TP{size}", why=why))
    return tuple(splits), tuple(rejected)


def _why_not(card: ModelCard, size: int, most: int, engine: Engine) -> str | None:
    why = engine.why_not_split(card, size)
    if why is not None and engine.why_whole_experts(card, size) is None:
        return f"{why.rstrip('.')}; {engine.explain_sizes(card, range(1, max(most, 8) + 1))}."
    if size > most:
        return f"Tensor parallel {size} needs {size} GPUs; this box has {most}."
    return None


def pipeline_splits(splits: Iterable[Split], *, most: int, layers: int) -> Iterator[Split]:
    """The same tensor-parallel sizes with 2, 3, ... stages, as far as there are GPUs and layers."""
    for split in splits:
        for stages in range(2, min(most // split.tensor_parallel, layers) + 1):
            yield Split(tensor_parallel=split.tensor_parallel, pipeline_parallel=stages)


def list_candidates(box: Box, splits: Sequence[Split], *, wanted: Wanted = OPEN) -> Iterator[Candidate]:
    """Every layout of these splits worth looking at, fewest GPUs a replica first."""
    seen: set[tuple[Split, ...]] = set()
    for shape in _shapes(box, splits):
        if shape in seen or (wanted.replicas is not None and len(shape) != wanted.replicas):
            continue
        seen.add(shape)
        yield pin(box, shape)


def join_kinds(parts: Sequence[tuple[str, Box, Sequence[Split]]], *, wanted: Wanted = OPEN) -> Iterator[Candidate]:
    """Two kinds of cards together, three, ...: each with its cards used up by one split or another.

    Args:
        parts: the kind's name, its cards, the splits that fit on them.
        wanted: what is settled already.
    """
    for count in range(2, len(parts) + 1):
        for chosen in combinations(parts, count):
            for shapes in product(*(_full_shapes(box, splits) for _, box, splits in chosen)):
                if wanted.replicas is None or sum(map(len, shapes)) == wanted.replicas:
                    yield _joined(
                        [(kind, pin(box, shape)) for (kind, box, _), shape in zip(chosen, shapes, strict=True)]
                    )


def _full_shapes(box: Box, splits: Sequence[Split]) -> tuple[tuple[Split, ...], ...]:
    by_size = sorted(splits, key=lambda split: -split.gpus)
    shapes = (_fill(len(box.gpus), by_size[start:]) for start in range(len(by_size)))
    return tuple(dict.fromkeys(shape for shape in shapes if shape))


def _joined(parts: Sequence[tuple[str, Candidate]]) -> Candidate:
    replicas = tuple(replica for _, candidate in parts for replica in candidate.replicas)
    names = "_".join(kind_name(candidate.name, kind) for kind, candidate in parts)
    sizes = {(replica.tensor_parallel, replica.pipeline_parallel) for replica in replicas}
    if len(sizes) == 1:
        tensor, stages = next(iter(sizes))
        names = shape_name((Split(tensor_parallel=tensor, pipeline_parallel=stages),) * len(replicas))
    return Candidate(name=names, replicas=replicas)


def kind_name(name: str, kind: str) -> str:
    """`1xTP1.L40S-48GB`: a shape on one kind of cards of a box that has several."""
    return f"{name}.{kind}"


def pin(box: Box, shape: Sequence[Split]) -> Candidate:
    """Give each replica of the shape the best group of GPUs; stages of a pipeline are groups of their own."""
    sizes = [split.tensor_parallel for split in shape for _ in range(split.pipeline_parallel)]
    free = {size: [group for group in best_groups(box, sizes) if len(group) == size] for size in set(sizes)}
    replicas = []
    for split in shape:
        groups = [free[split.tensor_parallel].pop(0) for _ in range(split.pipeline_parallel)]
        replicas.append(
            Replica(
                gpus=tuple(gpu for group in groups for gpu in group),
                tensor_parallel=split.tensor_parallel,
                pipeline_parallel=split.pipeline_parallel,
            )
        )
    return Candidate(name=shape_name(shape), replicas=tuple(replicas))


def shape_name(shape: Sequence[Split]) -> str:
    """`2xTP2`; `1xTP2-1xTP1` for an uneven one, the larger replicas first."""
    counts: dict[str, int] = {}
    for split in sorted(shape, key=lambda split: -split.gpus):
        counts[split.name] = counts.get(split.name, 0) + 1
    return "-".join(f"{count}x{name}" for name, count in counts.items())


def _shapes(box: Box, splits: Sequence[Split]) -> Iterator[tuple[Split, ...]]:
    total = len(box.gpus)
    for split in splits:
        for count in range(1, total // split.gpus + 1):
            yield (split,) * count
    yield from _uneven_shapes(box, splits)


def _uneven_shapes(box: Box, splits: Sequence[Split]) -> Iterator[tuple[Split, ...]]:
    """Leftovers put to use: each split as often as it goes and the rest filled; and one filling of each island."""
    by_size = sorted(splits, key=lambda split: -split.gpus)
    for split in by_size:
        shape = _fill(len(box.gpus), [s for s in by_size if s.gpus <= split.gpus])
        if len(set(shape)) > 1:
            yield shape
    parts = [len(island) for island in islands(box)]
    if len(set(parts)) > 1:
        shape = tuple(sorted((s for part in parts for s in _fill(part, by_size)), key=lambda split: -split.gpus))
        if len(set(shape)) > 1:
            yield shape


def _fill(gpus: int, by_size: Sequence[Split]) -> tuple[Split, ...]:
    """As many of the largest as go into so many GPUs, then of the next."""
    shape: list[Split] = []
    for split in by_size:
        count, gpus = divmod(gpus, split.gpus)
        shape += [split] * count
    return tuple(shape)
