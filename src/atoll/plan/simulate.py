"""Step 2: the candidates that may win are simulated, in the order of the formula, as many as the budget allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from atoll.layout.layout import Layout
from atoll.plan.budget import WHOLE, Budget, Stage, sample_of
from atoll.plan.choice import Choice
from atoll.plan.draft import Question, score_layout
from atoll.plan.goal import Goal
from atoll.plan.outlook import Outlook
from atoll.plan.rank import rank_choices

Watch = Callable[[Sequence[Choice], str], None]
Simulate = Callable[[Layout, Goal, Outlook], Outlook]  # is told what the formula expects

HOPELESS = 2.5  # times the best formula cost: such a candidate is not simulated
MOST_SIMULATED = 16


@dataclass(kw_only=True)
class Simulations:
    """Simulates a layout under a load, once, and counts it; by formula where there is nothing that simulates."""

    simulate: Simulate | None
    budget: Budget
    _known: dict[tuple[str, Goal], Outlook] = field(default_factory=dict)

    @property
    def are_possible(self) -> bool:
        return self.simulate is not None

    def predict(self, layout: Layout, question: Question) -> Outlook:
        formula, goal = score_layout(question, layout), question.goal
        if self.simulate is None:
            return formula
        key = (layout.to_json(), goal)
        if key not in self._known:
            self.budget.add(requests_of(formula, goal))
            self._known[key] = replace(self.simulate(layout, goal, formula), simulated=True)
        return self._known[key]

    def affords(self, choice: Choice, question: Question, stage: Stage) -> bool:
        """Whether the choice may be simulated as well in this stage."""
        return self.budget.affords(requests_of(choice.formula, question.goal), stage)


def requests_of(formula: Outlook, goal: Goal) -> int:
    """How many requests a simulation takes."""
    return sample_of(goal, formula).requests


def unwatched(choices: Sequence[Choice], doing: str) -> None:
    """Nobody looks on."""


def simulate_likely(
    drafts: Sequence[Choice], question: Question, simulations: Simulations, *, watch: Watch = unwatched
) -> tuple[Choice, ...]:
    """The simulated ones, best first, and behind them those that the formula puts too far back."""
    if not simulations.are_possible or not drafts:
        return tuple(drafts)
    best = drafts[0].formula
    near = [one for one in drafts if one.formula.times(best, question.goal) <= HOPELESS][:MOST_SIMULATED]
    chosen = _affordable(near, question.goal, simulations.budget)
    ranked: tuple[Choice, ...] = ()
    for done, choice in enumerate(chosen):
        left = [one for one in drafts if one not in chosen[:done]]
        watch((*ranked, *left), f"simulating {choice.name}, {done + 1} of {len(chosen)}")
        outlook = simulations.predict(choice.layout, question)
        ranked = rank_choices((*ranked, replace(choice, predicted=outlook)), question.goal, question.workbench)
    return (*ranked, *(one for one in drafts if one not in chosen))


def confirm_best(choices: Sequence[Choice], question: Question, simulate_long: Simulate | None) -> tuple[Choice, ...]:
    """The same choices; the first simulated as long as its file asks, so that `simulate` of the file says the same.

    A sample hardly differs, but users of equal answers clump as rounds go by. Where another one is the first after
    that, it is simulated as well.
    """
    confirmed: set[str] = set()
    while simulate_long is not None and choices and choices[0].name not in confirmed:
        best, *others = choices
        if not best.predicted.simulated or requests_of(best.formula, question.goal) >= WHOLE:
            break
        outlook = replace(simulate_long(best.layout, question.goal, best.formula), simulated=True)
        confirmed.add(best.name)
        lead = [one for one in others if one.predicted.simulated]
        rest = [one for one in others if not one.predicted.simulated]
        again = rank_choices((replace(best, predicted=outlook), *lead), question.goal, question.workbench)
        choices = (*again, *rest)
    return tuple(choices)


def _affordable(near: Sequence[Choice], goal: Goal, budget: Budget) -> Sequence[Choice]:
    """As many as there is budget for, and two in any case."""
    planned = Budget()
    for place, choice in enumerate(near):
        requests = requests_of(choice.formula, goal)
        if place >= 2 and not planned.affords(requests, Stage.RANKING):
            budget.cuts.append(
                f"So great a load takes long to simulate: of {len(near)} layouts that may win, the {place} that the"
                " formula puts first were simulated."
            )
            return near[:place]
        planned.add(requests)
    return near
