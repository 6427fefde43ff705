"""Enumerate, score, rank -> Choice: the best first, the rest behind, and what was rejected and why.

1. Every split that the engine cannot do, or that does not fit, is rejected with its reason.
2. The others get their flags by formula: batch sizes, context limit.
3. `measure`, when it is handed in, simulates the candidates in the order of the formula, as many as can still win. Of
   the best of them it tries other flags and the routers' policies.
4. For the best few the load is varied, which shows how many users each carries and where the ranking flips.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, inf, log2, sqrt
from types import MappingProxyType

from atoll.cost.memory import MemoryFit
from atoll.engines.vllm.splits import VLLM, EngineLimits
from atoll.inventory.islands import islands
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.layout.weights import router_weights
from atoll.plan.band import may_be_better
from atoll.plan.choice import Capacity, Choice, Curve, Search, Trial
from atoll.plan.effort import SHORT, Effort, Stage, in_flight_of, sample_of
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
from atoll.plan.loads import TIE, find_flips, find_most, loads_around
from atoll.plan.score import Prediction, equal_counts, equal_rates, score_stations
from atoll.plan.workbench import Workbench, common_flags
from atoll.units import show_bytes

Measure = Callable[[Layout, Goal, Prediction], Prediction]  # simulates; is told what the formula expects

PLAIN = EngineFlags()
TOKEN_BUDGETS = (2048, 4096, 8192, 16384)  # max_num_batched_tokens that are tried
HOPELESS = 2.5  # times the best formula cost: such a candidate is not simulated
MOST_SIMULATED = 16
LEADERS = 3  # choices whose other flags and routers' policies are simulated
CURVES = 4  # layouts whose load is varied
MOST_USERS = 10_000  # that a plan is made for, and where the search for the most users ends
MOST_RATE = 10_000.0  # where the search for the most requests/s ends


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
    _effort: Effort = field(default_factory=Effort)
    _cuts: list[str] = field(default_factory=list)

    def search(self, *, vary_load: bool) -> Search:
        candidates, illegal, too_big = self._candidates()
        tried = [self._draft(candidate, self.goal) for candidate in candidates]
        drafts = sorted((draft for draft in tried if draft is not None), key=self._order)
        choices = self._simulate(drafts)
        curves: tuple[Curve, ...] = ()
        if choices and vary_load:
            curves = self._curves(choices)
            choices = self._with_most(choices, curves)
        return Search(
            goal=self.goal,
            choices=tuple(choices),
            illegal=illegal,
            too_big=too_big,
            curves=curves,
            flips=tuple(find_flips(curves, self.goal)),
            cuts=tuple(self._cuts),
        )

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
        if plain is None:
            return 256
        in_flight = in_flight_of(plain.predicted, goal) / len(candidate.replicas)
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
        limited = common_flags(bench, candidate.replicas, self._with_whole_experts(candidate, flags))
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

    def _with_whole_experts(self, candidate: Candidate, flags: EngineFlags) -> EngineFlags:
        """With expert parallelism where a replica's tensor-parallel size asks for it."""
        sizes = {replica.tensor_parallel for replica in candidate.replicas}
        needed = any(self.limits.why_whole_experts(self.workbench.card, size) for size in sizes)
        return flags.replace(enable_expert_parallel=True) if needed else flags

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
        chosen = self._affordable(near)
        rest = [choice for choice in drafts if choice not in chosen]
        measured = sorted((self._measure(choice) for choice in chosen), key=self._order)
        lead = [self._tune(choice) if place < LEADERS else choice for place, choice in enumerate(measured)]
        self._say_untuned(lead)
        lead.sort(key=self._order)
        return lead + rest

    def _affordable(self, near: Sequence[Choice]) -> Sequence[Choice]:
        """As many as there is effort for, and two in any case."""
        planned = Effort()
        for place, choice in enumerate(near):
            requests = self._requests(choice.formula, self.goal)
            if place >= 2 and not planned.affords(requests, Stage.RANKING):
                self._cuts.append(
                    f"So great a load takes long to simulate: of {len(near)} layouts that may win, the {place} that the"
                    " formula puts first were simulated."
                )
                return near[:place]
            planned.add(requests)
        return near

    def _requests(self, formula: Prediction, goal: Goal) -> int:
        """How many requests a simulation takes."""
        return sample_of(goal, formula).requests

    def _measure(self, choice: Choice) -> Choice:
        return replace(choice, predicted=self._predict(choice.layout, self.goal))

    def _predict(self, layout: Layout, goal: Goal) -> Prediction:
        formula = self._formula(layout, goal)
        if self.measure is None:
            return formula
        key = (layout.to_json(), goal)
        if key not in self._measured:
            self._effort.add(self._requests(formula, goal))
            self._measured[key] = self.measure(layout, goal, formula)
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
        requests = sum(self._requests(other.formula, self.goal) for _, other in others)
        if not self._effort.affords(requests, Stage.TUNING):
            return replace(choice, untried=(*choice.untried, option))
        found = [
            (
                value,
                replace(
                    other,
                    predicted=self._predict(other.layout, self.goal),
                    trials=choice.trials,
                    untried=choice.untried,
                ),
            )
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

    def _say_untuned(self, choices: Sequence[Choice]) -> None:
        """Which options were not tried with other values, for want of effort."""
        alike: dict[tuple[str, ...], list[str]] = {}
        for choice in choices:
            alike.setdefault(choice.untried, []).append(choice.name)
        for options, names in alike.items():
            if options:
                words = ", ".join(option.replace("_", "-") for option in options)
                self._cuts.append(f"Not tried with other values for {', '.join(names)}: {words}.")

    # Other loads

    def _curves(self, choices: Sequence[Choice]) -> tuple[Curve, ...]:
        """The best few under rising load; fewer of them, and up to lower loads, where there is no effort for all."""
        choices = [choice for choice in choices if choice.predicted.simulated or self.measure is None]
        choices = best_of_each_size(choices)[:CURVES]
        rates = [self._most_by_formula(choice) for choice in choices] if self.goal.users is None else []
        wanted = loads_around(self.goal, most_rate=max(rates, default=0.0))
        for count, loads in self._curve_plans(len(choices), wanted):
            if self._affords_curves(choices[:count], loads):
                if (count, loads) != (len(choices), wanted):
                    self._say_cut_curves(choices[:count], loads)
                return tuple(self._curve(choice, loads) for choice in choices[:count])
        self._cuts.append("Other loads were not looked at.")
        return ()

    def _curve_plans(self, most: int, wanted: tuple[float, ...]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """How many layouts at which loads, the best first: high loads are left out, then layouts, then every other."""
        least, lower = min(most, 2), [load for load in wanted if load <= self.goal.amount]
        for count in range(most, least - 1, -1):
            for end in range(len(wanted), len(lower) - 1, -1):
                yield count, wanted[:end]
        yield least, (*lower[-3::-2][::-1], self.goal.amount)

    def _affords_curves(self, choices: Sequence[Choice], loads: Sequence[float]) -> bool:
        if self.measure is None:
            return True
        goals = [self.goal.with_load(load) for load in loads if load != self.goal.amount]
        requests = sum(self._requests(self._formula(choice.layout, goal), goal) for choice in choices for goal in goals)
        return self._effort.affords(requests, Stage.CURVES)

    def _say_cut_curves(self, choices: Sequence[Choice], loads: Sequence[float]) -> None:
        names, load = ", ".join(choice.name for choice in choices), self.goal.with_load(loads[-1]).load
        self._cuts.append(f"Of other loads {len(loads) - 1} were looked at, up to {load}, for {names}.")

    def _curve(self, choice: Choice, loads: Sequence[float]) -> Curve:
        return Curve(name=choice.name, points=tuple((load, self._at_load(choice, load)) for load in loads))

    def _at_load(self, choice: Choice, load: float) -> Prediction:
        """The choice with so many sequences at once as suit this load."""
        if load == self.goal.amount:
            return choice.predicted
        goal = self.goal.with_load(load)
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

    # The most load within the targets

    def _with_most(self, choices: Sequence[Choice], curves: Sequence[Curve]) -> list[Choice]:
        """The most that each carries: by formula, and by simulation for those that somebody may want to choose."""
        if not self.goal.has_capacity:
            return list(choices)
        contenders = self._contenders(choices) if self.measure is not None else set()
        points = {curve.name: curve.points for curve in curves}
        found: list[Choice] = []
        cut: list[str] = []
        for choice in choices:
            most = self._most_by_formula(choice)
            simulated = choice.name in contenders and self._affords_most(choice, most, is_best=choice is choices[0])
            if simulated:
                known = {load: point.strain(self.goal) for load, point in points.get(choice.name, ())}
                most = self._most_by_simulation(choice, most, known)
            elif choice.name in contenders:
                cut.append(choice.name)
            found.append(replace(choice, most=self._capacity(most, simulated=simulated)))
        if cut:
            self._cuts.append(f"The most that {', '.join(cut)} carries is by formula.")
        return found

    def _contenders(self, choices: Sequence[Choice]) -> set[str]:
        """The best, those that may be better for all we know, and the best of each tensor-parallel size."""
        best = choices[0]
        near = {choice.name for choice in choices if may_be_better(choice, best, self.workbench, self.goal)}
        sizes = {sizes_of(choice) for choice in choices}
        return {best.name, *near, *(choice.name for choice in best_of_each_size(choices)[: len(sizes)])}

    def _most_by_formula(self, choice: Choice) -> float:
        """The most users or requests per second, each number with as many sequences at once as suit it."""

        def strain(load: float) -> float:
            draft = self._draft_as(choice, self.goal.with_load(load))
            return inf if draft is None else draft.predicted.strain(self.goal)

        return self._find_most(strain, start=self.goal.amount)

    def _most_by_simulation(self, choice: Choice, start: float, known: Mapping[float, float]) -> float:
        """The same from where the formula sees it; `known` are loads that were simulated already."""

        def strain(load: float) -> float:
            return self._at_load(choice, load).strain(self.goal)

        return self._find_most(strain, start=max(start, self.goal.least), known=known)

    def _find_most(
        self, strain: Callable[[float], float], *, start: float, known: Mapping[float, float] = MappingProxyType({})
    ) -> float:
        whole = self.goal.users is not None
        return find_most(strain, start=start, most=MOST_USERS if whole else MOST_RATE, whole=whole, known=known)

    def _affords_most(self, choice: Choice, most: float, *, is_best: bool) -> bool:
        """Whether there is the effort for three simulations near there, which is what it takes when all goes well.

        For the best layout there always is where they are short.
        """
        goal = self.goal.with_load(max(most, self.goal.least))
        requests = 3 * self._requests(self._formula(choice.layout, goal), goal)
        return self._effort.affords(requests, Stage.MOST) or (is_best and requests <= SHORT)

    def _capacity(self, most: float, *, simulated: bool) -> Capacity:
        if self.goal.users is None:
            return Capacity(rate=most, simulated=simulated)
        return Capacity(users=round(most), simulated=simulated)

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


def sizes_of(choice: Choice) -> frozenset[tuple[int, int]]:
    """The tensor- and pipeline-parallel sizes of its replicas."""
    return frozenset((one.tensor_parallel, one.pipeline_parallel) for one in choice.layout.replicas)


def best_of_each_size(choices: Sequence[Choice]) -> list[Choice]:
    """The same choices: first the best of each size of replicas, in their order, then the others.

    Under another load one of another size may be ahead; one more or one fewer replica of the same size hardly is.
    """
    first = {sizes_of(choice): choice for choice in reversed(choices)}
    return sorted(choices, key=lambda choice: first[sizes_of(choice)] is not choice)


def option_of(layout: Layout, option: str) -> str:
    """The value of a flag, or of `policy`, as it is written."""
    return str(layout.router.policy if option == "policy" else layout.flags.to_plain()[option])


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
