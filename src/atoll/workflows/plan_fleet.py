"""How many boxes: the fewest that carry a load within the targets. What one box carries is the plan of one box."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, floor
from pathlib import Path
from typing import Any

from atoll.cost.memory import fit_memory
from atoll.engines import find_engine
from atoll.engines.spec import DEFAULT_ENGINE, EngineSpec
from atoll.errors import InputError, NothingFits
from atoll.inventory.box import Box
from atoll.inventory.catalog import MOST_BOX_GPUS, find_gpu, is_rack
from atoll.layout.fleet import MOST_BOXES, Fleet, FleetBoxes
from atoll.layout.layout import EngineFlags, Layout
from atoll.layout.weights import router_weights
from atoll.model.card import ModelCard
from atoll.plan.choice import Choice
from atoll.plan.goal import Goal
from atoll.plan.outlook import Outlook
from atoll.workflows.boxes import named_box
from atoll.workflows.fleet import BoxKind, KnownFleet, read_fleet
from atoll.workflows.plan import Plan, check_something_fits
from atoll.workflows.simulator import Simulator

PlanOne = Callable[[Box, Goal], Plan]  # the plan of one box under its part of the load

FIRST_SHARE = 200.0  # users that the first plan of a box is made for; a rate begins with an eighth
ROUNDS = 4  # plans of one box at most, each at the share that the one before came to
NEAR = 0.03  # relative; a share so near is the same
MOST_SIMULATED_USERS = 6_000  # of a whole fleet behind one door; a run of them takes some seconds
MOST_SIMULATED_REPLICAS = 1_024
MOST_STAGES = 8  # boxes that a replica is said to need


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxPlan:
    """The layout of one kind's boxes, and the most load that one of them carries within the targets."""

    kind: BoxKind
    plan: Plan
    choice: Choice

    @property
    def most(self) -> float:
        return 0.0 if self.choice.most is None else self.choice.most.load


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """So many boxes of a kind, and the load of each: users, or requests per second."""

    of: BoxPlan
    count: int
    load: float

    @property
    def layout(self) -> Layout:
        """One box's, with its part of the load."""
        layout = self.of.choice.layout
        if layout.workload is None:
            return layout
        users = layout.workload.users is not None
        changes = {"users": max(1, ceil(self.load))} if users else {"rate": float(f"{self.load:.4g}")}
        return layout.replace(workload=layout.workload.replace(**changes))


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetPlan:
    """What was found. `whole` is the fleet without its spare boxes behind one door; None where that is too large."""

    goal: Goal
    known: KnownFleet
    plans: tuple[BoxPlan, ...]  # of every kind that the model fits, the one that carries most first
    misfits: dict[str, str]  # kinds that it does not fit, and why
    shares: tuple[Share, ...]
    spare: int
    met: bool
    whole: Outlook | None = None

    @property
    def boxes(self) -> int:
        return sum(share.count for share in self.shares)

    @property
    def carries(self) -> float:
        """With every box up."""
        return sum(share.count * share.of.most for share in self.shares)

    @property
    def carries_without_spare(self) -> float:
        """With the `spare` boxes lost that carry most."""
        return sum(_each(self.shares)[self.spare :])

    @property
    def headroom(self) -> float:
        """0.05: a twentieth more load would be carried than was asked, with the spare boxes lost."""
        return self.carries_without_spare / self.goal.amount - 1


