"""Where more load stops helping, and where one layout overtakes another."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadPoint:
    """A run of a sweep: the load and what came of it."""

    load: float  # users, or requests per second
    throughput: float  # output tokens per second
    latency_s: float


def find_knee(points: Sequence[LoadPoint]) -> LoadPoint | None:
    """The load with the most power: throughput / latency, Kleinrock's measure of a queue's best working point.

    Below it more load is carried at little extra wait, above it wait grows faster than throughput. None without points.
    Source: Kleinrock, "Power and deterministic rules of thumb", ICC 1979.
    """
    usable = [point for point in points if point.latency_s > 0]
    return max(usable, key=lambda point: point.throughput / point.latency_s, default=None)


def most_load_within(points: Sequence[LoadPoint], *, longest_s: float) -> LoadPoint | None:
    """The highest load up to which every point keeps within the targets; a point that does not ends the search."""
    kept = None
    for point in sorted(points, key=lambda point: point.load):
        if point.latency_s > longest_s:
            break
        kept = point
    return kept


def find_crossover(first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]) -> float | None:
    """The lowest load at which the order of two curves flips, by straight lines between the points.

    Args:
        first: (load, value) of one layout, at the same loads as `second`, loads rising.
        second: those of the other.

    Returns:
        The load, or None where the order stays.
    """
    gaps = [(load, a - b) for (load, a), (_, b) in zip(first, second, strict=True)]
    for (load, gap), (next_load, next_gap) in pairwise(gaps):
        if gap * next_gap < 0:
            return load + (next_load - load) * gap / (gap - next_gap)
    return None
