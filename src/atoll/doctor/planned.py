"""What the planner would do instead of a layout, under the load that the layout carries.

Whether a narrower group or another replica serves better hangs on the load: 30 users want replicas, one user wants all
cards at once. Rules of thumb do not know; where the layout says its load, the planner's formula is asked, and a rule
speaks only when it knows something clearly better that is free of the fault.
"""

from collections.abc import Callable, Container
from functools import lru_cache

from atoll.doctor.facts import Facts
from atoll.errors import InputError
from atoll.inventory.catalog import GpuKind
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.plan.goal import Goal
from atoll.traffic.slo import SLO

# The formula ranks, the simulator decides (plan/score.py): of layouts that it put first, the formula had put another
# one ahead by up to 24 % of an answer's time in 80 plans drawn by tests/laws/walk.py.
CLEARLY = 1.25
# At a rate, answers take ever longer near what the engines can do, and the formula does not know that to some per cent:
# what it says of a rate has to hold at a fifth less and a quarter more too.
NEARBY = (1 / CLEARLY, 1.0, CLEARLY)


def planned_fix(facts: Facts, path: str, is_free_of_it: Callable[[Layout], bool]) -> str | None:
    """What to do about a fault of the layout in this file.

    Args:
        facts: where the layout, its model and its cards are known from.
        path: the layout's file.
        is_free_of_it: whether another layout does not have the fault.

    Returns:
        None where the planner knows nothing better for the layout's load; the empty string where there is no such
        answer, so that the rule's own words stand; else which layout to take.
    """
    layout = facts.layout_beside(path)
    card = facts.cards.get(layout.model) if layout is not None else None
    if layout is None or card is None:
        return ""
    goal = _goal_of(layout)
    kinds = tuple((gpu, facts.kind_at(layout.box, gpu)) for gpu in layout.box.indices)
    known = tuple((gpu, kind) for gpu, kind in kinds if kind is not None)
    if goal is None or len(known) < len(kinds):
        return ""
    try:
        clearly_better = _clearly_better(layout, card, goal, known)
    except InputError:  # what the engine refuses is no layout to compare with; other rules say so
        return ""
    better = next((one for one in clearly_better if is_free_of_it(one)), None)
    return None if better is None else f"{_words(better)}, which `atoll plan` puts before it for {goal.load}."


def _goal_of(layout: Layout) -> Goal | None:
    """None where the layout carries no load, or one that stands in a trace."""
    load = layout.workload
    if load is None or "trace" in {load.prompt.kind, load.output.kind}:
        return None
    return Goal(workload=load, slo=layout.slo or SLO())


@lru_cache(maxsize=32)
def _clearly_better(
    layout: Layout, card: ModelCard, goal: Goal, kinds: tuple[tuple[int, GpuKind], ...]
) -> tuple[Layout, ...]:
    """Layouts of the same model on the same box that the formula puts clearly ahead of this one, best first.

    Batch sizes are the planner's to choose; a context limit and the other flags stay. None is ahead whose users wait
    for a seat where this one's do not: how long they wait the formula hardly knows. At a rate a layout is ahead only
    where it is so at the rates around it too.
    """
    from atoll.plan.candidates import find_candidates  # most files need no planner
    from atoll.plan.draft import Question, score_layout
    from atoll.plan.workbench import Workbench

    bench = Workbench(
        box=layout.box,
        card=card,
        kinds=dict(kinds),
        engine=layout.engine,
        engine_version=layout.engine_version,
    )
    free = layout.flags.replace(max_num_seqs=None, max_num_batched_tokens=None)
    question = Question(workbench=bench, goal=goal, model=layout.model, flags=free)
    loads = [goal.amount * factor for factor in NEARBY] if goal.users is None else [goal.amount]
    asked = [question.at_load(load) for load in loads]

    def is_ahead(other: Layout) -> bool:
        pairs = ((score_layout(one, layout), score_layout(one, other)) for one in asked)
        return all(
            mine.times(its, goal) > CLEARLY and its.meets(goal) >= mine.meets(goal) and not its.makes_wait(mine)
            for mine, its in pairs
        )

    return tuple(draft.layout for draft in find_candidates(question).drafts if is_ahead(draft.layout))


def of_sizes(sizes: Container[int]) -> Callable[[Layout], bool]:
    """Whether all tensor-parallel sizes of a layout are among these."""
    return lambda layout: all(replica.tensor_parallel in sizes for replica in layout.replicas)


def with_fewer_idle_than(count: int) -> Callable[[Layout], bool]:
    """Whether fewer GPUs of a layout's box are idle."""
    return lambda layout: len(layout.idle_gpus) < count


def _words(layout: Layout) -> str:
    """`2xTP2 on GPUs 0,1 and 2,3`."""
    return f"{layout.name} on GPUs {' and '.join(','.join(map(str, replica.gpus)) for replica in layout.replicas)}"
