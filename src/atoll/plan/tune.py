"""Step 3: other flags and the router's other policies are simulated for the best few; what serves better is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from atoll.layout.layout import Layout, Policy
from atoll.layout.weights import router_weights
from atoll.plan.budget import Budget, Stage
from atoll.plan.choice import Choice, Trial
from atoll.plan.draft import TOKEN_BUDGETS, Question, with_options, with_policy
from atoll.plan.goal import Goal
from atoll.plan.loads import TIE
from atoll.plan.rank import rank_choices
from atoll.plan.simulate import Simulations, requests_of

LEADERS = 3  # choices whose other flags and routers' policies are simulated

Others = Sequence[tuple[str, Choice]]  # other values of an option, and the choice with each


def tune_leaders(choices: Sequence[Choice], question: Question, simulations: Simulations) -> tuple[Choice, ...]:
    """The same choices, the best of the simulated ones with the flags and policy that serve best; best first again."""
    if not simulations.are_possible:
        return tuple(choices)
    simulated = [one for one in choices if one.predicted.simulated]
    rest = [one for one in choices if not one.predicted.simulated]
    lead = [_tune(one, question, simulations) for one in simulated[:LEADERS]] + simulated[LEADERS:]
    _say_untuned(lead, simulations.budget)
    return (*rank_choices(lead, question.goal, question.workbench), *rest)


def _tune(choice: Choice, question: Question, simulations: Simulations) -> Choice:
    """One option after the other is tried with other values; what serves clearly better is kept."""
    for option, others_of in _OPTIONS.items():
        choice = _try(choice, option, others_of(choice, question), question, simulations)
    return choice


def _try(choice: Choice, option: str, others: Others, question: Question, simulations: Simulations) -> Choice:
    """The choice with the best of the values. Values that need the user's leave are shown but not taken without."""
    requests = sum(requests_of(other.formula, question.goal) for _, other in others)
    if not simulations.budget.affords(requests, Stage.TUNING):
        return replace(choice, untried=(*choice.untried, option))
    needs_leave = option == "kv_cache_dtype" and not question.wanted.fp8_cache
    found = [(value, replace(other, predicted=simulations.predict(other.layout, question))) for value, other in others]
    best = choice
    for _, other in [] if needs_leave else found:
        best = other if _is_clearly_better(other, best, question.goal) else best
    trials = tuple(
        Trial(
            option=option,
            value=value,
            was=option_of(choice.layout, option),
            predicted=other.predicted,
            instead_of=choice.predicted,
            taken=other is best,
            needs_leave=needs_leave,
        )
        for value, other in found
    )
    return replace(best, trials=(*choice.trials, *trials), untried=choice.untried)


def _is_clearly_better(one: Choice, other: Choice, goal: Goal) -> bool:
    """Within the targets when the other is not, or better by more than two predictions count as the same.

    Fewer seats may shorten answers by some per cent, for users who then wait for one: that is no better, as in the
    ranking. Eight A800 with 64 seats each gave 600 users their answers a twentieth sooner, and first tokens after 2 s.
    """
    meets, met = one.predicted.meets(goal), other.predicted.meets(goal)
    cheaper = one.predicted.times(other.predicted, goal) * (1 + TIE) < 1 and not other.predicted.is_steadier(
        one.predicted, goal
    )
    return meets if meets != met else cheaper


def _other_budgets(choice: Choice, question: Question) -> Others:
    """The other budgets of tokens a step, as far as they hold a token of every sequence."""
    if question.flags.max_num_batched_tokens is not None:
        return []
    now, least = choice.layout.flags.max_num_batched_tokens, choice.layout.flags.max_num_seqs or 1
    values = [budget for budget in TOKEN_BUDGETS if budget != now and budget >= least]
    return _with_values(choice, question, "max_num_batched_tokens", values)


def _other_seats(choice: Choice, question: Question) -> Others:
    """Half as many sequences at once, and twice."""
    now = choice.layout.flags.max_num_seqs
    if question.flags.max_num_seqs is not None or now is None:
        return []
    values = [seats for seats in (now // 2, now * 2) if 1 <= seats <= 1024]
    made = _with_values(choice, question, "max_num_seqs", values)
    return [(value, other) for value, other in made if other.layout.flags.max_num_seqs != now]  # no room for twice


def _other_caches(choice: Choice, question: Question) -> Others:
    if not question.can_quantise_kv or choice.layout.flags.kv_cache_dtype == "fp8":
        return []
    return _with_values(choice, question, "kv_cache_dtype", ["fp8"])


def _other_policies(choice: Choice, question: Question) -> Others:
    """The router's other policies that nginx has; by island only where that is not the same as round robin."""
    if len(choice.layout.replicas) == 1 or question.wanted.policy is not None:
        return []
    weights = router_weights(with_policy(choice.layout, Policy.PER_ISLAND))
    others = [Policy.ROUND_ROBIN, Policy.RANDOM_TWO] + ([Policy.PER_ISLAND] if len(set(weights)) > 1 else [])
    others += affine_policies(question)
    return [(str(policy), replace(choice, layout=with_policy(choice.layout, policy))) for policy in others]


def affine_policies(question: Question) -> list[Policy]:
    """Those that find cached prompts again: where users go on with a session, or whole prompts come again.

    A head that all share is soon cached by every replica, whoever gets the request.
    """
    load = question.goal.workload
    if not question.flags.enable_prefix_caching:
        return []
    by_session = [Policy.SESSION_AFFINITY] if load.turns > 1 else []
    return by_session + ([Policy.PREFIX_AFFINITY] if load.turns > 1 or load.distinct_prompts is not None else [])


_OPTIONS: Mapping[str, Callable[[Choice, Question], Others]] = {
    "max_num_batched_tokens": _other_budgets,
    "max_num_seqs": _other_seats,
    "kv_cache_dtype": _other_caches,
    "policy": _other_policies,
}


def _with_values(choice: Choice, question: Question, option: str, values: Sequence[object]) -> Others:
    made = ((str(value), with_options(choice, question, **{option: value})) for value in values)
    return [(value, other) for value, other in made if other is not None]


def option_of(layout: Layout, option: str) -> str:
    """The value of a flag, or of `policy`, as it is written."""
    return str(layout.router.policy if option == "policy" else layout.flags.to_plain()[option])


def _say_untuned(choices: Sequence[Choice], budget: Budget) -> None:
    """Which options were not tried with other values."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for choice in choices:
        alike.setdefault(choice.untried, []).append(choice.name)
    for options, names in alike.items():
        if options:
            words = ", ".join(option.replace("_", "-") for option in options)
            budget.cuts.append(f"Not tried with other values for {', '.join(names)}: {words}.")
