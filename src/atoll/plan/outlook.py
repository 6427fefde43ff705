"""What a layout is predicted to do under a load: a Summary, how it came about, and what it is worth to the goal."""

from dataclasses import dataclass
from math import inf

from atoll.analyse.summary import Summary
from atoll.plan.goal import Favour, Goal

MANY_TIMES = 4.0  # the TTFT p95 of a layout whose users wait for a seat, against another's
SHARE_OF_ANSWER = 0.1  # by which the two must lie apart, as a share of the answer, for anybody to mind
GIVEN_UP = 1.25  # so many times the mean answer is given up for it at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """A predicted summary; by formula unless it was simulated. One by formula has no requests."""

    summary: Summary
    simulated: bool = False
    saturated: bool = False  # open loop: more arrives than is served, so that answers' times are not known
    full_per_s: float | None = None  # requests/s of full engines, by formula, beside a simulated saturated run

    def meets(self, goal: Goal) -> bool:
        """Both targets at the 95th percentile, and no request failed or piles up."""
        return self.strain(goal) <= 1

    def strain(self, goal: Goal) -> float:
        """How much of the tighter target is used up: 1 when it is just met, infinite when requests fail or pile up."""
        counts = self.summary.requests
        if self.saturated or counts.failed or counts.cancelled:
            return inf
        return max(
            _part(self.summary.ttft_s.p95, goal.slo.ttft_s),
            _part(self.summary.tpot_s.p95, goal.slo.tpot_s),
        )

    def cost(self, goal: Goal) -> float:
        """Seconds that are to be small: what the goal favours. Infinite where requests pile up."""
        summary = self.summary
        seconds = summary.ttft_s.p95 if goal.favour is Favour.FIRST_TOKEN else summary.e2e_s.mean
        return inf if self.saturated or seconds is None else seconds

    def times(self, other: "Outlook", goal: Goal) -> float:
        """How many times the other's cost; where both pile up, how many times fewer requests are answered."""
        mine, others = self.cost(goal), other.cost(goal)
        if mine == others == inf:
            return other.answered_per_s / max(self.answered_per_s, 1e-9)
        return mine / others

    @property
    def answered_per_s(self) -> float:
        """Requests per second; of engines that cannot keep up, what they answer as long as the queue lasts.

        A run of them tells it badly: a short one ends before the first answers, a long one when the slowest replica has
        emptied its queue, long after the others.
        """
        return self.summary.requests_per_s if self.full_per_s is None else self.full_per_s

    def is_steadier(self, other: "Outlook", goal: Goal) -> bool:
        """Whether the other's TTFT p95 is many times this one's, which is hardly slower in all.

        Without a target for the first token nothing else keeps a layout from the first place whose replicas have seats
        for some of the users only, while the others wait for most of an answer's time.
        """
        if goal.slo.ttft_s is not None or goal.favour is Favour.FIRST_TOKEN or self.simulated != other.simulated:
            return False
        return other.makes_wait(self) and self.times(other, goal) <= GIVEN_UP and self.meets(goal) >= other.meets(goal)

    def makes_wait(self, other: "Outlook") -> bool:
        """Whether its TTFT p95 is many times the other's, and a good part of a whole answer: users wait for seats."""
        sooner_s, later_s, answer_s = other.summary.ttft_s.p95, self.summary.ttft_s.p95, self.summary.e2e_s.mean
        if sooner_s is None or later_s is None or answer_s is None:
            return False
        return later_s > MANY_TIMES * sooner_s and later_s - sooner_s > SHARE_OF_ANSWER * answer_s


def _part(seconds: float | None, target: float | None) -> float:
    """An answer of one token has no TPOT, and so keeps any."""
    return 0.0 if target is None or seconds is None else seconds / target
