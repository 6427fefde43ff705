"""What another layout would gain: the one in the files against the one that `plan` proposes, both simulated."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from atoll.analyse.summary import Summary
from atoll.doctor.compose import Project
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.nginx_config import Upstream
from atoll.errors import AtollError, InputError
from atoll.inventory.box import Box
from atoll.layout.layout import Layout, Policy, Replica, Router
from atoll.model.card import ModelCard
from atoll.plan.enumerate import Wanted
from atoll.plan.goal import Goal
from atoll.traffic.workload import OUTPUT_TOKENS, PROMPT_TOKENS, USERS, Lengths, Workload
from atoll.units import show_seconds
from atoll.workflows.boxes import named_box, with_gpu_names
from atoll.workflows.plan import kinds_of, plan_model
from atoll.workflows.simulate import simulate_run

WORTH_SAYING = 0.10  # relative; a smaller gain is within the simulator's own error


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The layout in the files and a better one, under one load."""

    file: str
    yours: Layout
    better: Layout
    workload: Workload
    yours_predicted: Summary
    better_predicted: Summary

    @property
    def sentence(self) -> str:
        load = f"{self.workload.users} users, prompts of {self.workload.prompt.mean:g} and answers of"
        return (
            f"{self.file}: {_shape(self.yours)}, {_figures(self.yours_predicted)};"
            f" {_shape(self.better)}, {_figures(self.better_predicted)}"
            f" (simulated: {load} {self.workload.output.mean:g} tokens)."
        )

    def to_plain(self) -> dict[str, object]:
        return {
            "file": self.file,
            "sentence": self.sentence,
            "yours": {"name": _shape(self.yours), "predicted": self.yours_predicted.to_plain()},
            "better": {
                "name": _shape(self.better),
                "replicas": [list(replica.gpus) for replica in self.better.replicas],
                "predicted": self.better_predicted.to_plain(),
            },
        }


def _shape(layout: Layout) -> str:
    """`2xTP2 on 0,1 and 2,3, least_conn`."""
    sizes = {(replica.tensor_parallel, replica.pipeline_parallel) for replica in layout.replicas}
    tp, pp = max(sizes)
    name = f"{len(layout.replicas)}xTP{tp}" + (f"xPP{pp}" if pp > 1 else "")
    places = " and ".join(",".join(map(str, replica.gpus)) for replica in layout.replicas)
    policy = f", {layout.router.policy.value}" if len(layout.replicas) > 1 else ""
    return f"{name} on GPUs {places}{policy}"


def _figures(summary: Summary) -> str:
    return (
        f"predicted TTFT p95 {show_seconds(summary.ttft_s.p95)}, answer p50 {show_seconds(summary.e2e_s.p50)},"
        f" {summary.output_tokens_per_s:,.0f} tokens/s"
    )


def advise(facts: Facts, *, gpu: str | None = None) -> tuple[Advice, ...]:
    """Advice for each Compose file that names its GPUs, a known model and its flags, where there is a gain.

    Args:
        facts: what the doctor has gathered.
        gpu: the cards' kind, where no capture names it.
    """
    made = (_advise_project(facts, project, gpu) for project in facts.projects if project.origin == "compose")
    return tuple(advice for advice in made if advice is not None)


def _advise_project(facts: Facts, project: Project, gpu: str | None) -> Advice | None:
    engines = [engine for engine in facts.engines if engine.service in project.services]
    cards = {engine.card.name: engine.card for engine in engines if engine.card is not None}
    if len(cards) != 1 or any(source.folder == project.sources[0].folder for source, _ in facts.layouts):
        return None
    card = next(iter(cards.values()))
    try:
        yours = layout_of(facts, engines, card, gpu)
        if yours is None:
            return None
        workload = _workload(facts, yours)
        better = _planned(yours, card, workload)
        if better is None or _same(better, yours):
            return None
        before, after = simulate_run(yours, workload).summary, simulate_run(better, workload).summary
    except AtollError:  # what does not fit, or a card without measured times: the findings have said so
        return None
    advice = Advice(
        file=project.sources[0].path,
        yours=yours,
        better=better,
        workload=workload,
        yours_predicted=before,
        better_predicted=after,
    )
    return advice if _is_a_gain(before, after) else None