def plan_fleet(known: KnownFleet, goal: Goal, *, card: ModelCard, plan_one: PlanOne, spare: int = 0) -> FleetPlan:
    """The fewest boxes of a fleet that carry a load.

    A kind of box is planned by the search for one box, at the share of the load that comes to it. A door before all
    replicas gives each box what it carries; so the boxes that carry most are taken first.

    Args:
        known: the boxes that there are.
        goal: the load of all users together, and the targets.
        card: the model.
        plan_one: plans one box under a part of the load.
        spare: so many boxes may be lost, and the rest still carry the load.

    Raises:
        InputError: there is nothing that a load could be too much for: neither a target nor a rate.
        NothingFits: the model fits no box of the fleet.
    """
    if not goal.has_capacity:
        raise InputError(
            "How many boxes a load takes hangs on what each user may wait: give --slo-ttft, --slo-tpot or both."
        )
    plans, misfits = _plan_kinds(known, goal, plan_one, card)
    chosen, met = choose_boxes([(plan.most, plan.kind.count) for plan in plans], goal.amount, spare=spare)
    shares = _share_out(plans, chosen, goal)
    whole = simulate_whole(_without(shares, spare), goal) if met else None
    return FleetPlan(
        goal=goal, known=known, plans=tuple(plans), misfits=misfits, shares=shares, spare=spare, met=met, whole=whole
    )


def _plan_kinds(
    known: KnownFleet, goal: Goal, plan_one: PlanOne, card: ModelCard
) -> tuple[list[BoxPlan], dict[str, str]]:
    plans: list[BoxPlan] = []
    misfits: dict[str, str] = {}
    for kind in known.kinds:
        try:
            plans.append(_plan_kind(kind, goal, plan_one))
        except NothingFits as error:
            misfits[kind.name] = str(error)
    if not plans:
        raise NothingFits(" ".join((*dict.fromkeys(misfits.values()), *_over_boxes(known, goal, card))))
    return sorted(plans, key=lambda plan: -plan.most), misfits


def _over_boxes(known: KnownFleet, goal: Goal, card: ModelCard) -> Iterator[str]:
    """How many boxes of the largest kind hold the model as stages of a pipeline, tensor parallel inside each."""
    kind = max(known.kinds, key=lambda one: sum(gpu.memory_bytes or 0 for gpu in one.box.gpus))
    gpu = find_gpu(kind.box.gpus[0].name or "")
    size = max(find_engine(DEFAULT_ENGINE).legal_tensor_parallel(card, range(1, len(kind.box.gpus) + 1)), default=1)
    for stages in range(2, MOST_STAGES + 1):
        flags = EngineFlags(max_num_seqs=64)
        spec = EngineSpec.on(card, gpu, tensor_parallel=size, pipeline_parallel=stages, flags=flags)
        if fit_memory(spec).longest >= goal.longest:
            where = f"{stages} boxes of {len(kind.box.gpus)} x {gpu.name}"
            enough = "" if kind.count >= stages else f" ({kind.count} are there)"
            yield (
                f"By memory {where}{enough} would hold it, with tensor parallel {size} in each and pipeline parallel"
                f" {stages} over them; how fast that is over a network atoll does not say."
            )
            return


def _plan_kind(kind: BoxKind, goal: Goal, plan_one: PlanOne) -> BoxPlan:
    """The layout with which the fewest boxes do; of those the one that was planned nearest to its share."""
    load = min(goal.amount, FIRST_SHARE) if goal.users is not None else goal.amount / 8
    best: BoxPlan | None = None
    for _ in range(ROUNDS):
        plan = plan_one(kind.box, goal.with_load(load))
        check_something_fits(plan)
        found = BoxPlan(kind=kind, plan=plan, choice=_roomiest(plan))
        if best is None or _needed(found, goal) <= _needed(best, goal):
            best = found
        if found.most == 0:
            break
        share = min(goal.amount / _needed(found, goal), found.most)
        if abs(share - load) <= NEAR * load:
            break
        load = float(ceil(share)) if goal.users is not None else share
    assert best is not None
    return best


def _roomiest(plan: Plan) -> Choice:
    """The first unless another is known, by simulation, to carry more than the search for the most can be off."""
    first = plan.best
    most = first.most.load if first.most else 0.0
    simulated = [one for one in plan.search.choices if one.most is not None and one.most.simulated]
    roomiest = max(simulated, key=lambda one: one.most.load if one.most else 0.0, default=first)
    carried = roomiest.most.load if roomiest.most else 0.0
    return roomiest if carried > 1.04 * most else first


