"""Box, model and load in, layouts out: the formula for all of them, the simulator for those that may win."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

from atoll.analyse.band import means_of, ratios_of
from atoll.cost.band import relative_ratio
from atoll.cost.memory import fit_memory
from atoll.cost.profile import MachineProfile
from atoll.engines.spec import DEFAULT_ENGINE, EngineSpec
from atoll.errors import InputError, NothingFits
from atoll.inventory.box import Box
from atoll.inventory.catalog import GpuKind, all_gpus, find_gpu
from atoll.layout.layout import ENGINE_VERSION, EngineFlags
from atoll.model.card import ModelCard
from atoll.model.read import read_model
from atoll.outside.files import write_whole
from atoll.plan.band import choice_band
from atoll.plan.budget import CONFIRMING, WHOLE
from atoll.plan.capacity import MOST_USERS
from atoll.plan.choice import Capacity, Choice, Search, Trial
from atoll.plan.draft import PLAIN
from atoll.plan.enumerate import OPEN, Rejected, Wanted
from atoll.plan.explain import (
    explain_band,
    explain_choice,
    explain_economy,
    explain_eight_bits,
    explain_flips,
    explain_seats,
    is_near_best,
    step_parts,
)
from atoll.plan.goal import Favour, Goal
from atoll.plan.loads import FINE
from atoll.plan.search import search_layouts
from atoll.plan.simulate import Watch, unwatched
from atoll.plan.workbench import Workbench
from atoll.report.crossover import crossover_chart
from atoll.report.vega import chart_png, chart_svg
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload
from atoll.workflows.boxes import named_box
from atoll.workflows.simulator import Simulator


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search with what is needed to show it."""

    search: Search
    card: ModelCard
    workbench: Workbench

    @property
    def best(self) -> Choice:
        return self.search.best


def plan_box(
    *,
    model: str,
    goal: Goal,
    capture: str | None = None,
    gpu: str | None = None,
    gpus: int | None = None,
    wanted: Wanted = OPEN,
    flags: EngineFlags = PLAIN,
    engine: str = DEFAULT_ENGINE,
    engine_version: str = ENGINE_VERSION,
    simulate: bool = True,
    vary_load: bool = True,
    profile: MachineProfile | None = None,
    watch: Watch = unwatched,
) -> Plan:
    """Plan a model on the box of `--box`, `--gpu` and `--gpus`.

    Args:
        model: see model.read.read_model.
        goal: the traffic and the targets.
        capture: a capture of `nvidia-smi topo -m`, or a box document.
        gpu: the cards' kind.
        gpus: how many cards, without a capture.
        wanted: what is settled already: tensor-parallel size, replicas, policy.
        flags: engine options that are given; the others are chosen.
        engine: which engine the layout is for.
        engine_version: its version.
        simulate: simulate the candidates that may win; the formula alone otherwise.
        vary_load: look at other loads too, for the crossover and the most users.
        profile: what calibration found on this machine.
        watch: is told the choices as they become known.

    Raises:
        BadTopology, UnknownGpu, UnknownModel, BadModel; InputError when a request is longer than the model's context.
    """
    card = read_model(model)
    box = named_box(capture=capture, gpu=gpu, gpus=gpus)
    return plan_model(
        card,
        box,
        goal,
        model=model,
        wanted=wanted,
        flags=flags,
        engine=engine,
        engine_version=engine_version,
        simulate=simulate,
        vary_load=vary_load,
        profile=profile,
        watch=watch,
    )


