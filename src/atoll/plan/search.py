"""Enumerate, score, rank -> Choice: the best first, the rest behind, and what was rejected and why.

1. Every split that the engine cannot do, or that does not fit, is rejected with its reason.
2. The others get their flags by formula: batch sizes, context limit.
3. `measure`, when it is handed in, simulates the candidates in the order of the formula, as many as can still win. Of
   the best of them it tries other flags and the routers' policies.
4. For the best few the load is varied, which shows how many users each carries and where the ranking flips.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, log2, sqrt

from atoll.cost.memory import MemoryFit
from atoll.inventory.islands import islands
from atoll.plan.enumerate import (
    OPEN,
    Candidate,
    Rejected,
    Split,
    Wanted,
    list_candidates,
    list_splits,
    pin,
    pipeline_splits,
    shape_name,
)
from atoll.plan.goal import Goal
from atoll.plan.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.plan.limits import VLLM, EngineLimits
from atoll.plan.score import Prediction, equal_counts, equal_rates, score_stations
from atoll.plan.weights import router_weights
from atoll.plan.workbench import Workbench, common_flags
from atoll.units import show_bytes

Measure = Callable[[Layout, Goal, float], Prediction]  # the float: about how many seconds an answer takes

PLAIN = EngineFlags()
TIE = 0.01  # relative; below it two predictions are the same and the simpler layout wins
TOKEN_BUDGETS = (2048, 4096, 8192, 16384)  # max_num_batched_tokens that are tried
HOPELESS = 2.5  # times the best formula cost: such a candidate is not simulated
MOST_SIMULATED = 16
LEADERS = 3  # choices whose other flags and routers' policies are simulated
CURVES = 4  # layouts whose load is varied
MOST_USERS = 4096  # where the search for the most users ends
CROWD = 300  # users beyond whom only the load that was asked for is simulated, with the flags of the formula


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A value of an option that was simulated beside the one that the choice then had."""

    option: str  # vLLM's name for it, or `policy`
    value: str
    was: str  # the value that was there before
    predicted: Prediction
    instead_of: Prediction  # with that one
    taken: bool = False
    needs_leave: bool = False  # never taken unless the user allows it


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A layout with its flags and router, and what it is predicted to do."""

    layout: Layout
    predicted: Prediction
    formula: Prediction  # the same by formula; equal to `predicted` when nothing was simulated
    warnings: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()  # other values of its options that were simulated
    most_users: int | None = (
        None  # users (or requests per second x 100) within the targets; None: not asked or not known
    )

    @property
    def name(self) -> str:
        return self.layout.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One layout under rising load: (users or rate, prediction)."""

    name: str
    points: tuple[tuple[float, Prediction], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """From `load` on, `after` is better than `before`."""

    load: float
    before: str
    after: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What a search found. `choices` is empty when nothing fits."""

    goal: Goal
    choices: tuple[Choice, ...]
    illegal: tuple[Rejected, ...]  # splits that the engine cannot do
    too_big: tuple[Rejected, ...]  # splits whose part does not fit into a card, or layouts that the box has no room for
    curves: tuple[Curve, ...] = ()
    flips: tuple[Flip, ...] = ()

    @property
    def best(self) -> Choice:
        return self.choices[0]

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        return (*self.illegal, *self.too_big)


def search_layouts(
    workbench: Workbench,
    goal: Goal,
    *,
    model: str,
    limits: EngineLimits = VLLM,
    wanted: Wanted = OPEN,
    flags: EngineFlags = PLAIN,
    measure: Measure | None = None,
    vary_load: bool = True,
) -> Search:
    """The layouts of a model on a box, best first.

    Args:
        workbench: box, cards and model.
        goal: the traffic and the targets.
        model: what the layouts call the model.
        limits: how the engine can split it.
        wanted: what the user has settled.
        flags: options that are given; those left out are chosen.
        measure: simulates one layout under a goal; None: the formula alone.
        vary_load: whether to look at other loads too.
    """
    return _Run(
        workbench=workbench, goal=goal, model=model, limits=limits, wanted=wanted, flags=flags, measure=measure
    ).search(vary_load=vary_load)


@dataclass(kw_only=True)
class _Run:
    workbench: Workbench
    goal: Goal
    model: str
    limits: EngineLimits
    wanted: Wanted
    flags: EngineFlags
    measure: Measure | None
    _measured: dict[tuple[str, Goal], Prediction] = field(default_factory=dict)

    def search(self, *, vary_load: bool) -> Search:
        candidates, illegal, too_big = self._candidates()
        tried = [self._draft(candidate, self.goal) for candidate in candidates]
        drafts = sorted((draft for draft in tried if draft is not None), key=self._order)
        choices = self._simulate(drafts)
        if not choices or not vary_load or self._is_crowd:
            return Search(goal=self.goal, choices=tuple(choices), illegal=illegal, too_big=too_big)
        curves = self._curves(choices[:CURVES])
        choices = [
            replace(choice, most_users=self._most_users(choice, simulate=place == 0))
            for place, choice in enumerate(choices)
        ]
        return Search(
            goal=self.goal,
            choices=tuple(choices),
            illegal=illegal,
            too_big=too_big,
            curves=curves,
            flips=tuple(find_flips(curves, self.goal)),
        )

    @property
    def _is_crowd(self) -> bool:
        """So many users that each simulation takes long; the formula alone never does."""
        return self.measure is not None and self.goal.is_above(CROWD)

    # What can be at all

    def _candidates(self) -> tuple[list[Candidate], tuple[Rejected, ...], tuple[Rejected, ...]]:
        """Layouts that can be, splits that the engine cannot do, and what does not fit."""
        box, card = self.workbench.box, self.workbench.card
        splits, illegal = list_splits(card, self.workbench.kinds, self.limits, wanted=self.wanted)
        fitting, too_big = self._sort_out(splits)
        if not fitting and splits and self.limits.pipeline_parallel:
            staged = tuple(pipeline_splits(splits, most=len(box.gpus), layers=card.layers))
            fitting, more = self._sort_out(staged)
            too_big = (*more, *too_big)
        found = list(list_candidates(box, fitting, wanted=self.wanted))
        mixed = [candidate for candidate in found if self._mixes_kinds(candidate)]
        possible = [candidate for candidate in found if candidate not in mixed]
        mixed_up = (Rejected(name=one.name, why=_MIXED) for one in mixed)
        return possible, (*illegal, *self._no_room(fitting)), (*too_big, *mixed_up)

    def _sort_out(self, splits: Sequence[Split]) -> tuple[tuple[Split, ...], tuple[Rejected, ...]]:
        """Those that fit with some flags, and the others with the reason."""
        fitting: list[Split] = []
        rejected: list[Rejected] = []
        for split in splits:
            why = self._why_not(split)
            if why is None:
                fitting.append(split)
            else:
                rejected.append(Rejected(name=split.name, why=why))
        return tuple(fitting), tuple(rejected)

    def _why_not(self, split: Split) -> str | None:
        """The reason when even small batches leave no room; sized by the roomiest cards of the box."""
        candidate = pin(self.workbench.box, (split,))
        replica = candidate.replicas[0]
        fit = self._roomiest(replica, "fp8" if self._may_quantise_kv() else None)
        if not fit.fits:
            return f"{(fit.reason or '').rstrip('.')}."
        if fit.kv_tokens >= self.goal.longest:
            return None
        packed = self._can_quantise_kv() and self._roomiest(replica, "fp8").kv_tokens >= self.goal.longest
        return (
            f"The context is too long: a request of {self.goal.longest:,} tokens does not fit into the"
            f" {fit.kv_tokens:,} tokens of KV cache that {show_bytes(fit.kv_bytes)} on each GPU hold"
            f"{'; with --kv-cache-dtype fp8 it would' if packed else ''}."
        )

    def _roomiest(self, replica: Replica, kv_dtype: str | None) -> MemoryFit:
        fits = (self.workbench.fit(replica, flags) for flags in self._flag_choices(1, kv_dtype))
        return max(fits, key=lambda fit: fit.kv_tokens)

    def _mixes_kinds(self, candidate: Candidate) -> bool:
        kinds = self.workbench.kinds
        return any(len({kinds[gpu].name for gpu in replica.gpus}) > 1 for replica in candidate.replicas)

    def _no_room(self, fitting: Sequence[Split]) -> Iterator[Rejected]:
        """`--replicas 5` on four GPUs."""
        wanted, most = self.wanted.replicas, len(self.workbench.box.gpus)
        if wanted is None or not fitting:
            return
        least = min(fitting, key=lambda split: split.gpus)
        if wanted * least.gpus > most:
            why = f"{wanted} replicas need at least {wanted * least.gpus} GPUs; this box has {most}."
            yield Rejected(name=shape_name((least,) * wanted), why=why)

    # Flags by formula

    def _draft(self, candidate: Candidate, goal: Goal) -> Choice | None:
        """The candidate under the flags that the formula likes best; None when no flags make it hold one request.

        An fp8 KV cache, where it is allowed, is taken only if the plain one has no room for all users.
        """
        users = self._users_of_a_replica(candidate, goal)
        best = self._best_flags(candidate, self._flag_choices(users), goal)
        if not self._may_quantise_kv() or (best is not None and self._has_room(best, users, goal)):
            return best
        packed = self._best_flags(candidate, self._flag_choices(users, "fp8"), goal)
        return min((one for one in (best, packed) if one is not None), key=lambda c: self._order(c, goal), default=None)

    def _best_flags(self, candidate: Candidate, choices: Iterator[EngineFlags], goal: Goal) -> Choice | None:
        drafts = (self._with_flags(candidate, flags, goal) for flags in choices)
        return min((one for one in drafts if one is not None), key=lambda c: self._order(c, goal), default=None)

    def _has_room(self, choice: Choice, users: int, goal: Goal) -> bool:
        """Whether the KV cache of every replica holds its users' requests at their full length."""
        fits = (self.workbench.fit(replica, choice.layout.flags) for replica in choice.layout.replicas)
        return all(fit.kv_tokens >= users * goal.longest for fit in fits)

    def _users_of_a_replica(self, candidate: Candidate, goal: Goal) -> int:
        if goal.users is not None:
            return ceil(goal.users / len(candidate.replicas))
        plain = self._with_flags(candidate, self.flags, goal)
        if plain is None or plain.predicted.saturated:
            return 256
        in_flight = plain.predicted.e2e_s.mean * plain.predicted.requests_per_s / len(candidate.replicas)
        return ceil(in_flight + 4 * sqrt(in_flight))  # Poisson: four standard deviations

    def _flag_choices(self, users: int, kv_dtype: str | None = None) -> Iterator[EngineFlags]:
        """Batch sizes that suit so many users a replica; those that the user gave stay."""
        seqs = seats_for(users)
        for budget in TOKEN_BUDGETS:
            yield self.flags.replace(
                max_num_seqs=self.flags.max_num_seqs or seqs,
                max_num_batched_tokens=self.flags.max_num_batched_tokens or max(budget, seqs),
                kv_cache_dtype=kv_dtype or self.flags.kv_cache_dtype,
                dtype=self._dtype(),
            )

    def _may_quantise_kv(self) -> bool:
        return self.wanted.fp8_cache and self._can_quantise_kv()

    def _can_quantise_kv(self) -> bool:
        """fp8 keys and values: on cards that have fp8 (8.9 on), unless checkpoint or user have settled it."""
        settled = self.flags.kv_cache_dtype != "auto" or self.workbench.card.quantisation.kv_dtype is not None
        return not settled and all(float(kind.compute_capability) >= 8.9 for kind in self.workbench.kinds.values())

    def _dtype(self) -> str:
        """Below compute capability 8.0 vLLM refuses bfloat16 and asks for `--dtype half`."""
        old = any(float(kind.compute_capability) < 8.0 for kind in self.workbench.kinds.values())
        return "half" if old and self.flags.dtype == "auto" else self.flags.dtype

    def _with_flags(self, candidate: Candidate, flags: EngineFlags, goal: Goal) -> Choice | None:
        bench = self.workbench
        if not all(bench.fit(replica, flags).fits for replica in candidate.replicas):
            return None
        limited = common_flags(bench, candidate.replicas, flags)
        if (limited.max_model_len or bench.card.max_context) < goal.longest:
            return None
        policy = self.wanted.policy or Policy.LEAST_CONN
        layout = Layout(
            name=candidate.name,
            model=self.model,
            box=bench.box,
            replicas=candidate.replicas,
            router=Router(policy=policy),
            flags=limited,
            engine_version=bench.engine_version,
        )
        predicted = self._formula(layout, goal)
        return Choice(
            layout=layout, predicted=predicted, formula=predicted, warnings=tuple(self._warnings(candidate, flags))
        )

    def _formula(self, layout: Layout, goal: Goal) -> Prediction:
        stations = [self.workbench.station(replica, layout.flags) for replica in layout.replicas]
        if layout.router.policy in {Policy.ROUND_ROBIN, Policy.PER_ISLAND}:
            shares = equal_rates(stations, goal, router_weights(layout))
        else:
            shares = equal_counts(stations)
        return score_stations(stations, goal, shares=shares)

    # Simulation of those that may win

    def _simulate(self, drafts: Sequence[Choice]) -> list[Choice]:
        if self.measure is None or not drafts:
            return list(drafts)
        best = drafts[0].formula.cost(self.goal)
        near = [c for c in drafts if c.formula.cost(self.goal) <= HOPELESS * best][:MOST_SIMULATED]
        rest = [choice for choice in drafts if choice not in near]
        measured = sorted((self._measure(choice) for choice in near), key=self._order)
        leaders = 0 if self._is_crowd else LEADERS
        lead = [self._tune(choice) if place < leaders else choice for place, choice in enumerate(measured)]
        lead.sort(key=self._order)
        return lead + rest

    def _measure(self, choice: Choice) -> Choice:
        return replace(choice, predicted=self._predict(choice.layout, self.goal))

    def _predict(self, layout: Layout, goal: Goal) -> Prediction:
        if self.measure is None:
            return self._formula(layout, goal)
        key = (layout.to_json(), goal)
        if key not in self._measured:
            self._measured[key] = self.measure(layout, goal, min(self._formula(layout, goal).e2e_s.mean, 3600.0))
        return self._measured[key]

    def _tune(self, choice: Choice) -> Choice:
        """One option after the other is tried with other values; what serves clearly better is kept."""
        choice = self._try(choice, "max_num_batched_tokens", self._other_budgets(choice))
        choice = self._try(choice, "max_num_seqs", self._other_seats(choice))
        choice = self._try(choice, "kv_cache_dtype", self._other_caches(choice), needs_leave=not self.wanted.fp8_cache)
        return self._try(choice, "policy", self._other_policies(choice))

    def _try(
        self, choice: Choice, option: str, others: Sequence[tuple[str, Choice]], *, needs_leave: bool = False
    ) -> Choice:
        found = [
            (value, replace(other, predicted=self._predict(other.layout, self.goal), trials=choice.trials))
            for value, other in others
        ]
        best = choice
        for _, other in [] if needs_leave else found:
            best = other if self._is_clearly_better(other, best) else best
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
        return replace(best, trials=(*choice.trials, *trials))

    def _is_clearly_better(self, one: Choice, other: Choice) -> bool:
        """Within the targets when the other is not, or better by more than two predictions count as the same."""
        meets, met = one.predicted.meets(self.goal), other.predicted.meets(self.goal)
        cheaper = one.predicted.cost(self.goal) * (1 + TIE) < other.predicted.cost(self.goal)
        return meets if meets != met else cheaper

    def _with_option(self, choice: Choice, **options: object) -> Choice | None:
        """The same replicas and router with other flags; None when these leave no room for a request."""
        flags = choice.layout.flags.replace(max_model_len=self.flags.max_model_len, **options)
        made = self._with_flags(Candidate(name=choice.name, replicas=choice.layout.replicas), flags, self.goal)
        if made is None:
            return None
        return replace(made, layout=with_policy(made.layout, choice.layout.router.policy))

    def _other_values(self, choice: Choice, option: str, values: Sequence[object]) -> list[tuple[str, Choice]]:
        made = ((str(value), self._with_option(choice, **{option: value})) for value in values)
        return [(value, other) for value, other in made if other is not None]

    def _other_budgets(self, choice: Choice) -> list[tuple[str, Choice]]:
        """The other budgets of tokens a step, as far as they hold a token of every sequence."""
        if self.flags.max_num_batched_tokens is not None:
            return []
        now, least = choice.layout.flags.max_num_batched_tokens, choice.layout.flags.max_num_seqs or 1
        values = [budget for budget in TOKEN_BUDGETS if budget != now and budget >= least]
        return self._other_values(choice, "max_num_batched_tokens", values)

    def _other_seats(self, choice: Choice) -> list[tuple[str, Choice]]:
        """Half as many sequences at once, and twice."""
        now = choice.layout.flags.max_num_seqs
        if self.flags.max_num_seqs is not None or now is None:
            return []
        return self._other_values(
            choice, "max_num_seqs", [seats for seats in (now // 2, now * 2) if 1 <= seats <= 1024]
        )

    def _other_caches(self, choice: Choice) -> list[tuple[str, Choice]]:
        if not self._can_quantise_kv() or choice.layout.flags.kv_cache_dtype == "fp8":
            return []
        return self._other_values(choice, "kv_cache_dtype", ["fp8"])

    def _other_policies(self, choice: Choice) -> list[tuple[str, Choice]]:
        """The router's other policies that nginx has; by island only where that is not the same as round robin."""
        if len(choice.layout.replicas) == 1 or self.wanted.policy is not None:
            return []
        weights = router_weights(with_policy(choice.layout, Policy.PER_ISLAND))
        others = [Policy.ROUND_ROBIN, Policy.RANDOM_TWO] + ([Policy.PER_ISLAND] if len(set(weights)) > 1 else [])
        return [(str(policy), replace(choice, layout=with_policy(choice.layout, policy))) for policy in others]

    def _order(self, choice: Choice, goal: Goal | None = None) -> tuple[object, ...]:
        """Within the targets first; then by cost, where a difference below TIE goes to fewer GPUs a replica."""
        goal = goal or self.goal
        cost = choice.predicted.cost(goal)
        step = round(log2(cost) / log2(1 + TIE)) if cost > 0 else 0
        fp8 = choice.layout.flags.kv_cache_dtype == "fp8"
        budget = choice.layout.flags.max_num_batched_tokens or 0
        gpus = sum(len(replica.gpus) for replica in choice.layout.replicas)
        default = abs(log2(max(1, budget) / 8192))
        return (not choice.predicted.meets(goal), step, fp8, gpus, default, cost)

    # Other loads

    def _curves(self, choices: Sequence[Choice]) -> tuple[Curve, ...]:
        loads = _loads(self.goal)
        return tuple(
            Curve(name=choice.name, points=tuple((load, self._at_load(choice, load)) for load in loads))
            for choice in choices
        )

    def _at_load(self, choice: Choice, load: float) -> Prediction:
        """The choice with so many sequences at once as suit this load."""
        goal = self.goal.with_load(load)
        if load == (self.goal.users or self.goal.rate):
            return choice.predicted
        tuned = self._draft_as(choice, goal)
        layout = choice.layout if tuned is None else with_policy(tuned.layout, choice.layout.router.policy)
        return self._predict(layout, goal)

    def _draft_as(self, choice: Choice, goal: Goal) -> Choice | None:
        """The choice's replicas under another load: max_num_seqs is free again, the rest stays as it was chosen."""
        candidate = Candidate(name=choice.name, replicas=choice.layout.replicas)
        flags = choice.layout.flags
        seats = self.flags.max_num_seqs or seats_for(self._users_of_a_replica(candidate, goal))
        flags = flags.replace(
            max_num_seqs=seats,
            max_num_batched_tokens=self.flags.max_num_batched_tokens or max(flags.max_num_batched_tokens or 0, seats),
            max_model_len=self.flags.max_model_len,
        )
        return self._with_flags(candidate, flags, goal)

    def _most_users(self, choice: Choice, *, simulate: bool) -> int | None:
        """The most back-to-back users within the targets, each number with as many sequences at once as suit it.

        Found by formula; simulation then moves it by an eighth at a time to where the targets are just met.
        """
        if not self.goal.has_targets or self.goal.users is None:
            return None
        most = _last_true(
            lambda users: self._carries(choice, users, simulate=False), start=self.goal.users, most=MOST_USERS
        )
        if not simulate or self.measure is None:
            return most
        return _nudge(lambda users: self._carries(choice, users, simulate=True), max(1, most))

    def _carries(self, choice: Choice, users: int, *, simulate: bool) -> bool:
        goal = self.goal.with_load(users)
        draft = self._draft_as(choice, goal)
        if draft is None or not simulate:
            return draft is not None and draft.predicted.meets(goal)
        return self._predict(with_policy(draft.layout, choice.layout.router.policy), goal).meets(goal)

    # What should be known

    def _warnings(self, candidate: Candidate, flags: EngineFlags) -> Iterator[str]:
        yield from _crossing_warnings(self.workbench, candidate)
        if self.wanted.policy is not None and not self.wanted.policy.renders:
            yield f"nginx cannot do {self.wanted.policy}; it can be simulated only."
        if flags.kv_cache_dtype == "fp8" and self.flags.kv_cache_dtype != "fp8":
            yield "The KV cache is held in fp8, as was allowed, which rounds them; check the answers' quality."


_MIXED = "A replica would stand on cards of different kinds, and the slowest would hold up the others."


def power_of_two(number: float) -> int:
    """The next one from this number up: 37.5 gives 64."""
    return 1 << (ceil(number) - 1).bit_length()


def seats_for(users: int) -> int:
    """A max_num_seqs with some room above so many users of a replica: 30 get 64."""
    return min(power_of_two(max(8.0, 1.25 * users)), 1024)


def with_policy(layout: Layout, policy: Policy) -> Layout:
    return layout.replace(router=layout.router.replace(policy=policy))


def option_of(layout: Layout, option: str) -> str:
    """The value of a flag, or of `policy`, as it is written."""
    return str(layout.router.policy if option == "policy" else layout.flags.to_plain()[option])


def find_flips(curves: Sequence[Curve], goal: Goal) -> Iterator[Flip]:
    """Where the best layout changes as the load rises, interpolated between the loads that were looked at."""
    if len(curves) < 2:
        return
    loads = [load for load, _ in curves[0].points]
    leader: str | None = None
    for place in range(len(loads)):
        costs = {curve.name: curve.points[place][1].cost(goal) for curve in curves}
        best = min(costs, key=lambda name: costs[name])
        if leader is not None and best != leader and costs[best] < costs[leader] * (1 - TIE):
            yield Flip(load=_crossing(curves, goal, place, leader, best), before=leader, after=best)
            leader = best
        leader = leader or best
    return


def _crossing(curves: Sequence[Curve], goal: Goal, place: int, before: str, after: str) -> float:
    """The load at which the two cost the same, on a straight line through the ratios of two neighbouring loads."""
    points = {curve.name: curve.points for curve in curves}

    def ratio(at: int) -> float:
        return points[after][at][1].cost(goal) / points[before][at][1].cost(goal) - 1

    (low, _), (high, _) = points[before][place - 1], points[before][place]
    first, second = ratio(place - 1), ratio(place)
    if first <= 0 or first == second:
        return low
    return low + (high - low) * first / (first - second)


def _loads(goal: Goal) -> tuple[float, ...]:
    """The goal's load and others around it, doubling: 1 to 8 times the users, or a quarter to twice the rate."""
    if goal.users is None:
        assert goal.rate is not None
        return tuple(goal.rate * factor for factor in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0))
    most = max(64, goal.users * 4)
    doubled = [2**power for power in range(ceil(log2(most)) + 1)]
    others = [users for users in doubled if not 0.7 < users / goal.users < 1.4]
    return tuple(float(users) for users in sorted([*others, goal.users]))


def _last_true(holds: Callable[[int], bool], *, start: int, most: int) -> int:
    """The largest number for which `holds` is true, taking it to be true below and false above; 0 when none."""
    low, high = 0, 1
    if holds(start):
        low, high = start, start * 2
        while high < most and holds(high):
            low, high = high, high * 2
    else:
        high = start
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _nudge(holds: Callable[[int], bool], start: int, *, steps: int = 8) -> int:
    """From `start` up or down by eighths to the last number for which `holds`; 0 when none was met."""
    number = start
    up = holds(start)
    for _ in range(steps):
        following = max(number + 1, number * 9 // 8) if up else min(number - 1, number * 7 // 8)
        if following < 1:
            return 0
        if holds(following) != up:
            return number if up else following
        number = following
    return number if up else 0


def _crossing_warnings(workbench: Workbench, candidate: Candidate) -> Iterator[str]:
    """A tensor-parallel group over several NVLink islands, where smaller groups would stay inside."""
    home = {gpu: island for island in islands(workbench.box) for gpu in island}
    largest = max(len(island) for island in home.values())
    for replica in candidate.replicas:
        size = replica.tensor_parallel
        for start in range(0, len(replica.gpus), size):
            group = replica.gpus[start : start + size]
            crossed = sorted({home[gpu] for gpu in group})
            if size > 1 and len(crossed) > 1 and largest > 1:
                yield (
                    f"GPUs {_ids(group)} cross from one NVLink island to another"
                    f" ({' and '.join(_ids(island) for island in crossed)}): their all-reduce goes over PCIe, while"
                    f" groups of up to {largest} stay on NVLink."
                )


def _ids(gpus: Sequence[int]) -> str:
    return ", ".join(str(gpu) for gpu in sorted(gpus))