def _needed(plan: BoxPlan, goal: Goal) -> int:
    return ceil(goal.amount / plan.most - 1e-9) if plan.most else 10**9


def choose_boxes(kinds: Sequence[tuple[float, int]], load: float, *, spare: int = 0) -> tuple[list[int], bool]:
    """How many of each kind, and whether they carry the load with the `spare` boxes lost that carry most.

    Args:
        kinds: (the most that one box carries, how many there are), the most first; so the fewest boxes are taken.
        load: in the same unit.
        spare: boxes that may be lost.

    Three boxes carry 316 users each: 600 take two of them, and with one to spare all three.
    """
    chosen = [0] * len(kinds)
    taken: list[float] = []
    for place, (most, count) in enumerate(kinds):
        while chosen[place] < count and most > 0:
            chosen[place] += 1
            taken.append(most)
            if sum(taken[spare:]) >= load * (1 - 1e-9):
                return chosen, True
    return chosen, False


def _each(shares: Sequence[Share]) -> list[float]:
    """What each box carries, the most first."""
    return sorted((share.of.most for share in shares for _ in range(share.count)), reverse=True)


def _share_out(plans: Sequence[BoxPlan], chosen: Sequence[int], goal: Goal) -> tuple[Share, ...]:
    """Each box's part of the load, by what it carries; no more than that where all together do not carry it."""
    total = sum(plan.most * count for plan, count in zip(plans, chosen, strict=True))
    part = min(1.0, goal.amount / total) if total else 0.0
    return tuple(
        Share(of=plan, count=count, load=plan.most * part) for plan, count in zip(plans, chosen, strict=True) if count
    )


def _without(shares: Sequence[Share], spare: int) -> list[Share]:
    """The boxes that are left when the spare ones are lost."""
    left: list[Share] = []
    for share in shares:
        lost = min(spare, share.count)
        spare -= lost
        if share.count > lost:
            left.append(Share(of=share.of, count=share.count - lost, load=share.load))
    return left


def simulate_whole(shares: Sequence[Share], goal: Goal) -> Outlook | None:
    """The boxes behind one door under the whole load; None where that would take long."""
    replicas = sum(share.count * len(share.of.choice.layout.replicas) for share in shares)
    users = goal.users or 0
    if not shares or users > MOST_SIMULATED_USERS or replicas > MOST_SIMULATED_REPLICAS or goal.users is None:
        return None
    engines = [
        engine
        for share in shares
        for engine in tuple(Simulator(share.of.plan.workbench).engines(share.of.choice.layout)) * share.count
    ]
    first = shares[0].of
    formula = first.choice.formula
    return Simulator(first.plan.workbench).run(_joined(shares), goal, formula, tuple(engines))


def _joined(shares: Sequence[Share]) -> Layout:
    """All boxes' replicas as one layout, each with its part of the load as its weight; cards are numbered through."""
    first = shares[0].of.choice.layout
    replicas, cards, start = [], [], 0
    for share in shares:
        layout = share.of.choice.layout
        for _ in range(share.count):
            cards += [gpu.model_copy(update={"index": start + gpu.index}) for gpu in layout.box.gpus]
            replicas += [
                one.model_copy(update={"gpus": tuple(start + gpu for gpu in one.gpus), "port": None})
                for one in layout.replicas
            ]
            start += len(layout.box.gpus)
    # Which links there are is in the engines' times already, and a link for every two of 1,024 cards is half a million.
    box = Box.model_construct(gpus=tuple(cards), links=(), pcie_only=False, notes=())
    router = first.router.replace(weights=fleet_weights(shares))
    return first.model_copy(update={"box": box, "replicas": tuple(replicas), "router": router})