def plan_model(
    card: ModelCard,
    box: Box,
    goal: Goal,
    *,
    model: str | None = None,
    wanted: Wanted = OPEN,
    flags: EngineFlags = PLAIN,
    engine: str = DEFAULT_ENGINE,
    engine_version: str = ENGINE_VERSION,
    simulate: bool = True,
    vary_load: bool = True,
    profile: MachineProfile | None = None,
    watch: Watch = unwatched,
) -> Plan:
    """As plan_box, of a model and a box that are already read."""
    _check_context(card, goal)
    bench = Workbench(
        box=box, card=card, kinds=kinds_of(box), engine=engine, engine_version=engine_version, profile=profile
    )
    found = search_layouts(
        bench,
        goal,
        model=card.name if model is None else model,
        wanted=wanted,
        flags=flags,
        simulate=Simulator(bench) if simulate else None,
        simulate_long=Simulator(bench, least_requests=WHOLE) if simulate else None,
        simulate_most=Simulator(bench, least_requests=CONFIRMING) if simulate else None,
        vary_load=vary_load,
        watch=watch,
    )
    return Plan(search=found, card=card, workbench=bench)


def make_goal(workload: Workload, slo: SLO | None, favour: Favour = Favour.ANSWER, *, several: bool = False) -> Goal:
    """The goal of a load and its targets; raises InputError for a crowd that is too great to simulate on one box."""
    if workload.users is not None and workload.users > MOST_USERS and not several:
        raise InputError(
            f"--users {workload.users} is more than a plan simulates, {MOST_USERS:,}; give --rate for such a crowd,"
            " or --boxes."
        )
    return Goal(workload=workload, slo=slo or SLO(), favour=favour)


def kinds_of(box: Box) -> dict[int, GpuKind]:
    """The kind of every card of the box; InputError when the box does not name them."""
    nameless = [gpu.index for gpu in box.gpus if gpu.name is None]
    if nameless:
        ids = ", ".join(map(str, nameless))
        raise InputError(
            f"The capture does not say what kind GPU {ids} is; name it with --gpu, as in --gpu H100-NVL-94GB."
        )
    return {gpu.index: find_gpu(gpu.name or "") for gpu in box.gpus}


def check_something_fits(plan: Plan) -> None:
    """NothingFits, with the reason and with what would do, when there is no choice."""
    if plan.search.choices:
        return
    on = f"{plan.card.name} cannot be served on {kinds_named(plan.workbench.kinds)}"
    illegal, too_big = plan.search.illegal, plan.search.too_big
    if illegal and (not too_big):
        raise NothingFits(illegal[-1].why)
    reason = too_big[-1].why if too_big else "it has no such layout."
    raise NothingFits(f"{on}: {reason} {_advice(plan)}")


def _advice(plan: Plan) -> str:
    """The fewest cards that would hold it: of the box's own kind, else of common large ones."""
    rules = plan.workbench.rules
    own = {kind.name: kind for kind in plan.workbench.kinds.values()}
    for kind in (*own.values(), *(kind for kind in all_gpus() if kind.name in _LARGE)):
        for size in rules.legal_tensor_parallel(plan.card, range(1, 9)):
            if rules.why_not_on(plan.card, kind) is None and _holds(plan, kind, size):
                return f"{size} x {kind.name} with tensor parallel {size} would hold it."
    return "A quantised version of the model, if there is one, takes less."


_LARGE = ("H100-SXM-80GB", "H200-SXM-141GB", "B200-180GB")


def _holds(plan: Plan, kind: GpuKind, size: int) -> bool:
    bench = plan.workbench
    spec = EngineSpec.on(
        plan.card,
        kind,
        tensor_parallel=size,
        flags=EngineFlags(max_num_seqs=64),
        engine=bench.engine,
        engine_version=bench.engine_version,
    )
    return fit_memory(spec).longest >= plan.search.goal.longest


def _check_context(card: ModelCard, goal: Goal) -> None:
    if goal.longest > card.max_context:
        raise InputError(
            f"A prompt and answer of {goal.longest:,} tokens together are longer than the context of {card.name},"
            f" {card.max_context:,} tokens; give a shorter --prompt or --output."
        )


