"""Several models on one box: read what is asked for, share the box out, check it in the simulator, write it down."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, inf
from pathlib import Path
from typing import Any

from atoll.analyse.summary import Summary
from atoll.errors import InputError, NothingFits
from atoll.inventory.box import Box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.layout.stack import Stack, StackGoal, StackModel
from atoll.model.card import ModelCard
from atoll.model.purpose import Purpose, purpose_of
from atoll.model.read import read_model
from atoll.outside.files import read_text
from atoll.plan.choice import Choice
from atoll.plan.enumerate import Wanted
from atoll.plan.goal import Goal
from atoll.plan.loads import find_most
from atoll.plan.outlook import Outlook
from atoll.plan.score import score_stations
from atoll.plan.search import search_layouts
from atoll.plan.stack import STEP, WHOLE_CARD, Offer, Place, alike, share_box
from atoll.plan.workbench import Workbench, common_flags
from atoll.render import Bundle, RenderSettings
from atoll.render.stack import render_stack
from atoll.simulate.run import Conditions, SlowedTimer
from atoll.workflows.boxes import named_box
from atoll.workflows.plan import kinds_of, make_goal
from atoll.workflows.render import pinned_requirements, write_bundle
from atoll.workflows.simulate import simulate_run
from atoll.workflows.simulator import Simulator

TRIES = 3  # ways of sharing out that are simulated, where the first does not keep what the formula said
SEATS_OF_POOLING = 64  # max_num_seqs of a model that gives vectors: one forward pass each, so few are at it at once


@dataclass(frozen=True, kw_only=True)
class PlacedModel:
    """What a stack gives one of its models. `summary` is None where no timing is known."""

    wish: StackModel
    layout: Layout
    place: Place
    summary: Summary | None
    strain: float | None  # of the targets; at most 1 keeps them

    @property
    def holds(self) -> bool | None:
        """Whether its targets hold; None where it has none, or no timing is known."""
        if self.strain is None or self.wish.slo is None or self.wish.slo.is_empty:
            return None if self.strain is None or self.strain <= 1 else False
        return self.strain <= 1


@dataclass(frozen=True, kw_only=True)
class StackPlan:
    """A stack with how it came about."""

    stack: Stack
    models: tuple[PlacedModel, ...]
    why: str

    @property
    def met(self) -> bool:
        return all(one.holds is not False for one in self.models)


def is_stack_goal(path: Path | str) -> bool:
    """Whether the file asks for several models: it has `models:`."""
    return re.search(r"^models\s*:", read_text(path), re.MULTILINE) is not None


def is_stack(path: Path) -> bool:
    """Whether the file is a planned stack: it has `layouts:`."""
    return path.is_file() and re.search(r"^layouts\s*:", read_text(path), re.MULTILINE) is not None


def read_stack(path: Path | str) -> Stack:
    """A planned stack; raises InputError for no file and BadDocument for another one."""
    return Stack.parse(read_text(path), origin=str(path))


def plan_stack_file(path: Path) -> StackPlan:
    """Plan what the file asks for; a capture is looked for beside it."""
    goal = StackGoal.parse(read_text(path), origin=str(path))
    if isinstance(goal.box, str):
        box = named_box(capture=path.parent / goal.box, gpu=goal.gpu)
    else:
        box = named_box(gpu=goal.box.gpu, gpus=goal.box.gpus)
    return plan_stack(goal, box)


def plan_stack(goal: StackGoal, box: Box) -> StackPlan:
    """The best way of sharing the box out, its layouts tuned in the simulator.

    Raises:
        NothingFits: the models do not fit into the box, with what each needs.
        UnknownModel, UnknownGpu: names that the catalogues do not have.
    """
    desk = _Desk(goal, box)
    found = share_box(box, [desk.need(number) for number in range(len(goal.models))], desk.offer)
    if not found:
        raise NothingFits(desk.why_nothing_fits())
    best: tuple[PlacedModel, ...] | None = None
    for shared in found[:TRIES]:
        models = tuple(desk.settle(number, place) for number, place in enumerate(shared.places))
        if best is None or _missed(models) < _missed(best):
            best = models
        if not _missed(best):
            break
    assert best is not None
    shares = {one.layout.name: round(one.place.time, 2) for one in best if one.place.memory is not None}
    met = None if all(one.wish.slo is None for one in best) else not _missed(best)
    stack = Stack(name=goal.name, layouts=tuple(one.layout for one in best), met=met, shares=shares)
    return StackPlan(stack=stack, models=best, why=" ".join(_sentences(best, stack, desk)))


def _missed(models: Sequence[PlacedModel]) -> int:
    return sum(one.holds is False for one in models)


@dataclass
class _Desk:
    """Answers what a model makes of a place, and remembers it."""

    goal: StackGoal
    box: Box
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    _known: dict[object, Offer | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cards = {one.model: read_model(one.model) for one in self.goal.models}
        self.kinds = kinds_of(self.box)
        self.names = _layout_names([one.model for one in self.goal.models])

    def purpose(self, number: int) -> Purpose:
        return purpose_of(self.cards[self.goal.models[number].model].name)

    def goal_of(self, number: int) -> Goal:
        wish = self.goal.models[number]
        return make_goal(wish.workload, wish.slo)

    def bench(self, number: int, box: Box) -> Workbench:
        kinds = {gpu.index: self.kinds[gpu.index] for gpu in box.gpus}
        return Workbench(box=box, card=self.cards[self.goal.models[number].model], kinds=kinds)

    def need(self, number: int) -> float | None:
        """The least share of one card that holds the model and the requests that are under way; None: all of one."""
        smallest = min(self.kinds, key=lambda gpu: self.kinds[gpu].memory_bytes)
        bench = self.bench(number, self.box.only({smallest}))
        replica = Replica(gpus=(smallest,), tensor_parallel=1)
        steps = range(1, round(WHOLE_CARD / STEP))
        for step in steps:
            share = round(step * STEP, 2)
            flags = self._flags(number, share)
            try:
                fit = bench.fit(replica, flags)
            except InputError:
                return None
            if fit.fits and fit.kv_tokens >= self._tokens(number) and fit.sure_longest >= self.goal_of(number).longest:
                return share
        return None

    def _tokens(self, number: int) -> float:
        """Tokens that are in the KV cache at one time, at most: of every user; of a rate, of what comes in 4 s."""
        goal = self.goal_of(number)
        if self.purpose(number) != "generate":
            return float(2 * goal.longest)
        at_once = goal.users if goal.users is not None else max(2, ceil((goal.rate or 0) * 4))
        return at_once * (goal.prompt + goal.output / 2)

    def _flags(self, number: int, memory: float) -> EngineFlags:
        wish, goal = self.goal.models[number], self.goal_of(number)
        flags = wish.flags.replace(gpu_memory_utilization=memory)
        if self.purpose(number) == "generate":
            return flags
        longest = min(self.cards[wish.model].max_context, max(2048, goal.longest))
        seats = flags.max_num_seqs or SEATS_OF_POOLING
        return flags.replace(
            max_num_seqs=seats,
            max_model_len=flags.max_model_len or longest,
            max_num_batched_tokens=flags.max_num_batched_tokens or max(2048, longest),
            extra=(*flags.extra, *pooling_arguments(self.cards[wish.model], flags.extra)),
        )

    def offer(self, number: int, place: Place) -> Offer | None:
        key = (number, alike(self.box, place.gpus), place.memory, place.time)
        if key not in self._known:
            self._known[key] = self._make(number, place)
        return self._known[key]

    def _make(self, number: int, place: Place) -> Offer | None:
        choice = self.draft(number, place)
        if choice is None:
            return None
        if self.purpose(number) != "generate":
            return Offer(layout=choice.layout, strain=None, seconds=None)
        goal, outlook = self.goal_of(number), choice.predicted
        return Offer(layout=choice.layout, strain=outlook.strain(goal), seconds=outlook.cost(goal))

    def draft(self, number: int, place: Place) -> Choice | None:
        """By formula."""
        box = self.box.only(place.gpus)
        bench, goal, wish = self.bench(number, box), self.goal_of(number), self.goal.models[number]
        if place.memory is None and self.purpose(number) == "generate":
            choices = search_layouts(bench, goal, model=wish.model, flags=wish.flags, vary_load=False).choices
            return choices[0] if choices else None
        if len(place.gpus) > 1:
            return None  # one card is enough for a model that gives vectors, and is all where it is shared
        replica = Replica(gpus=place.gpus, tensor_parallel=1)
        flags = self._flags(number, place.memory or WHOLE_CARD)
        if self.purpose(number) == "generate":
            seats = goal.users if goal.users is not None else ceil((goal.rate or 1) * 4)
            flags = flags.replace(max_num_seqs=flags.max_num_seqs or max(8, 1 << (ceil(1.25 * seats) - 1).bit_length()))
            flags = flags.replace(max_num_batched_tokens=flags.max_num_batched_tokens or 8192)
        if not bench.fit(replica, flags).fits:
            return None
        flags = common_flags(bench, [replica], flags, longest=goal.longest)
        layout = Layout(
            name=self.names[number], model=wish.model, box=box, replicas=(replica,), flags=flags,
            workload=wish.workload, slo=wish.slo,
        )  # fmt: skip
        station = bench.station(replica, flags)
        slowed = replace(station, timer=SlowedTimer(timer=station.timer, factor=1 / place.time))
        outlook = score_stations([slowed], goal, shares=(1.0,))
        return Choice(layout=layout, predicted=outlook, formula=outlook)

    def settle(self, number: int, place: Place) -> PlacedModel:
        """The model at its place, tuned and simulated."""
        wish, goal = self.goal.models[number], self.goal_of(number)
        draft = self.draft(number, place)
        assert draft is not None  # share_box has asked
        if self.purpose(number) != "generate":
            return PlacedModel(
                wish=wish, layout=self._named(number, draft.layout), place=place, summary=None, strain=None
            )
        if place.memory is not None:
            layout = self._named(number, draft.layout)
            slow = Conditions(slowdown=(1 / place.time,))
            summary = simulate_run(layout.replace(workload=None), wish.workload, slo=wish.slo, conditions=slow).summary
            strain = Outlook(summary=summary, simulated=True).strain(goal)
            return PlacedModel(wish=wish, layout=layout, place=place, summary=summary, strain=strain)
        bench = self.bench(number, self.box.only(place.gpus))
        shape = Wanted(tensor_parallel=draft.layout.replicas[0].tensor_parallel, replicas=len(draft.layout.replicas))
        simulator = Simulator(bench)
        best = search_layouts(
            bench, goal, model=wish.model, flags=wish.flags, wanted=shape, simulate=simulator, vary_load=False
        ).best
        return PlacedModel(
            wish=wish,
            layout=self._named(number, best.layout),
            place=place,
            summary=best.predicted.summary,
            strain=best.predicted.strain(goal),
        )

    def _named(self, number: int, layout: Layout) -> Layout:
        return layout.replace(name=self.names[number], box=self.box)

    def most(self, number: int, place: Place) -> float:
        """The largest load that keeps the targets at this place, by formula; 0 where none does."""
        goal = self.goal_of(number)
        draft = self.draft(number, place)
        if draft is None:
            return 0.0
        bench = self.bench(number, self.box.only(place.gpus))

        def strain(load: float) -> float:
            at = goal.with_load(load)
            stations = [bench.station(replica, draft.layout.flags) for replica in draft.layout.replicas]
            slowed = [replace(s, timer=SlowedTimer(timer=s.timer, factor=1 / place.time)) for s in stations]
            return score_stations(slowed, at, shares=(1 / len(slowed),) * len(slowed)).strain(at)

        return find_most(strain, start=goal.amount / 2, most=goal.amount, whole=goal.users is not None, known={})

    def why_nothing_fits(self) -> str:
        """What each model needs at least."""
        told = []
        for number, wish in enumerate(self.goal.models):
            sizes = [k for k in range(1, len(self.box.gpus) + 1) if self._fits_on(number, k)]
            least = f"{sizes[0]} card{'s' * (sizes[0] > 1)}" if sizes else "more than the box has"
            share = self.need(number)
            least = f"{share:.0%} of a card" if share is not None else least
            told.append(f"{wish.model} {least}")
        return (
            f"The models of {self.goal.name} do not fit on {len(self.box.gpus)} GPUs together: {', '.join(told)}."
            " Leave one out, or take a quantised version of the largest."
        )

    def _fits_on(self, number: int, size: int) -> bool:
        return self.draft(number, Place(gpus=tuple(self.box.indices[:size]))) is not None


def pooling_arguments(card: ModelCard, given: Sequence[str]) -> tuple[str, ...]:
    """What vLLM is told to serve vectors or an order of documents: `--runner pooling`, and a reranker's own words."""
    if "--runner" in given:
        return ()
    words: tuple[str, ...] = ("--runner", "pooling")
    if "qwen3-reranker" in card.name.lower() and "--hf-overrides" not in given:
        words += ("--hf-overrides", json.dumps(_RERANKER, separators=(",", ":")))
    return words


