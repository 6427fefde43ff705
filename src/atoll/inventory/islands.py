"""Groups of GPUs that talk fast: islands, the best split into groups, the slowest hop of a group.

What makes a split good, first things first:

1. NVLinks inside the groups, all groups together: bandwidth that a split does not cut.
2. The NVLinks of each group's slowest hop, summed: an all-reduce goes at the pace of the slowest pair, so four cards
   with three links each beat four of which one pair has none.
3. Even groups: replicas behind one router are equal only if their groups are.
4. Groups on one NUMA node (or, where it is not known, with one CPU affinity).
5. Shorter PCIe paths inside the groups.
6. The lowest indices.

Every measure is a sum over groups, so the best split is found exactly by going through subsets: at once for 8 GPUs,
in about a second for 16. Uneven groups of more than 8 GPUs are made one after the other and bettered by swaps.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from atoll.inventory.box import Box, Link, LinkKind
from atoll.inventory.catalog import GpuKind

Score = tuple[int, ...]
Group = tuple[int, ...]


def islands(box: Box) -> tuple[Group, ...]:
    """The connected components over NVLink, lowest index first; a card without NVLink is an island of its own."""
    left = list(box.indices)
    found: list[Group] = []
    while left:
        island = _reach(box, min(left))
        found.append(island)
        left = [gpu for gpu in left if gpu not in island]
    return tuple(found)


def slowest_hop(box: Box, gpus: Sequence[int]) -> Link:
    """The slowest path between any two of at least two GPUs: what an all-reduce over them waits for.

    PCIe paths by their distance, then NVLink with fewer links. In a partly joined mesh (DGX-1 over all 8) NCCL finds
    rings that avoid this hop; `is_fully_connected` tells such groups.

    Raises:
        ValueError: fewer than two GPUs, which have no hop.
    """
    if len(gpus) < 2:
        raise ValueError("a hop needs two GPUs")
    return max((box.link(a, b) for a, b in combinations(sorted(gpus), 2)), key=_slowness)


def is_fully_connected(box: Box, gpus: Sequence[int]) -> bool:
    """Whether NVLink joins every two of these GPUs; true for one GPU."""
    return all(box.link(a, b).kind is LinkKind.NV for a, b in combinations(gpus, 2))


def has_nvswitch(box: Box, gpus: Sequence[int], kind: GpuKind | None) -> bool:
    """Whether more than two GPUs are joined two by two by as many links as one card has in total.

    Only a switch can do that: a card wired to several others has to share its links among them.
    """
    if kind is None or kind.nvlinks == 0 or len(gpus) <= 2:
        return False
    return all(box.link(a, b).nvlinks >= kind.nvlinks for a, b in combinations(gpus, 2))


def crosses_numa(box: Box, gpus: Sequence[int]) -> bool:
    """Whether the GPUs are known to hang on more than one NUMA node."""
    places = {_place(box, gpu) for gpu in gpus}
    return None not in places and len(places) > 1


def best_split(box: Box, k: int) -> tuple[Group, ...]:
    """The best split of all GPUs into groups of k, lowest indices first.

    Raises:
        ValueError: k does not divide the number of GPUs.
    """
    n = len(box.gpus)
    if k < 1 or n % k:
        raise ValueError(f"groups of {k} do not divide {n} GPUs")
    return best_groups(box, [k] * (n // k))


def all_best_splits(box: Box) -> dict[int, tuple[Group, ...]]:
    """The best split for every k that divides the number of GPUs."""
    n = len(box.gpus)
    return {k: best_split(box, k) for k in range(1, n + 1) if n % k == 0}


def best_group(box: Box, k: int, among: Iterable[int] | None = None) -> Group:
    """The best k of the given GPUs (all when None); among equals, the one that leaves most NVLinks to the others.

    Raises:
        ValueError: there are not so many GPUs.
    """
    free = tuple(sorted(box.indices if among is None else among))
    if not 1 <= k <= len(free):
        raise ValueError(f"a group of {k} cannot be made of {len(free)} GPUs")
    judge = _Judge(box)

    def worth(group: Group) -> tuple[Score, int]:
        rest = [gpu for gpu in free if gpu not in group]
        return judge.score(group), sum(judge.nvlinks[a, b] for a, b in combinations(rest, 2))

    return max(combinations(free, k), key=worth)


def best_groups(box: Box, sizes: Sequence[int]) -> tuple[Group, ...]:
    """Groups of the given sizes, uneven ones too; GPUs that no group takes stay idle.

    Returns:
        Groups, the larger ones first and equal ones by lowest index.

    Raises:
        ValueError: a size below one, or more GPUs asked for than there are.
    """
    n = len(box.gpus)
    if any(size < 1 for size in sizes) or sum(sizes) > n:
        raise ValueError(f"groups of {list(sizes)} cannot be made of {n} GPUs")
    if _is_small(n, sizes):
        groups: Sequence[Group] = _Search(_Judge(box), box.indices).best(sizes)
    else:
        groups = _improve(_Judge(box), _one_by_one(box, sizes), box.indices)
    return tuple(sorted(groups, key=lambda group: (-len(group), group)))


def _reach(box: Box, start: int) -> Group:
    seen, frontier = {start}, [start]
    while frontier:
        here = frontier.pop()
        joined = [gpu for gpu in box.indices if gpu not in seen and box.link(here, gpu).kind is LinkKind.NV]
        seen.update(joined)
        frontier.extend(joined)
    return tuple(sorted(seen))


def _slowness(link: Link) -> tuple[int, int]:
    return link.kind.distance, -link.nvlinks


def _place(box: Box, index: int) -> int | str | None:
    gpu = box.gpu(index)
    return gpu.numa_node if gpu.numa_node is not None else gpu.cpu_affinity


@dataclass(frozen=True)
class _Judge:
    """Scores groups of one box; higher is better, and scores of groups add up."""

    box: Box

    @cached_property
    def nvlinks(self) -> dict[tuple[int, int], int]:
        return {(link.a, link.b): link.nvlinks for link in self.box.links}

    @cached_property
    def distance(self) -> dict[tuple[int, int], int]:
        return {(link.a, link.b): link.kind.distance for link in self.box.links}

    @cached_property
    def place(self) -> dict[int, int | str | None]:
        return {index: _place(self.box, index) for index in self.box.indices}

    @cached_property
    def _scores(self) -> dict[Group, Score]:
        return {}

    def score(self, group: Group) -> Score:
        """(NVLinks, NVLinks of the slowest hop, evenness, on one NUMA node, shortness of PCIe paths)."""
        known = self._scores.get(group)
        if known is None:
            known = self._scores[group] = self._measure(group)
        return known

    def _measure(self, group: Group) -> Score:
        if len(group) == 1:
            return (0, 0, 0, 0, 0)
        pairs = list(combinations(group, 2))
        widths = [self.nvlinks[pair] for pair in pairs]
        places = {self.place[gpu] for gpu in group}
        together = int(len(places) == 1 and None not in places)
        return (sum(widths), min(widths), -(sum(widths) ** 2), together, -sum(self.distance[pair] for pair in pairs))


_NOTHING: Score = (0, 0, 0, 0, 0)


def _sum(first: Score, second: Score) -> Score:
    return tuple(a + b for a, b in zip(first, second, strict=True))


class _Search:
    """The best groups by going through subsets: the lowest GPU left belongs to a group of one of the sizes left."""

    def __init__(self, judge: _Judge, gpus: Sequence[int]) -> None:
        self._judge = judge
        self._gpus = tuple(sorted(gpus))
        self._known: dict[tuple[Group, Group], tuple[Score, tuple[Group, ...]]] = {}

    def best(self, sizes: Sequence[int]) -> tuple[Group, ...]:
        idle = len(self._gpus) - sum(sizes)
        _, groups = self._best(self._gpus, tuple(sorted((*sizes, *[0] * idle), reverse=True)))
        return groups

    def _best(self, free: Group, sizes: Group) -> tuple[Score, tuple[Group, ...]]:
        if not free:
            return _NOTHING, ()
        if (free, sizes) not in self._known:
            self._known[free, sizes] = self._choose(free, sizes)
        return self._known[free, sizes]

    def _choose(self, free: Group, sizes: Group) -> tuple[Score, tuple[Group, ...]]:
        best: tuple[Score, tuple[Group, ...]] | None = None
        for group, rest, sizes_left in _first_groups(free, sizes):
            score, groups = self._best(rest, sizes_left)
            if len(group) > 0:
                score, groups = _sum(score, self._judge.score(group)), (group, *groups)
            if best is None or score > best[0]:
                best = (score, groups)
        assert best is not None
        return best


def _first_groups(free: Group, sizes: Group) -> Iterator[tuple[Group, Group, Group]]:
    """Every group that the lowest free GPU can be in (empty: it stays idle), with what is left after it."""
    for size in dict.fromkeys(sizes):
        left = list(sizes)
        left.remove(size)
        if size == 0:
            yield (), free[1:], tuple(left)
            continue
        for others in combinations(free[1:], size - 1):
            taken = set(others)
            yield (free[0], *others), tuple(gpu for gpu in free[1:] if gpu not in taken), tuple(left)


def _is_small(n: int, sizes: Sequence[int]) -> bool:
    """Whether going through subsets takes a second at most: any sizes of 8 GPUs, equal ones that use up 16."""
    even = len(set(sizes)) == 1 and sum(sizes) == n
    return n <= 8 or (even and n <= 16)


def _one_by_one(box: Box, sizes: Sequence[int]) -> list[Group]:
    free = list(box.indices)
    groups = []
    for size in sorted(sizes, reverse=True):
        group = best_group(box, size, free) if len(free) <= 16 else _grow(box, size, free)
        groups.append(group)
        free = [gpu for gpu in free if gpu not in group]
    return groups


def _grow(box: Box, size: int, free: Sequence[int]) -> Group:
    """A group grown from the lowest free GPU, always by the card that fits it best."""
    judge = _Judge(box)
    group: Group = (free[0],)
    while len(group) < size:
        candidates = [tuple(sorted((*group, gpu))) for gpu in free if gpu not in group]
        group = max(candidates, key=judge.score)
    return group


def _improve(judge: _Judge, groups: list[Group], gpus: Sequence[int]) -> list[Group]:
    """Swap cards between groups (idle ones are groups of one) as long as that helps."""
    taken = {gpu for group in groups for gpu in group}
    parts = [*groups, *[(gpu,) for gpu in gpus if gpu not in taken]]
    while (better := _better_swap(judge, parts)) is not None:
        parts = better
    return parts[: len(groups)]


def _better_swap(judge: _Judge, parts: list[Group]) -> list[Group] | None:
    for first, second in combinations(range(len(parts)), 2):
        before = _sum(judge.score(parts[first]), judge.score(parts[second]))
        for a in parts[first]:
            for b in parts[second]:
                one = tuple(sorted((*(gpu for gpu in parts[first] if gpu != a), b)))
                other = tuple(sorted((*(gpu for gpu in parts[second] if gpu != b), a)))
                if _sum(judge.score(one), judge.score(other)) > before:
                    return [one if i == first else other if i == second else part for i, part in enumerate(parts)]
    return None