# What is shown


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as JSON: choices best first, rejected ones, other loads, and what to say about it."""
    search = plan.search
    return {
        "model": plan.card.name,
        "gpus": {str(index): kind.name for index, kind in plan.workbench.kinds.items()},
        "goal": search.goal.to_plain(),
        "choices": [choice_document(plan, choice) for choice in search.choices],
        "rejected": [{"name": one.name, "why": one.why} for one in merge_rejected(search.rejected)],
        "verdict": list(verdict(plan)),
        "crossover": crossover_document(search),
        "cuts": list(search.cuts),
        "notes": list(plan.workbench.box.notes),
    }


def choice_document(plan: Plan, choice: Choice) -> dict[str, Any]:
    layout, goal = choice.layout, plan.search.goal
    fit = plan.workbench.fit(layout.replicas[0], layout.flags)
    return {
        "name": choice.name,
        "replicas": [replica.to_plain() for replica in layout.replicas],
        "policy": str(layout.router.policy),
        "context": context_limit(choice, plan.card.max_context) or plan.card.max_context,
        "flags": shown_flags(layout.flags),
        "predicted": choice.predicted.summary.model_dump(mode="json"),
        "method": "simulated" if choice.predicted.simulated else "formula",
        "meets_targets": choice.predicted.meets(goal),
        "most_users": choice.most_users,
        "most_rate": choice.most_rate,
        "most_method": _method_of(choice.most),
        "score": _finite(choice.predicted.cost(goal)),
        "band": _band(plan, choice),
        "ratio": _ratio_to_best(plan, choice),
        "near_best": choice is not plan.best and is_near_best(choice, plan.search, plan.workbench),
        "why": explain_choice(choice, plan.search, plan.workbench),
        "warnings": list(choice.warnings),
        "idle_gpus": list(layout.idle_gpus),
        "memory": {
            "weight_bytes": fit.weight_bytes,
            "kv_bytes": fit.kv_bytes,
            "kv_tokens": fit.kv_tokens,
            "budget_bytes": fit.budget_bytes,
        },
        "decode_step_s": step_parts(choice, plan.workbench, goal),
        "tuning": [trial_document(trial, goal) for trial in choice.trials],
    }


def context_limit(choice: Choice, max_context: int) -> int | None:
    """Tokens of the longest request where that is less than the model's `max_context`."""
    limit = choice.layout.flags.max_model_len
    return limit if limit is not None and limit < max_context else None


def _band(plan: Plan, choice: Choice) -> dict[str, Any] | None:
    relative = choice_band(choice, plan.workbench)
    return None if relative is None else relative.around_means(choice.predicted.summary).model_dump(mode="json")


def _ratio_to_best(plan: Plan, choice: Choice) -> dict[str, Any] | None:
    """The band of the choice's means over the best one's; None for the best itself, and where none is known."""
    best = plan.best
    if choice is best or not (choice.predicted.simulated and best.predicted.simulated):
        return None
    ratio = relative_ratio(best.layout, choice.layout, plan.card)
    means = [means_of(one.predicted.summary) for one in (best, choice)]
    return None if ratio is None else ratio.around(ratios_of(*means)).model_dump(mode="json")


def trial_document(trial: Trial, goal: Goal) -> dict[str, Any]:
    """One value that was tried: what it gives, what that changes (-0.02: a fiftieth less time), whether it is kept."""
    predicted = trial.predicted.summary
    return {
        "option": trial.option,
        "value": trial.value,
        "was": trial.was,
        "ttft_p95_s": predicted.ttft_s.p95,
        "tpot_p95_s": predicted.tpot_s.p95,
        "e2e_mean_s": predicted.e2e_s.mean,
        "output_tokens_per_s": predicted.output_tokens_per_s,
        "meets_targets": trial.predicted.meets(goal),
        "change": _finite(trial.predicted.times(trial.instead_of, goal) - 1),
        "taken": trial.taken,
        "needs_leave": trial.needs_leave,
    }


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None


def shown_flags(flags: EngineFlags) -> dict[str, Any]:
    """Options that are set, and the share of memory; what is left to the engine is left out."""
    plain = flags.to_plain()
    default = EngineFlags().to_plain()
    return {name: value for name, value in plain.items() if value != default.get(name)} | {
        "gpu_memory_utilization": flags.gpu_memory_utilization
    }


