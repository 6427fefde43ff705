"""Where more load stops helping."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadPoint:
    """A run of a sweep: the load and what came of it."""

    load: float  # users, or requests per second
    throughput: float  # output tokens per second
    latency_s: float


def find_knee(points: Sequence[LoadPoint]) -> LoadPoint | None:
    """The load with the most power: throughput / latency, Kleinrock's measure of a queue's best working point.

    Below it more load is carried at little extra wait, above it wait grows faster than throughput. Where the highest
    load has the most of it the knee lies beyond, and a single point has none: None.
    Source: Kleinrock, "Power and deterministic rules of thumb", ICC 1979.
    """
    usable = [point for point in points if point.latency_s > 0]
    best = max(usable, key=lambda point: point.throughput / point.latency_s, default=None)
    return None if best is None or best.load == max(point.load for point in points) else best
