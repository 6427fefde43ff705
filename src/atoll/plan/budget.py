"""How much a plan simulates: which requests of a run are measured, and how many requests all runs may have together.

The budget is counted in simulated requests and not in seconds, so that the same question always gets the same answer.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from math import ceil

from atoll.plan.goal import Goal
from atoll.plan.outlook import Outlook

MEASURED = 240  # requests at least that percentiles are taken of: twelve lie above a 95th
MEASURED_OPEN = 400  # arrivals come in clusters, so that more are needed
WHOLE = 24_000  # requests of the run of the best layout, where its file asks for so many
CONFIRMING = 10_000  # ... of a run that confirms the most that it carries
SHORT = 5_000  # requests; so many more are simulated for the best layout in any case
LONGEST_ANSWER_S = 3600.0


class Stage(IntEnum):
    """What a search simulates, one after the other, and how many requests it may have simulated by the end of each.

    A core simulates 8,000 to 12,000 requests a second in layouts of 2 to 16 replicas (benchmarks/planner/speed.py).
    What one stage leaves goes to the next.
    """

    RANKING = 20_000
    TUNING = 32_000
    CURVES = 46_000
    MOST = 72_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The requests of a run in their order: some fill the engines, some are measured, the last keep the load up."""

    before: int
    measured: int
    after: int

    @property
    def requests(self) -> int:
        return self.before + self.measured + self.after

    @property
    def end(self) -> int:
        """The number of the first request behind the measured ones."""
        return self.before + self.measured


def sample_of(goal: Goal, formula: Outlook) -> Sample:
    """Which requests of a simulated run are measured under a goal, by what the formula expects.

    Users come spread over the time of an answer, and are measured when the first round is over (analyse/window.py):
    by then those who came first have asked twice. Request n + users is sent after n is answered; so with as many behind
    the measured ones, every measured one is served under the full load. Where users wait for a place, those who come
    first are answered sooner and ask again before the last have come.

    Percentiles hang on how many requests are measured, not on how long that takes: with many users half a round of them
    will do.
    """
    if goal.users is None:
        return _open_sample(goal, formula)
    answer_s = min(formula.summary.e2e_s.mean or 0.0, LONGEST_ANSWER_S)
    served_s = min(answer_s, _served_s(formula, goal))
    returned = goal.users * (1 - served_s / answer_s) if answer_s else 0.0
    return Sample(
        before=2 * goal.users + ceil(returned),
        measured=max(MEASURED, goal.users // 2),
        after=goal.users,
    )


def _open_sample(goal: Goal, formula: Outlook) -> Sample:
    """Answers that are longer by a fifth than the mean are the longest; the engines are full, or empty, after that."""
    in_flight = in_flight_of(formula, goal)
    return Sample(
        before=max(100, ceil(1.5 * in_flight)),
        measured=max(MEASURED_OPEN, ceil(in_flight)),
        after=ceil(1.2 * in_flight),
    )


def in_flight_of(formula: Outlook, goal: Goal) -> float:
    """Requests under way: rate x time of an answer (Little's law), or as many as have a place where too many come."""
    answer_s = formula.summary.e2e_s.mean
    if answer_s is None:
        answer_s = _served_s(formula, goal)
    return formula.summary.requests_per_s * min(answer_s, LONGEST_ANSWER_S)


def _served_s(formula: Outlook, goal: Goal) -> float:
    """Seconds of an answer from its first token on."""
    return goal.output * (formula.summary.tpot_s.mean or 0.0)


@dataclass(slots=True)
class Budget:
    """The requests that a search has simulated, and what it left out for want of more."""

    spent: int = 0
    cuts: list[str] = field(default_factory=list)  # in sentences

    def add(self, requests: int) -> None:
        self.spent += requests

    def affords(self, requests: int, stage: Stage) -> bool:
        """Whether so many more may be simulated in this stage."""
        return self.spent + requests <= stage