def merge_rejected(rejected: tuple[Rejected, ...]) -> Iterator[Rejected]:
    """Each name once."""
    seen: set[str] = set()
    for one in rejected:
        if one.name not in seen:
            seen.add(one.name)
            yield one


def verdict(plan: Plan) -> Iterator[str]:
    """The plan's words beyond the ranking: near ties, users within the targets, where the ranking flips."""
    search = plan.search
    if not search.choices:
        return
    yield from explain_band(search, plan.workbench)
    yield from _targets(search)
    yield from explain_seats(search)
    yield from explain_economy(search)
    yield from explain_flips(search, plan.workbench)
    yield from explain_eight_bits(search, plan.workbench)
    yield from search.cuts


def _targets(search: Search) -> Iterator[str]:
    """The most that the best layout carries, and the layout that carries more."""
    best = search.best
    if search.goal.has_targets and not best.predicted.meets(search.goal):
        yield f"No layout meets the targets for {search.goal.load}; {best.name} comes nearest."
        yield from _boxes_that_would(search)
    if best.most is None:
        return
    limit = "within the targets" if search.goal.has_targets else "before its queue grows without end"
    how = "simulated" if best.most.simulated else "by formula"
    yield f"{best.name} carries {load_words(best.most)} {limit} ({how})."
    alike = [one for one in search.choices if one.most is not None and one.most.simulated == best.most.simulated]
    roomiest = max(alike, key=lambda one: one.most.load if one.most else 0.0)
    if roomiest.most is not None and roomiest.most.load > (1 + FINE) * best.most.load:
        yield f"{roomiest.name} carries more: {load_words(roomiest.most)}."


def _boxes_that_would(search: Search) -> Iterator[str]:
    """How many such boxes would carry the load, where one does not."""
    most = max((one.most.load for one in search.choices if one.most is not None), default=0.0)
    if most > 0:
        boxes = ceil(search.goal.amount / most)
        yield f"{boxes:,} such boxes would carry it: --boxes {boxes} plans them."


def load_words(most: Capacity) -> str:
    """`105 back-to-back users`, `2.4 requests/s`."""
    if most.users is not None:
        return f"{most.users:,} back-to-back user{'s' if most.users != 1 else ''}"
    return f"{most.load:g} requests/s"


def _method_of(most: Capacity | None) -> str | None:
    return None if most is None else "simulated" if most.simulated else "formula"


def crossover_document(search: Search) -> dict[str, Any]:
    """The curves and the flips."""
    return {
        "load": "users" if search.goal.users is not None else "requests_per_s",
        "curves": [
            {
                "name": curve.name,
                "points": [
                    {
                        "load": load,
                        "ttft_p50_s": point.summary.ttft_s.p50,
                        "ttft_p95_s": point.summary.ttft_s.p95,
                        "tpot_mean_s": point.summary.tpot_s.mean,
                        "e2e_mean_s": point.summary.e2e_s.mean,
                        "output_tokens_per_s": point.summary.output_tokens_per_s,
                    }
                    for load, point in curve.points
                ],
            }
            for curve in search.curves
        ],
        "flips": [{"load": flip.load, "before": flip.before, "after": flip.after} for flip in search.flips],
    }


def check_chart(path: Path) -> None:
    """Refuse what no chart can be written as, before the work; raises InputError."""
    if path.suffix.lower() not in {".svg", ".png"}:
        raise InputError(f"--chart {path}: the file's name should end in .png or .svg.")


def save_chart(plan: Plan, path: Path) -> None:
    """The crossover chart as SVG or PNG, by the file's ending; InputError for another ending or without curves."""
    check_chart(path)
    if not plan.search.curves:
        raise InputError("There is no chart to draw: no layout is possible, or the load was not varied.")
    spec = crossover_chart(plan.search)
    write_whole(path, chart_svg(spec) if path.suffix.lower() == ".svg" else chart_png(spec))


def kinds_named(kinds: Mapping[int, GpuKind]) -> str:
    """`4 x H100-NVL-94GB`."""
    names = [kind.name for kind in kinds.values()]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