def _same(one: Layout, other: Layout) -> bool:
    return sorted(replica.gpus for replica in one.replicas) == sorted(replica.gpus for replica in other.replicas)


def _is_a_gain(before: Summary, after: Summary) -> bool:
    return after.output_tokens_per_s > (1 + WORTH_SAYING) * before.output_tokens_per_s or (
        before.ttft_s.p95 is not None
        and after.ttft_s.p95 is not None
        and after.ttft_s.p95 < (1 - WORTH_SAYING) * before.ttft_s.p95
        and after.output_tokens_per_s > (1 - WORTH_SAYING) * before.output_tokens_per_s
    )


def layout_of(facts: Facts, engines: list[ServedEngine], card: ModelCard, gpu: str | None) -> Layout | None:
    """The layout that these engines make; None when a GPU, a flag or the box is not known."""
    box = _box(facts, engines, gpu)
    replicas = [_replica(facts, engine) for engine in engines]
    if box is None or not replicas or any(replica is None for replica in replicas):
        return None
    command = engines[0].command
    if command.flags is None:  # a share of the memory above 1: no layout, and the findings say so
        return None
    try:
        return Layout(
            name="yours",
            model=command.model or card.name,
            box=box,
            replicas=tuple(replica for replica in replicas if replica is not None),
            router=_router(facts, engines),
            flags=command.flags,
            engine_version=command.release,
        )
    except ValidationError:  # a GPU given twice
        return None


def _box(facts: Facts, engines: list[ServedEngine], gpu: str | None) -> Box | None:
    box = facts.box_of(engines[0].service)
    ids = [index for engine in engines for index in facts.gpus_of(engine.service) or ()]
    if box is None:
        return named_box(gpu=gpu, gpus=max(ids) + 1) if gpu is not None and ids else None
    box = with_gpu_names(box, gpu) if gpu is not None else box
    try:
        kinds_of(box)
    except InputError:
        return None
    return box


def _replica(facts: Facts, engine: ServedEngine) -> Replica | None:
    """Its GPUs; those that it is given and does not use are left out."""
    gpus, tp, pp = facts.gpus_of(engine.service), engine.command.tensor_parallel, engine.command.pipeline_parallel
    if gpus is None and engine.service.gpus is not None and engine.service.gpus.all and tp is not None:
        gpus = tuple(range(tp))
    if gpus is None or tp is None or pp is None or len(gpus) < tp * pp:
        return None
    return Replica(gpus=gpus[: tp * pp], tensor_parallel=tp, pipeline_parallel=pp)


_POLICIES = (("least_conn", Policy.LEAST_CONN), ("random", Policy.RANDOM_TWO))


def _router(facts: Facts, engines: list[ServedEngine]) -> Router:
    upstream = next(_upstreams(facts, engines), None)
    if upstream is None:
        return Router()
    policy = next((policy for name, policy in _POLICIES if upstream.has(name)), Policy.ROUND_ROBIN)
    return Router(policy=policy, shared_zone=upstream.has("zone") or policy is Policy.ROUND_ROBIN)


def _upstreams(facts: Facts, engines: list[ServedEngine]) -> Iterator[Upstream]:
    for route in facts.upstream_routes:
        if route.location.upstream is not None and engines[0].service in route.services:
            yield route.location.upstream


def _workload(facts: Facts, layout: Layout) -> Workload:
    load = facts.load
    users = load.users or USERS
    return Workload(
        users=users,
        prompt=Lengths(mean=load.prompt_tokens or PROMPT_TOKENS),
        output=Lengths(mean=load.output_tokens or OUTPUT_TOKENS),
        requests=max(8 * users, 20 * len(layout.replicas)),
    )


def _planned(yours: Layout, card: ModelCard, workload: Workload) -> Layout | None:
    """The layout that `plan` puts first for this box and load, with the same flags."""
    found = plan_model(
        card,
        yours.box,
        Goal(workload=workload),
        model=yours.model,
        wanted=Wanted(),
        flags=yours.flags,
        engine_version=yours.engine_version,
        vary_load=False,
    )
    return found.best.layout if found.search.choices else None