# From its model card: the two words whose likelihood is the score.
_RERANKER = {
    "architectures": ["Qwen3ForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}


def _layout_names(models: Sequence[str]) -> list[str]:
    """A name for each layout: what stands after the model's last slash, with a number where two would be alike."""
    names: list[str] = []
    for model in models:
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", model.rstrip("/").rpartition("/")[2].lower()).lstrip("._-") or "model"
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names


def _sentences(models: Sequence[PlacedModel], stack: Stack, desk: _Desk) -> list[str]:
    told = []
    for number, one in enumerate(models):
        if one.holds is not False:
            continue
        goal = desk.goal_of(number)
        most = desk.most(number, one.place)
        load = f"{most:g} {'users' if goal.users is not None else 'requests/s'}"
        told.append(
            f"{one.wish.model} gives way: its targets do not hold for {goal.load} on"
            f" {_cards(one.place)}{f'; they would for {load}' if most else ''}."
        )
    if not told and any(one.holds for one in models):
        told.append("All targets hold.")
    sharing = [one for one in models if one.place.memory is not None]
    if sharing:
        parts = ", ".join(f"{one.layout.name} {one.place.time:.0%}" for one in sharing)
        told.append(f"Where engines share a card its time is reckoned as {parts}: stated, with no band.")
    silent = [one.layout.name for one in models if one.summary is None]
    if silent:
        told.append(f"Of {', '.join(silent)} the memory is known and no timing: measure before you rely on it.")
    if stack.idle_gpus:
        told.append(f"GPU {', '.join(map(str, stack.idle_gpus))} stays free: no model would be quicker with it.")
    return told


def _cards(place: Place) -> str:
    ids = ", ".join(map(str, place.gpus))
    part = f"{place.memory:.0%} of " if place.memory is not None else ""
    return f"{part}GPU {ids}"


def stack_document(made: StackPlan) -> dict[str, Any]:
    """What `plan STACK --json` prints."""
    return {
        "layouts": [layout.to_plain() for layout in made.stack.layouts],
        "idle_gpus": list(made.stack.idle_gpus),
        "met": made.met,
        "why": made.why,
        "models": [
            {
                "model": one.wish.model,
                "layout": one.layout.name,
                "gpus": list(one.place.gpus),
                "memory_share": one.place.memory,
                "time_share": one.place.time,
                "holds": one.holds,
                "strain": None if one.strain == inf else one.strain,
                "predicted": None if one.summary is None else one.summary.to_plain(),
            }
            for one in made.models
        ],
    }


def read_changed_stack(path: Path, *, engine: str | None = None, engine_version: str | None = None) -> Stack:
    """A planned stack, for another engine or version."""
    stack = read_stack(path)
    changes = {key: value for key, value in {"engine": engine, "engine_version": engine_version}.items() if value}
    return stack.with_layouts([layout.replace(**changes) for layout in stack.layouts])


def render_stack_files(
    stack: Stack, *, to: str, folder: Path | None = None, settings: RenderSettings | None = None
) -> Bundle:
    """The bundle of a stack, written where a folder is given."""
    settings = replace(settings or RenderSettings(), requirements=pinned_requirements)
    cards = {layout.model: read_model(layout.model) for layout in stack.layouts}
    bundle = render_stack(stack, cards, to=to, settings=settings)
    if folder is not None:
        write_bundle(bundle, folder)
    return bundle
