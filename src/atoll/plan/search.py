"""Question -> Choice: the best layout first, the rest behind, and what was rejected and why. Four steps, one budget."""

from atoll.layout.layout import EngineFlags
from atoll.plan.budget import Budget
from atoll.plan.candidates import find_candidates
from atoll.plan.capacity import confirm_most, draw_curves, find_capacities, share_out, widen_seats
from atoll.plan.choice import Search
from atoll.plan.draft import PLAIN, Question
from atoll.plan.enumerate import OPEN, Wanted
from atoll.plan.goal import Goal
from atoll.plan.loads import find_flips
from atoll.plan.simulate import Simulate, Simulations, Watch, confirm_best, simulate_likely, unwatched
from atoll.plan.tune import tune_leaders
from atoll.plan.workbench import Workbench


def search_layouts(
    workbench: Workbench,
    goal: Goal,
    *,
    model: str,
    wanted: Wanted = OPEN,
    flags: EngineFlags = PLAIN,
    simulate: Simulate | None = None,
    simulate_long: Simulate | None = None,
    simulate_most: Simulate | None = None,
    vary_load: bool = True,
    watch: Watch = unwatched,
) -> Search:
    """The layouts of a model on a box, best first.

    Args:
        workbench: box, cards and model.
        goal: the traffic and the targets.
        model: what the layouts call the model.
        wanted: what the user has settled.
        flags: options that are given; those left out are chosen.
        simulate: simulates one layout under a goal; None: the formula alone.
        simulate_long: simulates more of the run, for the best one; None: the beginning will do.
        simulate_most: ... and for the most that it carries; None: the same.
        vary_load: whether to look at other loads too.
        watch: is told the choices as far as they are known, best first, and what is done next.
    """
    # Written out, so that a layout says what it was reckoned with whatever another version takes by itself.
    share = flags.gpu_memory_utilization or workbench.rules.memory_utilization(workbench.engine_version)
    flags = flags.replace(gpu_memory_utilization=share)
    question = Question(workbench=workbench, goal=goal, model=model, wanted=wanted, flags=flags)
    simulations = Simulations(simulate=simulate, budget=Budget())
    possible = find_candidates(question)
    choices = simulate_likely(possible.drafts, question, simulations, watch=watch)
    watch(choices, "trying other flags and policies")
    choices = tune_leaders(choices, question, simulations)
    watch(choices, "looking at other loads")
    choices = widen_seats(choices, question, simulations) if vary_load else choices
    curves = draw_curves(choices, question, simulations) if vary_load else ()
    choices = confirm_best(choices, question, simulate_long)
    watch(choices, "finding the most that each carries")
    choices = find_capacities(choices, curves, question, simulations) if vary_load else choices
    choices = share_out(confirm_most(choices, question, simulate_most or simulate_long), goal)
    return Search(
        goal=goal,
        choices=choices,
        illegal=possible.illegal,
        too_big=possible.too_big,
        curves=curves,
        flips=tuple(find_flips(curves, goal)),
        cuts=tuple(simulations.budget.cuts),
    )
