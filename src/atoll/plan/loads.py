"""Other loads than the one asked about: which ones, where the ranking flips, the most that a layout carries."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, exp, inf, isfinite, log, log2, sqrt

from atoll.plan.choice import Curve, Flip
from atoll.plan.goal import Goal
from atoll.plan.outlook import Outlook

TIE = 0.01  # relative; below it two predictions are the same and the simpler layout wins
FINE = 0.04  # relative; where the search for the most load ends
_TRIES = 24
_HIGHEST_STEP = 2.0  # how far the search leaps while it knows one side only
_POINTS = 7  # rates that are looked at


def loads_around(goal: Goal, *, most_rate: float = 0.0) -> tuple[float, ...]:
    """The goal's load and others around it, rising.

    Users double from one to four times the goal's (at least 64). Rates lie evenly on a logarithmic scale from a quarter
    of the goal's to twice that, and to a little above `most_rate`, which the best layout carries.
    """
    if goal.users is not None:
        most = max(64, goal.users * 4)
        doubled = [2**power for power in range(ceil(log2(most)) + 1)]
        others = [users for users in doubled if not 0.7 < users / goal.users < 1.4]
        return tuple(float(users) for users in sorted([*others, goal.users]))
    assert goal.rate is not None
    low, high = goal.rate / 4, goal.rate * 2
    if most_rate:
        low, high = min(low, most_rate / 4), max(high, most_rate * 1.3)
    steps = [low * (high / low) ** (place / (_POINTS - 1)) for place in range(_POINTS)]
    rounded = {float(f"{rate:.2g}") for rate in steps}
    return tuple(sorted({rate for rate in rounded if not 0.85 < rate / goal.rate < 1.15} | {goal.rate}))


# Where the ranking flips


def find_flips(curves: Sequence[Curve], goal: Goal) -> Iterator[Flip]:
    """Where the best layout changes as the load rises, interpolated between the loads that were looked at.

    A layout that cannot keep up is worse than any that can; where none can there is nothing to compare.
    """
    if len(curves) < 2:
        return
    leader: str | None = None
    for place in range(len(curves[0].points)):
        points = {curve.name: curve.points[place][1] for curve in curves}
        best = _leader(points, goal)
        if points[best].cost(goal) == inf:
            return
        if leader is not None and best != leader:
            steadier = points[best].is_steadier(points[leader], goal)
            if steadier or points[best].cost(goal) < points[leader].cost(goal) * (1 - TIE):
                load = _crossing(curves, goal, place, leader, best)
                yield Flip(load=load, before=leader, after=best, steadier=steadier)
                leader = best
        leader = leader or best


def _leader(points: Mapping[str, Outlook], goal: Goal) -> str:
    """The quickest, or the one that is preferred to it because nobody waits for a seat."""
    quickest = min(points, key=lambda name: points[name].cost(goal))
    steadier = [name for name in points if points[name].is_steadier(points[quickest], goal)]
    return min(steadier, key=lambda name: points[name].cost(goal), default=quickest)


def _crossing(curves: Sequence[Curve], goal: Goal, place: int, before: str, after: str) -> float:
    """The load at which the two cost the same, on a straight line through the ratios of two neighbouring loads.

    Where the one in front no longer keeps up, or has users who wait for a seat, the middle of the two loads.
    """
    points = {curve.name: curve.points for curve in curves}

    def ratio(at: int) -> float:
        return points[after][at][1].times(points[before][at][1], goal) - 1

    (low, _), (high, last) = points[before][place - 1], points[before][place]
    if last.saturated:
        return (low + high) / 2
    first, second = ratio(place - 1), ratio(place)
    if second > 0:
        return (low + high) / 2
    if first <= 0 or first == second:
        return low
    return low + (high - low) * first / (first - second)


# The most that a layout carries


def find_most(
    strain: Callable[[float], float],
    *,
    start: float,
    most: float,
    whole: bool,
    known: Mapping[float, float],
) -> float:
    """The largest load that was tried and held, with one that did not hold at most FINE above it; 0 when none held.

    Bisection on a logarithmic scale, quicker where the strain tells how far it is.

    Args:
        strain: of a load: at most 1 when it holds, infinite when there is no saying by how much it does not.
        start: where to look first.
        most: where to stop looking, however well it holds.
        whole: loads are whole numbers; three digits otherwise.
        known: loads whose strain is known already.
    """
    tried, start = dict(known), _rounded(start, whole=whole)
    is_straight = True
    for _ in range(_TRIES):
        load = _next_load(tried, start=start, most=most, whole=whole, is_straight=is_straight)
        if load is None:
            break
        before = _open_part(tried)
        tried[load] = strain(load)
        # Where the strain bends, a straight line only creeps up to the bend; from then on the middle is tried.
        is_straight = is_straight and _open_part(tried) <= before / 2
    return max((load for load, strained in tried.items() if strained <= 1), default=0.0)


def _bracket(tried: Mapping[float, float]) -> tuple[float, float]:
    """The most that held, and the least above it that did not; 0 and infinity where nothing is known."""
    low = max((load for load, strained in tried.items() if strained <= 1), default=0.0)
    return low, min((load for load, strained in tried.items() if strained > 1 and load > low), default=inf)


def _open_part(tried: Mapping[float, float]) -> float:
    """How far apart the two are, on a logarithmic scale."""
    low, high = _bracket(tried)
    return log(high / low) if low > 0 and high < inf else inf


def _next_load(
    tried: Mapping[float, float], *, start: float, most: float, whole: bool, is_straight: bool
) -> float | None:
    """The next load to try; None when it is known well enough."""
    low, high = _bracket(tried)
    least = 1.0 if whole else start / 1000
    if low >= most or high <= max(low * (1 + FINE), least) or (whole and high - low <= 1):
        return None
    guess = _rounded(min(most, _guess(tried, low, high, start, is_straight=is_straight)), whole=whole)
    if low < guess < high:
        return guess
    if whole:
        return low + 1 if guess <= low else high - 1
    return None


def _rounded(load: float, *, whole: bool) -> float:
    return float(round(load)) if whole else float(f"{load:.3g}")


def _guess(tried: Mapping[float, float], low: float, high: float, start: float, *, is_straight: bool) -> float:
    """A load between the two: the start, one step away from the only side that is known, or where both sides point."""
    if low < start < high and start not in tried:
        return start
    if high == inf:
        return low * _step(1 / max(tried[low], 1e-9))
    if low == 0:
        return high / _step(tried[high])
    if not is_straight and high > low * (1 + FINE) ** 2:
        return sqrt(low * high)
    return _between(low, high, tried[low], tried[high])


def _between(low: float, high: float, below: float, above: float) -> float:
    """Where the strain is 1 on a straight line of logarithms, and far enough from either side to settle the matter."""
    first, last = low * (1 + 0.95 * FINE), high / (1 + 0.95 * FINE)
    if first >= last or below <= 0 or not isfinite(above):
        return sqrt(low * high)
    weight = log(1 / below) / log(above / below)
    return min(last, max(first, low * exp(weight * log(high / low))))


def _step(factor: float) -> float:
    return min(_HIGHEST_STEP, max(1.05, factor))
