"""Whether one choice of a plan can be told from another: by the band of their ratio, see cost/band.py."""

from math import inf

from atoll.analyse.band import Band, Interval
from atoll.cost.band import caution, relative_band, relative_ratio
from atoll.plan.choice import Choice
from atoll.plan.goal import Favour, Goal
from atoll.plan.workbench import Workbench


def choice_band(choice: Choice, workbench: Workbench) -> Band | None:
    """The band of the choice's means, around 1; None where none is known, as of figures by formula."""
    return relative_band(choice.layout, workbench.card) if choice.predicted.simulated else None


def pair_band(one: Choice, other: Choice, workbench: Workbench, goal: Goal) -> float:
    """How far the ratio of the two choices may be from the measured one, in what the goal favours: 0.08 is 8 %.

    Where nothing was measured of that, what is told apart with caution.
    """
    interval = _measured_ratio(one, other, workbench, goal) or _favoured(caution(), goal)
    return inf if interval is None else 1 / interval[0] - 1


def pair_is_known(one: Choice, other: Choice, workbench: Workbench, goal: Goal) -> bool:
    """Whether such ratios were measured."""
    return _measured_ratio(one, other, workbench, goal) is not None


def _measured_ratio(one: Choice, other: Choice, workbench: Workbench, goal: Goal) -> Interval | None:
    ratio = relative_ratio(one.layout, other.layout, workbench.card)
    return None if ratio is None else _favoured(ratio, goal)


def _favoured(ratio: Band, goal: Goal) -> Interval | None:
    return ratio.ttft_s if goal.favour is Favour.FIRST_TOKEN else ratio.e2e_s


def may_be_better(choice: Choice, best: Choice, workbench: Workbench, goal: Goal) -> bool:
    """Whether the choice may be better than the best for all we know: within their ratio's error, and the targets."""
    near = choice.predicted.times(best.predicted, goal) <= 1 + pair_band(best, choice, workbench, goal)
    return near and choice.predicted.meets(goal) >= best.predicted.meets(goal)
