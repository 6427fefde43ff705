"""Step 4: other loads. Seats for more, who is ahead at how many users, and the most that each carries as written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import floor, inf
from types import MappingProxyType

from atoll.plan.band import may_be_better
from atoll.plan.budget import CONFIRMING, SHORT, Budget, Stage
from atoll.plan.choice import Capacity, Choice, Curve, Trial
from atoll.plan.draft import Question, draft_as, score_layout, with_options
from atoll.plan.goal import Goal
from atoll.plan.loads import TIE, find_most, loads_around
from atoll.plan.outlook import Outlook
from atoll.plan.simulate import Simulate, Simulations, requests_of

CURVES = 4  # layouts whose load is varied
NEAR = 4  # that cannot be told from the best, and whose most load is simulated
CONFIRMED_AT = (0.94, 0.88, 0.8, 0.7, 0.5)  # of the most in a sample; whole runs are asked one by one until one holds
FIRST_TOKEN_NOISE = 0.05  # relative, of a TTFT p95
MOST_USERS = 10_000  # that a plan is made for, and where the search for the most users ends
MOST_RATE = 10_000.0  # where the search for the most requests/s ends


def draw_curves(choices: Sequence[Choice], question: Question, simulations: Simulations) -> tuple[Curve, ...]:
    """The best few under rising load; fewer of them, and up to lower loads, where there is no budget for all."""
    shown = _shown(choices, simulations)
    if not shown:
        return ()
    rates = [_most_by_formula(one, question) for one in shown] if question.goal.users is None else []
    wanted = loads_around(question.goal, most_rate=max(rates, default=0.0))
    for count, loads in _curve_plans(len(shown), wanted, question.goal.amount):
        if _affords_curves(shown[:count], loads, question, simulations):
            if (count, loads) != (len(shown), wanted):
                _say_cut_curves(shown[:count], loads, question.goal, simulations.budget)
            return tuple(_curve(one, loads, question, simulations) for one in shown[:count])
    simulations.budget.cuts.append("Other loads were not looked at.")
    return ()


def _shown(choices: Sequence[Choice], simulations: Simulations) -> list[Choice]:
    """Those whose load is varied: no part of another, which under other loads does worse than that one."""
    known = [one for one in choices if one.predicted.simulated or not simulations.are_possible]
    heads = _heads(known)
    return [one for one in best_of_each_size(known) if not _is_part_of(one, heads[sizes_of(one)])][:CURVES]


def _curve_plans(most: int, wanted: tuple[float, ...], own: float) -> Iterator[tuple[int, tuple[float, ...]]]:
    """How many layouts at which loads, the best first: high loads are left out, then layouts, then every other."""
    least, lower = min(most, 2), [load for load in wanted if load <= own]
    for count in range(most, least - 1, -1):
        for end in range(len(wanted), len(lower) - 1, -1):
            yield count, wanted[:end]
    yield least, (*lower[-3::-2][::-1], own)


def _affords_curves(
    choices: Sequence[Choice], loads: Sequence[float], question: Question, simulations: Simulations
) -> bool:
    if not simulations.are_possible:
        return True
    asked = [question.at_load(load) for load in loads if load != question.goal.amount]
    requests = sum(requests_of(score_layout(one, choice.layout), one.goal) for choice in choices for one in asked)
    return simulations.budget.affords(requests, Stage.CURVES)


def _say_cut_curves(choices: Sequence[Choice], loads: Sequence[float], goal: Goal, budget: Budget) -> None:
    names, load = ", ".join(choice.name for choice in choices), goal.with_load(loads[-1]).load
    budget.cuts.append(f"Of other loads {len(loads) - 1} were looked at, up to {load}, for {names}.")


def _curve(choice: Choice, loads: Sequence[float], question: Question, simulations: Simulations) -> Curve:
    return Curve(
        name=choice.name, points=tuple((load, _at_load(choice, load, question, simulations)) for load in loads)
    )


def _at_load(choice: Choice, load: float, question: Question, simulations: Simulations) -> Outlook:
    """The choice as it will be written, under another load."""
    if load == question.goal.amount:
        return choice.predicted
    return simulations.predict(choice.layout, question.at_load(load))


# Seats


def widen_seats(choices: Sequence[Choice], question: Question, simulations: Simulations) -> tuple[Choice, ...]:
    """The same choices; those looked at under other loads with more sequences at once, where that costs nothing.

    What a layout carries ends at its seats (max_num_seqs), and those were chosen for the load that was asked about.
    More of them are taken where the figures under that load stay as they are.
    """
    if question.flags.max_num_seqs is not None or not choices:
        return tuple(choices)
    looked_at = {one.name for one in _shown(choices, simulations)} | _contenders(choices, question)
    return tuple(_widened(one, question, simulations) if one.name in looked_at else one for one in choices)


def _widened(choice: Choice, question: Question, simulations: Simulations) -> Choice:
    now = choice.layout.flags.max_num_seqs or 0
    seats = min(_wanted_seats(choice, question), _room(choice, question))
    if seats <= now:
        return choice
    wider = with_options(choice, question, max_num_seqs=seats, max_num_batched_tokens=_budget(choice, seats))
    if wider is None or _cuts_context(wider, choice):
        return choice
    if choice.predicted.simulated:
        if not simulations.affords(wider, question, Stage.CURVES):
            return choice
        wider = replace(wider, predicted=simulations.predict(wider.layout, question))
    trial = Trial(
        option="max_num_seqs",
        value=str(seats),
        was=str(now),
        predicted=wider.predicted,
        instead_of=choice.predicted,
        taken=_is_no_worse(wider.predicted, choice.predicted, question.goal),
    )
    kept = choice if not trial.taken else replace(wider, untried=choice.untried, widened_from=now)
    return replace(kept, trials=_beside_its_like(choice.trials, trial) if choice.predicted.simulated else choice.trials)


def _wanted_seats(choice: Choice, question: Question) -> int:
    """Those that suit the most that the replicas carry with as many as they like; without targets, the curves' end."""
    if question.goal.has_capacity:

        def strain(load: float) -> float:
            draft = draft_as(question.at_load(load), choice)
            return inf if draft is None else draft.predicted.strain(question.goal)

        most = _find_most(strain, question.goal, start=question.goal.amount)
    else:
        most = loads_around(question.goal)[-1]
    at_most = draft_as(question.at_load(max(most, question.goal.amount)), choice)
    return 0 if at_most is None else at_most.layout.flags.max_num_seqs or 0


