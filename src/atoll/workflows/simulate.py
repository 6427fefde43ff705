"""Layouts under a load, in virtual time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

import atoll
from atoll.analyse.band import Band
from atoll.analyse.summary import Summary, summarise
from atoll.cost.band import relative_band
from atoll.cost.profile import MachineProfile
from atoll.documents import parse_yaml
from atoll.engines import find_engine
from atoll.engines.engine import BLOCK_TOKENS
from atoll.engines.spec import DEFAULT_ENGINE
from atoll.errors import AtollError, InputError, NothingFits
from atoll.inventory.islands import best_groups
from atoll.layout.layout import EngineFlags, Layout, Replica, Router
from atoll.layout.study import Study, study_layouts
from atoll.layout.trouble import Failure, Slowness
from atoll.misfits import misfit
from atoll.model.card import ModelCard
from atoll.model.read import check_name, read_model
from atoll.outside.files import read_text
from atoll.plan.goal import Goal
from atoll.plan.score import Station, score_stations_of
from atoll.simulate.equip import Equipment, equip_layout
from atoll.simulate.run import Conditions, Outage, simulate_layout
from atoll.store.folder import RunInfo, finish_run, name_of, start_run, with_id
from atoll.traffic.record import RecordTable, Source
from atoll.traffic.slo import SLO
from atoll.traffic.start import settle_start, with_mean_lengths
from atoll.traffic.trace import TraceRow, parse_trace
from atoll.traffic.workload import Workload
from atoll.units import parse_seconds
from atoll.workflows.boxes import box_of_study, named_box
from atoll.workflows.profiles import read_profile
from atoll.workflows.runs import remember
from atoll.workflows.traces import trace_beside

_AS_IT_SHOULD_BE = Conditions()
LAYOUT_FILE = "layout.yaml"  # in a bundle, and in the folder of a run


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedRun:
    """One layout under one load."""

    layout: Layout
    workload: Workload
    equipment: Equipment
    table: RecordTable
    summary: Summary
    band: Band | None = None  # of the means, around 1; None: no band is known


def simulate(
    layout: Layout,
    workload: Workload,
    *,
    card: ModelCard | None = None,
    profile: MachineProfile | None = None,
    trace: Sequence[TraceRow] = (),
    conditions: Conditions = _AS_IT_SHOULD_BE,
) -> RecordTable:
    """The records of a layout under a load.

    Users that are to start spread do so over the time of one answer, as it is predicted.

    Args:
        layout: what is simulated.
        workload: the load.
        card: the model, when it is read already; None: by the layout's name for it.
        profile: what calibration found on this machine.
        trace: rows for a workload that takes its requests from a trace.
        conditions: failures, slow replicas.

    Raises:
        UnknownModel, UnknownGpu: a name that the catalogues do not have.
        NothingFits: the model does not fit on a replica.
        BadTraffic: the workload asks for a trace and there is none.
    """
    card = card or read_model(layout.model)
    equipment = equipment_for(layout, card, profile)
    return simulate_layout(
        layout,
        card,
        settle_start(workload, predicted_answer_s(layout, equipment, workload, trace)),
        timers=equipment.timers,
        kv_blocks=equipment.kv_blocks,
        limits=equipment.limits,
        trace=trace,
        conditions=conditions,
    )


def predicted_answer_s(
    layout: Layout, equipment: Equipment, workload: Workload, trace: Sequence[TraceRow] = ()
) -> float | None:
    """How long one answer takes under the load, by the planner's formula; None in an open loop.

    It says over which time users start, in simulate, bench and study alike.
    """
    if not workload.is_closed:
        return None
    stations = [
        Station(
            timer=timer,
            kv_tokens=BLOCK_TOKENS * blocks,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
        )
        for timer, blocks, limits in zip(equipment.timers, equipment.kv_blocks, equipment.limits, strict=True)
    ]
    goal = Goal(workload=with_mean_lengths(workload, trace))
    return score_stations_of(layout, stations, goal).summary.e2e_s.mean


def expected_answer_s(
    layout: Layout, workload: Workload, *, profile: MachineProfile | None = None, trace: Sequence[TraceRow] = ()
) -> float | None:
    """What `predicted_answer_s` says of a layout; None where it says nothing: a card or a model that is not known."""
    try:
        equipment = equipment_for(layout, read_model(layout.model), profile)
    except AtollError:
        return None
    return predicted_answer_s(layout, equipment, workload, trace)


@lru_cache(maxsize=256)
def equipment_for(layout: Layout, card: ModelCard, profile: MachineProfile | None = None) -> Equipment:
    """Timers, KV blocks and scheduler limits of a layout, remembered: a timer keeps what it has worked out."""
    return equip_layout(layout, card, profile=profile)


def simulate_run(
    layout: Layout,
    workload: Workload,
    *,
    slo: SLO | None = None,
    profile: MachineProfile | None = None,
    trace: Sequence[TraceRow] = (),
    conditions: Conditions = _AS_IT_SHOULD_BE,
) -> SimulatedRun:
    """Simulate and sum up; see `simulate` for arguments and errors."""
    card = read_model(layout.model)
    table = simulate(layout, workload, card=card, profile=profile, trace=trace, conditions=conditions)
    return SimulatedRun(
        layout=layout,
        workload=workload,
        equipment=equipment_for(layout, card, profile),
        table=table,
        band=relative_band(layout, card),
        summary=summarise(table, workload=workload, slo=slo),
    )


def plain_layout(
    *,
    capture: str | None,
    gpu: str | None,
    gpus: int | None,
    tensor_parallel: int,
    replicas: int,
    model: str | None,
    flags: EngineFlags,
    pipeline_parallel: int = 1,
    engine_version: str,
) -> Layout:
    """So many replicas of one size, on the best groups of the box's GPUs.

    Raises:
        InputError: no box, no model, or more GPUs than the box has.
    """
    if model is None:
        raise InputError("Say which model: --model NAME, such as Qwen/Qwen2.5-32B-Instruct.")
    check_name(model)
    find_engine(DEFAULT_ENGINE).parse_version(engine_version)
    size = tensor_parallel * pipeline_parallel
    wanted = size * replicas
    box = named_box(capture=capture, gpu=gpu, gpus=gpus or (wanted if capture is None else None))
    if wanted > len(box.gpus):
        raise InputError(
            f"--tp {tensor_parallel}{f' --pp {pipeline_parallel}' if pipeline_parallel > 1 else ''} --replicas"
            f" {replicas} needs {wanted} GPUs; this box has {len(box.gpus)}."
        )
    groups = best_groups(box, [size] * replicas)
    return Layout(
        name=f"{replicas}xTP{tensor_parallel}" + (f"PP{pipeline_parallel}" if pipeline_parallel > 1 else ""),
        model=model,
        box=box,
        replicas=tuple(
            Replica(gpus=group, tensor_parallel=tensor_parallel, pipeline_parallel=pipeline_parallel)
            for group in groups
        ),
        flags=flags,
        engine_version=engine_version,
    )


def with_router(layout: Layout, *, policy: str | None, workers: int | None) -> Layout:
    """The layout with another policy, or with so many nginx workers that share nothing; raises BadDocument."""
    if policy is None and workers is None:
        return layout
    changes: dict[str, object] = {} if policy is None else {"policy": policy}
    if workers is not None:
        changes |= {"workers": workers, "shared_zone": False}
    return layout.replace(router=Router.from_plain(layout.router.to_plain() | changes, origin="router"))


def conditions_of(
    fail: Sequence[str], slow: Sequence[str], drain: str | None, *, replicas: int, duration_s: float | None
) -> Conditions:
    """Failures (`1@2m-3m`), slow replicas (`1=1.5`), and how long answers may go on after the last sending.

    Raises:
        InputError: one of them makes no sense, or `drain` without a duration.
    """
    if drain is not None and duration_s is None:
        raise InputError("--drain counts from the end of --duration; say how long the load lasts.")
    return Conditions(
        outages=tuple(parse_outage(text, replicas=replicas) for text in fail),
        slowdown=parse_slowdown(slow, replicas=replicas),
        cut_s=None if drain is None or duration_s is None else duration_s + parse_seconds(drain),
    )


def keep_run(run: SimulatedRun, folder: Path, *, study: str | None = None) -> str | None:
    """Write the run's folder, which `atoll compare` and `atoll report` read, and put it into the catalogue.

    Gives why it is not in the catalogue, if so.
    """
    info = RunInfo(
        name=name_of(folder),
        engine="simulated",
        source=Source.SIMULATED,
        model=run.layout.model,
        atoll_version=atoll.__version__,
    )
    info = with_id(folder, info)
    start_run(folder, info, layout=run.layout, workload=run.workload)
    finish_run(folder, info, run.table, run.summary)
    return remember(folder, info, run.summary, layout=run.layout, study=study)


def simulate_study(
    study: Study,
    folder: Path,
    *,
    only: Sequence[str] | None = None,
    out: Path | None = None,
    slo: SLO | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[SimulatedRun | tuple[str, str], ...]:
    """Every variant under the study's workload, in its order; one that does not fit is (name, reason).

    Args:
        study: the document.
        folder: where its box's capture, its trace and its machine's profile are looked for.
        only: names of the variants that are wanted.
        out: keep the runs in folders under this one.
        slo: latencies that requests should keep.
        say: is told where a run could not be put into the catalogue.
    """
    runs: list[SimulatedRun | tuple[str, str]] = []
    trace = trace_beside(folder, study.workload)
    profile = read_profile(folder / study.profile if study.profile else None)
    for layout in layouts_of_study(study, folder, only=only):
        try:
            run = simulate_run(
                layout,
                study.workload,
                slo=slo,
                profile=profile,
                trace=trace,
                conditions=conditions_of_variant(study, layout),
            )
        except NothingFits as error:
            runs.append((layout.name, str(error)))
            continue
        if out is not None:
            trouble = keep_run(run, out / layout.name, study=study.name)
            if trouble is not None:
                say(trouble)
        runs.append(run)
    return tuple(runs)


def read_layout_or_study(path: Path) -> Layout | Study:
    """What the file holds: a study has variants, a layout has replicas. Of a bundle's folder it is layout.yaml.

    Raises:
        BadDocument: neither.
    """
    path = path / LAYOUT_FILE if (path / LAYOUT_FILE).is_file() else path
    origin = str(path)
    plain = parse_yaml(read_text(path), origin=origin)
    if isinstance(plain, dict) and "variants" in plain:
        return Study.from_plain(plain, origin=origin)
    return Layout.from_plain(plain, origin=origin)


def layouts_of_study(study: Study, folder: Path, *, only: Sequence[str] | None = None) -> tuple[Layout, ...]:
    """The layout of every variant; the box's capture is looked for beside the study's file."""
    return study_layouts(study, box_of_study(study, folder), only=only)


def read_trace(path: Path | None) -> tuple[TraceRow, ...]:
    return () if path is None else parse_trace(read_text(path), origin=str(path))


def parse_outage(text: str, *, replicas: int) -> Outage:
    """`1@2m` is replica 1 dying after two minutes for good, `1@2m-3m` until the third; raises InputError."""
    try:
        failure = Failure.model_validate(text)
    except ValidationError as error:
        raise _refusal(error, f"--fail {text}") from None
    _check_replica(failure.replica, replicas, f"--fail {text}")
    return Outage(replica=failure.replica, at_s=failure.at_s, back_s=failure.back_s)


def parse_slowdown(texts: Sequence[str], *, replicas: int) -> tuple[float, ...] | None:
    """`1=1.5`: replica 1's steps take half as long again; raises InputError."""
    return _factors([_parse_slowness(text, replicas) for text in texts], replicas)


def _parse_slowness(text: str, replicas: int) -> Slowness:
    try:
        slow = Slowness.model_validate(text)
    except ValidationError as error:
        raise _refusal(error, f"--slow {text}") from None
    _check_replica(slow.replica, replicas, f"--slow {text}")
    return slow


def _factors(slow: Sequence[Slowness], replicas: int) -> tuple[float, ...] | None:
    factors = [1.0] * replicas
    for one in slow:
        factors[one.replica] = one.factor
    return tuple(factors) if slow else None


def conditions_of_variant(study: Study, layout: Layout) -> Conditions:
    """What goes wrong in the variant that became this layout."""
    trouble = study.trouble_of(layout.name)
    return Conditions(
        outages=tuple(Outage(replica=one.replica, at_s=one.at_s, back_s=one.back_s) for one in trouble.fail),
        slowdown=_factors(trouble.slow, len(layout.replicas)),
    )


def _refusal(error: ValidationError, place: str) -> InputError:
    return InputError(f"{misfit(error.errors()[0], place=place)}.")


def _check_replica(number: int, replicas: int, place: str) -> None:
    if number >= replicas:
        raise InputError(f"{place}: there is no replica {number}; they are 0-{replicas - 1}.")