def fleet_weights(shares: Sequence[Share]) -> tuple[int, ...]:
    """The door's weight of every replica: what its box carries, in twentieths of what the weakest replica does."""
    parts = [(_of_each_replica(share), share.count) for share in shares]
    least = min(min(each) for each, _ in parts)
    if all(value == least for each, _ in parts for value in each):
        return (1,) * sum(len(each) * count for each, count in parts)
    return tuple(max(1, round(20 * value / least)) for each, count in parts for _ in range(count) for value in each)


def _of_each_replica(share: Share) -> list[float]:
    weights = router_weights(share.of.choice.layout)
    return [max(share.of.most, 1e-9) * weight / sum(weights) for weight in weights]


# What is shown


def fleet_of(
    path: Path | None, *, boxes: int | None, spare: int | None, capture: str | None, gpu: str | None, gpus: int | None
) -> KnownFleet | None:
    """The fleet of `--fleet`, of `--boxes` such boxes, or of more cards than a box has; None: one box is meant.

    Raises InputError for what does not go together.
    """
    if path is not None:
        if boxes is not None or capture is not None or gpu is not None or gpus is not None:
            raise InputError(f"{path} says which boxes there are; leave --boxes, --box, --gpu and --gpus out.")
        return read_fleet(path)
    if boxes is None and capture is None and gpu is not None and (gpus or 0) > MOST_BOX_GPUS and not is_rack(gpu):
        size = next(size for size in (8, 4, 2, 1) if (gpus or 0) % size == 0)
        return catalogue_fleet(named_box(gpu=gpu, gpus=size), count=(gpus or 0) // size)
    if boxes is not None:
        return catalogue_fleet(named_box(capture=capture, gpu=gpu, gpus=gpus), count=boxes)
    if spare is not None:
        raise InputError("--spare is for several boxes: give --boxes N or --fleet FILE too.")
    return None


def catalogue_fleet(box: Box, *, count: int, name: str = "box") -> KnownFleet:
    """So many boxes that are alike."""
    if not 1 <= count <= MOST_BOXES:
        raise InputError(f"--boxes {count} is not 1 to {MOST_BOXES:,}.")
    entry = FleetBoxes(name=name, count=count, gpu=box.gpus[0].name or "?", gpus=len(box.gpus))
    fleet = Fleet(name="fleet", boxes=(entry,))
    return KnownFleet(fleet=fleet, kinds=(BoxKind(entry=entry, box=box),))


def explain_fleet(made: FleetPlan) -> Iterator[str]:
    """What it says beyond the table, in sentences."""
    goal = made.goal
    if made.met:
        lost = f" with {_boxes(made.spare)} lost" if made.spare else ""
        held = _load(made.carries_without_spare, goal)
        yield (
            f"{_boxes(made.boxes)} carr{'ies' if made.boxes == 1 else 'y'} {held} within the targets{lost};"
            f" {goal.load} are {floor(100 * goal.amount / made.carries_without_spare)}% of that."
        )
    else:
        yield _too_few(made)
    if made.met and not made.spare:
        yield _one_lost(made)
    yield from _door(made)
    for name, why in made.misfits.items():
        yield f"{name} takes no part: {why}"


def _too_few(made: FleetPlan) -> str:
    best = made.plans[0]
    spare = f" with {_boxes(made.spare)} to spare" if made.spare else ""
    if best.most == 0:
        return f"No box of the fleet keeps the targets for a single {'user' if made.goal.users else 'request'}."
    wanted = ceil(made.goal.amount / best.most - 1e-9) + made.spare
    left = _load(max(0.0, made.carries_without_spare), made.goal)
    few = f"{_boxes(made.boxes)} {'is' if made.boxes == 1 else 'are'} too few"
    return (
        f"{few} for {made.goal.load}{spare}: what is carried within the targets is {left};"
        f" {_boxes(wanted)} like {best.kind.name} would do."
    )


def _one_lost(made: FleetPlan) -> str:
    left = sum(_each(made.shares)[1:])
    if made.boxes == 1:
        return "With that box lost nothing is served; --spare 1 adds one."
    if left >= made.goal.amount:
        return f"With one box lost the others still carry {_load(left, made.goal)}."
    return f"With one box lost the others carry {_load(left, made.goal)}, which is too few; --spare 1 adds one."


def _door(made: FleetPlan) -> Iterator[str]:
    replicas = sum(share.count * len(share.of.choice.layout.replicas) for share in made.shares)
    policy = made.shares[0].of.choice.layout.router.policy if made.shares else None
    if replicas > 1:
        kinds = " (weights by what a box carries)" if len(made.shares) > 1 else ""
        yield f"One layout a box, and one nginx before all {replicas:,} replicas, by {policy}{kinds}."
    if made.whole is not None:
        summary = made.whole.summary
        held = "keeps the targets" if made.whole.meets(made.goal) else "does NOT keep the targets"
        yield (
            f"Simulated as one fleet behind that door it {held}: TTFT p95 {_ms(summary.ttft_s.p95)},"
            f" TPOT p95 {_ms(summary.tpot_s.p95)}, {summary.output_tokens_per_s:,.0f} tokens/s."
        )
    elif made.met:
        yield "What a box carries is simulated; the fleet as a whole was not, for its size."


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _boxes(count: int) -> str:
    return f"{count:,} box{'es' if count != 1 else ''}"


def _load(load: float, goal: Goal) -> str:
    return f"{floor(load + 1e-9):,} users" if goal.users is not None else f"{load:.3g} requests/s"


def curve_of(made: FleetPlan) -> list[dict[str, float]]:
    """What the first n boxes carry, those that carry most first; `users`, or `requests_per_s`."""
    each = sorted((plan.most for plan in made.plans for _ in range(plan.kind.count)), reverse=True)
    what = "users" if made.goal.users is not None else "requests_per_s"
    loads = accumulate(each[: max(8, made.boxes + 2)])
    return [
        {"boxes": place, what: floor(load + 1e-9) if what == "users" else load}
        for place, load in enumerate(loads, start=1)
    ]


def price_of(share: Share) -> dict[str, float | None]:
    """Cards, watts and money of a share; None where nothing says them."""
    kind, count = share.of.kind, share.count
    price = kind.entry.price_per_hour
    return {
        "gpus": count * len(kind.box.gpus),
        "watts": None if kind.watts is None else count * kind.watts,
        "price_per_hour": None if price is None else count * price,
    }


def total_of(made: FleetPlan) -> dict[str, Any]:
    """Cards, watts and money of all boxes."""
    prices = [price_of(share) for share in made.shares]

    def whole(what: str) -> float | None:
        values = [price[what] for price in prices]
        return None if any(value is None for value in values) else sum(value or 0.0 for value in values)

    return {"gpus": int(whole("gpus") or 0), "watts": whole("watts"), "price_per_hour": whole("price_per_hour")}


def fleet_plan_document(made: FleetPlan) -> dict[str, Any]:
    """The plan as JSON; loads in users or requests/s, as they were asked."""
    layouts = [share.layout.to_plain() for share in made.shares]
    return {
        "boxes": made.boxes,
        "met": made.met,
        "spare": made.spare,
        "headroom": made.headroom,
        "carries": made.carries_without_spare,
        "shares": [
            {
                "name": share.of.kind.name,
                "boxes": share.count,
                "layout": share.layout.name,
                "most_of_a_box": share.of.most,
                "load_of_a_box": share.load,
                **price_of(share),
            }
            for share in made.shares
        ],
        **({"layout": layouts[0]} if len(layouts) == 1 else {"layouts": layouts}),
        "total": total_of(made),
        "currency": made.known.fleet.currency,
        "curve": curve_of(made),
        "predicted": None if made.whole is None else made.whole.summary.model_dump(mode="json"),
        "misfits": made.misfits,
        "why": " ".join(explain_fleet(made)),
    }