def _room(choice: Choice, question: Question) -> int:
    """Requests at their full mean length that the KV cache of the tightest replica holds, in eights.

    With more seats answers are thrown out and computed again once the cache has filled, which takes some rounds: two
    RTX 4090 with 128 seats each gave 154 users a first token within 1 s at first, and within 3.6 s over ten minutes.
    """
    fits = (question.workbench.fit(replica, choice.layout.flags) for replica in choice.layout.replicas)
    room = int(min(fit.kv_tokens for fit in fits) // (question.goal.prompt + question.goal.output))
    return room // 8 * 8


def _budget(choice: Choice, seats: int) -> int:
    """A step holds a token of every sequence."""
    return max(choice.layout.flags.max_num_batched_tokens or 0, seats)


def _cuts_context(wider: Choice, choice: Choice) -> bool:
    """Whether the longest request would become shorter by more than the rounding to whole thousands."""
    limit, was = wider.layout.flags.max_model_len, choice.layout.flags.max_model_len
    return limit is not None and (was is None or limit < was - 1024)


def _is_no_worse(wider: Outlook, now: Outlook, goal: Goal) -> bool:
    """The same figures to the tie of two predictions, first tokens too, and every target kept that was kept."""
    first, was = wider.summary.ttft_s.p95, now.summary.ttft_s.p95
    as_soon = first is None or was is None or first <= was * (1 + FIRST_TOKEN_NOISE)
    return wider.times(now, goal) <= 1 + TIE and as_soon and wider.meets(goal) >= now.meets(goal)


def _beside_its_like(trials: Sequence[Trial], trial: Trial) -> tuple[Trial, ...]:
    """Behind the other values of its option."""
    place = max((at for at, one in enumerate(trials, start=1) if one.option == trial.option), default=0)
    return (*trials[:place], trial, *trials[place:])


# The most load within the targets


def find_capacities(
    choices: Sequence[Choice], curves: Sequence[Curve], question: Question, simulations: Simulations
) -> tuple[Choice, ...]:
    """The most that each carries: by formula, and by simulation for those that somebody may want to choose."""
    if not choices or not question.goal.has_capacity:
        return tuple(choices)
    contenders = _contenders(choices, question) if simulations.are_possible else set()
    points = {curve.name: curve.points for curve in curves}
    found: list[Choice] = []
    cut: list[str] = []
    for choice in choices:
        most = _most_by_formula(choice, question)
        is_best = choice is choices[0]
        simulated = choice.name in contenders and _affords_most(choice, most, question, simulations, is_best=is_best)
        if simulated:
            known = {load: point.strain(question.goal) for load, point in points.get(choice.name, ())}
            most = _most_by_simulation(choice, most, known, question, simulations)
        elif choice.name in contenders:
            cut.append(choice.name)
        found.append(replace(choice, most=_capacity(most, question.goal, simulated=simulated)))
    if cut:
        simulations.budget.cuts.append(f"The most that {', '.join(cut)} carries is by formula.")
    return tuple(found)


def confirm_most(choices: Sequence[Choice], question: Question, simulate_long: Simulate | None) -> tuple[Choice, ...]:
    """The same choices; what the first is said to carry holds as long as its file asks, so that `simulate` agrees.

    Near the edge answers grow slower for longer than a sample lasts: 8 x H100 SXM with a 70B model keep a TPOT p95 of
    60 ms at 7.06 requests/s in the sample, and have 74 ms over ten minutes. It only ever becomes less.
    """
    if simulate_long is None or not choices or choices[0].most is None or not choices[0].most.simulated:
        return tuple(choices)
    best, *others = choices
    said = choices[0].most.load
    if said == 0:
        return tuple(choices)
    at_most = question.at_load(said)
    if requests_of(score_layout(at_most, best.layout), at_most.goal) >= CONFIRMING:  # the sample was the whole run
        return tuple(choices)

    def strain(load: float) -> float:
        asked = question.at_load(load)
        formula = score_layout(asked, best.layout)
        return simulate_long(best.layout, asked.goal, formula).strain(question.goal)

    most = next((load for load in _steps_down(said, question.goal) if strain(load) <= 1), 0.0)
    best = replace(best, most=_capacity(most, question.goal, simulated=True))
    return (best, *others)


def _steps_down(said: float, goal: Goal) -> Iterator[float]:
    """The load that was found in a sample, then less: by little at first, since it is seldom far off."""
    own = goal.amount if goal.amount < said else 0.0  # this one is known to hold, or not to
    for part in (1.0, *CONFIRMED_AT):
        load = said * part
        load = float(floor(load)) if goal.users is not None else float(f"{load:.3g}")
        if load <= own:
            yield own
            return
        yield load


def share_out(choices: Sequence[Choice], goal: Goal) -> tuple[Choice, ...]:
    """The same choices; what a part of another carries by formula is no more than its share of what that one does."""
    heads = _heads(choices)
    return tuple(_at_its_share(one, heads[sizes_of(one)], goal) for one in choices)


def _at_its_share(choice: Choice, head: Choice, goal: Goal) -> Choice:
    if choice.most is None or head.most is None or choice.most.simulated or not _is_part_of(choice, head):
        return choice
    share = head.most.load * len(choice.layout.replicas) / len(head.layout.replicas)
    return replace(choice, most=_capacity(min(choice.most.load, share), goal, simulated=False))


def _contenders(choices: Sequence[Choice], question: Question) -> set[str]:
    """The best, the first few that may be better for all we know, and the best of each tensor-parallel size.

    A part of one of these, fewer replicas of its size, carries its share of it.
    """
    best, heads = choices[0], _heads(choices)
    near = [
        one.name
        for one in choices
        if not _is_part_of(one, heads[sizes_of(one)]) and may_be_better(one, best, question.workbench, question.goal)
    ][:NEAR]
    return {best.name, *near, *(one.name for one in heads.values())}


def _heads(choices: Sequence[Choice]) -> dict[frozenset[tuple[int, int]], Choice]:
    """The best of each size of replicas."""
    return {sizes_of(choice): choice for choice in reversed(choices)}


def _is_part_of(choice: Choice, head: Choice) -> bool:
    """Whether it is another with fewer replicas."""
    return sizes_of(choice) == sizes_of(head) and len(choice.layout.replicas) < len(head.layout.replicas)


def _most_by_formula(choice: Choice, question: Question) -> float:
    """The most users or requests per second of the layout as it will be written."""

    def strain(load: float) -> float:
        return score_layout(question.at_load(load), choice.layout).strain(question.goal)

    return _find_most(strain, question.goal, start=question.goal.amount, at_most=_seats(choice, question.goal))


def _seats(choice: Choice, goal: Goal) -> float:
    """Users who all have a seat at once, where nothing is said of the first token; else there is no such bound.

    Time per token stays as it is for those who are served, however many wait. Without this two replicas with 128 seats
    each would carry thousands within a target for it alone.
    """
    seats = choice.layout.flags.max_num_seqs
    if goal.users is None or goal.slo.ttft_s is not None or seats is None:
        return inf
    return float(seats * len(choice.layout.replicas))


def _most_by_simulation(
    choice: Choice, start: float, known: Mapping[float, float], question: Question, simulations: Simulations
) -> float:
    """The same from where the formula sees it; `known` are loads that were simulated already."""

    def strain(load: float) -> float:
        return _at_load(choice, load, question, simulations).strain(question.goal)

    at_most = _seats(choice, question.goal)
    return _find_most(strain, question.goal, start=max(start, question.goal.least), known=known, at_most=at_most)


def _find_most(
    strain: Callable[[float], float],
    goal: Goal,
    *,
    start: float,
    known: Mapping[float, float] = MappingProxyType({}),
    at_most: float = inf,
) -> float:
    whole = goal.users is not None
    most = min(at_most, MOST_USERS if whole else MOST_RATE)
    within = {load: strained for load, strained in known.items() if load <= most}
    return find_most(strain, start=start, most=most, whole=whole, known=within)


def _affords_most(choice: Choice, most: float, question: Question, simulations: Simulations, *, is_best: bool) -> bool:
    """Whether there is the budget for three simulations near there, which is what it takes when all goes well.

    For the best layout there always is where they are short.
    """
    asked = question.at_load(max(most, question.goal.least))
    requests = 3 * requests_of(score_layout(asked, choice.layout), asked.goal)
    return simulations.budget.affords(requests, Stage.MOST) or (is_best and requests <= SHORT)


def _capacity(most: float, goal: Goal, *, simulated: bool) -> Capacity:
    if goal.users is None:
        return Capacity(rate=most, simulated=simulated)
    return Capacity(users=round(most), simulated=simulated)


def sizes_of(choice: Choice) -> frozenset[tuple[int, int]]:
    """The tensor- and pipeline-parallel sizes of its replicas."""
    return frozenset((one.tensor_parallel, one.pipeline_parallel) for one in choice.layout.replicas)


def best_of_each_size(choices: Sequence[Choice]) -> list[Choice]:
    """The same choices: first the best of each size of replicas, in their order, then the others.

    Under another load one of another size may be ahead; one more or one fewer replica of the same size hardly is.
    """
    heads = _heads(choices)
    return sorted(choices, key=lambda choice: heads[sizes_of(choice)] is not choice)
