"""Which of many choices is the better one: within the targets, then by what the goal favours, then the simpler one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, log2

from atoll.plan.band import may_be_better
from atoll.plan.choice import Choice
from atoll.plan.goal import Goal
from atoll.plan.loads import TIE
from atoll.plan.workbench import Workbench


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """`first` stands before `passed`, whose answers are quicker in the mean."""

    first: Choice
    passed: Choice
    steadier: bool  # for its first tokens; otherwise `passed` has a warning and cannot be told from it


def rank_choices(choices: Iterable[Choice], goal: Goal, workbench: Workbench) -> tuple[Choice, ...]:
    """The same choices, best first."""
    ordered = sorted(choices, key=lambda one: order_of(one, goal))
    preference = find_preference(ordered, goal, workbench)
    if preference is None:
        return tuple(ordered)
    return (preference.first, *(one for one in ordered if one is not preference.first))


def order_of(choice: Choice, goal: Goal) -> tuple[object, ...]:
    """Within the targets first; then by cost, where a difference below TIE goes to fewer GPUs a replica."""
    cost = choice.predicted.cost(goal)
    piles_up = cost == inf
    if piles_up:
        cost = 1 / max(choice.predicted.answered_per_s, 1e-9)  # the one that answers most is first
    step = round(log2(cost) / log2(1 + TIE)) if cost > 0 else 0
    fp8 = choice.layout.flags.kv_cache_dtype == "fp8"
    budget = choice.layout.flags.max_num_batched_tokens or 0
    gpus = sum(len(replica.gpus) for replica in choice.layout.replicas)
    default = abs(log2(max(1, budget) / 8192))
    return (not choice.predicted.meets(goal), piles_up, step, fp8, gpus, default, cost)


def find_preference(choices: Sequence[Choice], goal: Goal, workbench: Workbench) -> Preference | None:
    """The choice that is better than the one with the quickest answers, and why it is.

    That one's users wait long for a first token; or there is a warning against it, and none against another that may
    be quicker for all we know.

    Args:
        choices: in any order.
        goal: the load and the targets.
        workbench: what is known of the layouts' cards and model.
    """
    if not choices:
        return None
    quickest, *slower = sorted(choices, key=lambda one: order_of(one, goal))
    steadier = (one for one in slower if one.predicted.is_steadier(quickest.predicted, goal))
    if (first := next(steadier, None)) is not None:
        return Preference(first=first, passed=quickest, steadier=True)
    plain = (one for one in slower if _is_plainer(one, quickest, goal, workbench))
    if (first := next(plain, None)) is not None:
        return Preference(first=first, passed=quickest, steadier=False)
    return None


def _is_plainer(one: Choice, quickest: Choice, goal: Goal, workbench: Workbench) -> bool:
    """Whether only the other has a warning, and cannot be told from this one."""
    if one.warnings or not quickest.warnings or one.predicted.simulated != quickest.predicted.simulated:
        return False
    return may_be_better(one, quickest, workbench, goal)
