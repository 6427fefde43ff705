"""What a search finds: Choices with their predictions, what was tried beside them, how they do under other loads."""

from dataclasses import dataclass

from atoll.layout.layout import Layout
from atoll.plan.enumerate import Rejected
from atoll.plan.goal import Goal
from atoll.plan.outlook import Outlook


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A value of an option that was simulated beside the one that the choice then had."""

    option: str  # vLLM's name for it, or `policy`
    value: str
    was: str  # the value that was there before
    predicted: Outlook
    instead_of: Outlook  # with that one
    taken: bool = False
    needs_leave: bool = False  # never taken unless the user allows it


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The most back-to-back users, or requests per second, within the targets; 0 where none are."""

    users: int | None = None
    rate: float | None = None
    simulated: bool = False  # found by simulation; by formula otherwise

    @property
    def load(self) -> float:
        return float(self.users if self.users is not None else self.rate or 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A layout with its flags and router, and what it is predicted to do."""

    layout: Layout
    predicted: Outlook
    formula: Outlook  # the same by formula; equal to `predicted` when nothing was simulated
    warnings: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()  # other values of its options that were simulated
    untried: tuple[str, ...] = ()  # options of which no other values were simulated, for want of time
    widened_from: int | None = None  # max_num_seqs that would do for the load; more cost nothing and carry more
    most: Capacity | None = None  # the most load that it carries within the targets; None: not asked

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def most_users(self) -> int | None:
        return None if self.most is None else self.most.users

    @property
    def most_rate(self) -> float | None:
        """Requests per second."""
        return None if self.most is None else self.most.rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One layout under rising load: (users or rate, prediction)."""

    name: str
    points: tuple[tuple[float, Outlook], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """From `load` on, `after` is better than `before`."""

    load: float
    before: str
    after: str
    steadier: bool = False  # `after` is preferred because users of `before` wait for a seat


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What a search found. `choices` is empty when nothing fits."""

    goal: Goal
    choices: tuple[Choice, ...]
    illegal: tuple[Rejected, ...]  # splits that the engine cannot do
    too_big: tuple[Rejected, ...]  # splits whose part does not fit into a card, or layouts that the box has no room for
    curves: tuple[Curve, ...] = ()
    flips: tuple[Flip, ...] = ()
    cuts: tuple[str, ...] = ()  # what was left out to keep the plan short, in sentences

    @property
    def best(self) -> Choice:
        return self.choices[0]

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        return (*self.illegal, *self.too_big)
