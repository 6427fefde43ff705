"""Run every variant of a study, resume one that was cut, and say which came first.

A study's folder:

    study.yaml  box.yaml  study-run.yaml     what is run, on what, how
    profile.yaml                             what calibration found on the machine, when the study names it
    trace.csv  (or .jsonl)                   the trace that its workload names
    VARIANT/                                 a run's folder (store/folder.py), one a variant
        predicted.json                       what the simulator said beforehand, when the run is measured
        pieces/1, pieces/2 ...               a measured run that was cut and resumed keeps its pieces here
    report.html  report-charts/

A variant is finished when its run.yaml says `complete`; a finished one is never run again.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote
from statistics import fmean
from typing import Any, Protocol

import numpy as np

import atoll
from atoll.analyse.band import Band
from atoll.analyse.rank import Contender, Place, RatioOf, rank_runs
from atoll.analyse.summary import Summary, summarise
from atoll.analyse.window import window_of
from atoll.cost.band import caution, relative_band, relative_ratio
from atoll.cost.profile import MachineProfile
from atoll.documents import Document
from atoll.engines import ENGINES
from atoll.errors import BadRun, InputError, MissingProgram, RunFailed
from atoll.inventory.box import Box
from atoll.layout.layout import Layout
from atoll.layout.study import Study, study_layouts
from atoll.load.progress import Progress
from atoll.model.card import ModelCard
from atoll.model.read import known_card
from atoll.outside.clock import Clock, SystemClock
from atoll.outside.files import alone, alone_in, read_text, write_whole
from atoll.store.folder import (
    Run,
    RunInfo,
    is_run,
    keep_run,
    read_info,
    read_run,
    start_run,
    with_id,
    write_info,
)
from atoll.traffic.record import RecordTable, Source
from atoll.traffic.workload import Workload
from atoll.units import show_seconds
from atoll.workflows.boxes import box_of_study
from atoll.workflows.load import AS_WRITTEN, LoadOptions, load_of
from atoll.workflows.profiles import read_profile, write_profile
from atoll.workflows.runs import remember
from atoll.workflows.traces import Trace, rest_of_trace, trace_beside

_SHORTEST_REST_S = 1.0  # a piece shorter than this is not worth bringing the engines up for

Say = Callable[[str], None]
Windows = tuple[tuple[float, float], ...]


class StudyRun(Document):
    """How a study is run; written when it starts, read when it is resumed."""

    engine: str
    only: tuple[str, ...] | None = None
    atoll_version: str
    started_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantResult:
    """What became of one variant."""

    name: str
    layout: Layout
    run: Run | None  # None: not run yet
    predicted: Summary | None = None
    resumed: bool = False
    relative_band: Band | None = None  # of a prediction for this layout, around 1; None: no band is known

    @property
    def band(self) -> Band | None:
        """Around the means of a simulated run; what was measured or emulated has none."""
        if self.run is None or self.run.info.source is not Source.SIMULATED or self.relative_band is None:
            return None
        return self.relative_band.around_means(self.run.summary)

    @property
    def predicted_band(self) -> Band | None:
        """Around what the simulator had said of a run that is no simulation."""
        return self.relative_band.around_means(self.predicted) if self.predicted and self.relative_band else None

    @property
    def failure(self) -> str | None:
        return self.run.info.failure if self.run is not None else None


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResult:
    """A study, run as far as it was."""

    folder: Path
    study: Study
    box: Box
    engine: str
    variants: tuple[VariantResult, ...]
    ranking: tuple[Place, ...]
    profile: MachineProfile | None = None

    @property
    def source(self) -> Source:
        """Where the figures come from: emulated as soon as one run's engine said so, whatever was asked for."""
        found = {variant.run.info.source for variant in self.variants if variant.run is not None}
        return Source.EMULATED if Source.EMULATED in found else Source.of_engine(self.engine)

    def variant(self, name: str) -> VariantResult:
        return next(variant for variant in self.variants if variant.name == name)


class Measure(Protocol):
    """Runs one layout under a workload and keeps its records in a folder as they come."""

    def __call__(
        self,
        layout: Layout,
        workload: Workload,
        folder: Path,
        *,
        engine: str,
        say: Say,
        profile: MachineProfile | None,
        trace: Trace,
    ) -> RecordTable: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Roads:
    """The two ways to records; tests hand in their own."""

    simulate: Callable[[Layout, Workload, MachineProfile | None, Trace, Study], RecordTable]
    measure: Measure
    clock: Clock


def real_roads(on_progress: Callable[[Progress], None] | None = None) -> Roads:
    """The simulator, and engines behind nginx under the load generator, which tells twice a second how it goes."""
    from atoll.workflows.measure import measure_layout

    return Roads(simulate=_simulate, measure=partial(measure_layout, on_progress=on_progress), clock=SystemClock())


def _simulate(
    layout: Layout, workload: Workload, profile: MachineProfile | None, trace: Trace, study: Study
) -> RecordTable:
    from atoll.workflows.simulate import conditions_of_variant, simulate

    conditions = conditions_of_variant(study, layout)
    return simulate(layout, workload, profile=profile, trace=trace, conditions=conditions)


def read_study(path: Path) -> tuple[Study, Box]:
    """A study's file and the box it names, relative to it; raises InputError."""
    study = Study.parse(read_text(path), origin=str(path))
    return study, box_of_study(study, path.parent)


def run_study(
    path: Path,
    *,
    engine: str,
    out: Path | None = None,
    only: Sequence[str] | None = None,
    load: LoadOptions = AS_WRITTEN,
    say: Say = lambda _: None,
    roads: Roads | None = None,
) -> StudyResult:
    """Run a study from its file.

    Args:
        path: study.yaml.
        engine: simulated, emulated or vllm.
        out: the study's folder; None: `runs/NAME-ENGINE` under the current folder.
        only: names of the variants that are wanted; None: all.
        load: what is different about the load this time, such as a shorter duration.
        say: told one line at each step.
        roads: other ways to records than the real ones.

    Raises:
        InputError: a bad study, or the folder already holds one.
    """
    study, box = read_study(path)
    study = study.replace(workload=load_of(study.workload, load))
    study_layouts(study, box, only=only)  # a wrong name is refused before anything is written
    trace_beside(path.parent, study.workload)  # and so is a bad trace
    folder = out or Path("runs") / f"{study.name}-{engine}"
    if engine not in _ways():
        raise InputError(f"--engine {engine} is not one of {', '.join(_ways())}.")
    if engine != "simulated" and study.is_troubled:
        raise InputError(
            f"{path}: fail and slow are for virtual time only; run it with --engine simulated, or leave them out."
        )
    roads = roads or real_roads()
    profile = read_profile(path.parent / study.profile if study.profile else None)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file. Choose another folder with -o.")
    with alone_in(folder, otherwise=_taken(folder)):
        if (folder / "study-run.yaml").exists():
            raise InputError(_already_there(folder, path, study))
        if any(folder.iterdir()):
            raise InputError(f"{folder} holds something else than a study. Choose another folder with -o.")
        run = StudyRun(
            engine=engine,
            only=tuple(only) if only else None,
            atoll_version=atoll.__version__,
            started_at=roads.clock.wall(),
        )
        _write_start(folder, study, run, beside=path.parent, box=box, profile=profile)
    return resume_study(folder, say=say, roads=roads)


def _write_start(
    folder: Path, study: Study, run: StudyRun, *, beside: Path, box: Box, profile: MachineProfile | None
) -> None:
    """What a study is resumed from; study-run.yaml last, which says that the others are whole."""
    if study.workload.trace is not None:
        kept = f"trace{Path(study.workload.trace).suffix}"
        write_whole(folder / kept, read_text(beside / study.workload.trace))
        study = study.replace(workload=study.workload.replace(trace=kept))
    write_whole(folder / "study.yaml", study.to_yaml())
    if profile is not None:
        write_profile(profile, folder / "profile.yaml")
    write_whole(folder / "box.yaml", box.to_yaml())
    write_whole(folder / "study-run.yaml", run.to_yaml())


def _already_there(folder: Path, path: Path, study: Study) -> str:
    kept = Study.parse(read_text(folder / "study.yaml"), origin=str(folder / "study.yaml"))
    kept = kept.replace(
        workload=kept.workload.replace(trace=study.workload.trace)
    )  # a trace is kept under another name
    changed = [name for name in Study.model_fields if getattr(kept, name) != getattr(study, name)]
    resume = f"`atoll study resume {quote(str(folder))}`"
    if changed:
        return (
            f"{folder} already holds a study, and {path} has changed since it was started ({', '.join(changed)})."
            f" Go on with the old one by {resume}, or run the new one into another folder with -o."
        )
    return f"{folder} already holds a study, this one. Go on with it by {resume}, or choose another folder with -o."


def find_study_folder(path: Path, *, engine: str | None = None) -> Path:
    """The folder of a study that was started: the folder itself, or the one that its file's runs go to.

    Raises:
        BadRun: nothing was started there.
    """
    if path.is_dir() and (path / "study-run.yaml").is_file():
        return path
    if path.is_file():
        name = Study.parse(read_text(path), origin=str(path)).name
        candidates = [Path("runs") / f"{name}-{one}" for one in ([engine] if engine else _ways())]
        started = [folder for folder in candidates if (folder / "study-run.yaml").is_file()]
        if len(started) == 1:
            return started[0]
        if started:
            raise BadRun(f"{path} was run with several engines; name one of {', '.join(map(str, started))}.")
    raise BadRun(f"No study was started in {path}. Start one with `atoll study run STUDY.yaml`.")


def resume_study(folder: Path, *, say: Say = lambda _: None, roads: Roads | None = None) -> StudyResult:
    """Run what is not finished yet; what was measured is neither lost nor measured again.

    A variant that did not run is tried again: what kept it from starting may be gone.

    Raises:
        BadRun: the folder holds no study.
        Interrupted: Ctrl-C; the piece that was under way is kept.
    """
    roads = roads or real_roads()
    before = read_result(folder, rank=False)
    with _alone_in(folder):
        took: list[float] = []
        for number, variant in enumerate(before.variants):
            if variant.run is not None and variant.run.info.complete:
                say(f"{variant.name}: already measured")
                continue
            if before.engine != "simulated":
                say(_where(before, number, took))
            began = roads.clock.now()
            if number and before.engine != "simulated" and before.study.cooldown_s:
                asyncio.run(roads.clock.sleep(before.study.cooldown_s))
            _run_variant(before, variant, say=say, roads=roads)
            took.append(roads.clock.now() - began)
    return read_result(folder)


def _where(result: StudyResult, number: int, took: Sequence[float]) -> str:
    """`variant 3 of 10, about 62 min left`: by what the finished ones took, else by the load's own time."""
    of_all = f"variant {number + 1} of {len(result.variants)}"
    left = [one for one in result.variants[number:] if one.run is None or not one.run.info.complete]
    one_s = fmean(took) if took else result.study.workload.duration_s
    return of_all if one_s is None else f"{of_all}, about {show_seconds(one_s * len(left))} left"


def read_result(folder: Path, *, rank: bool = True) -> StudyResult:
    """A study's folder, read back; variants that have not run yet have no run."""
    if not (folder / "study-run.yaml").is_file():
        raise BadRun(f"{folder} holds no study: it has no study-run.yaml.")
    how = StudyRun.parse(read_text(folder / "study-run.yaml"), origin=str(folder / "study-run.yaml"))
    study = Study.parse(read_text(folder / "study.yaml"), origin=str(folder / "study.yaml"))
    box = Box.parse(read_text(folder / "box.yaml"), origin=str(folder / "box.yaml"))
    layouts = study_layouts(study, box, only=how.only)
    card = known_card(study.model)
    variants = tuple(_read_variant(folder, layout, card) for layout in layouts)
    finished = [
        Contender(name=v.name, table=v.run.table, summary=v.run.summary, rows=v.run.measured)
        for v in variants
        if v.run is not None and v.run.info.complete
    ]
    ratios = _ratios(layouts, card) if how.engine == "simulated" else _no_ratio
    ranking = rank_runs(finished, baseline=study.baseline, ratio_of=ratios) if rank else ()
    kept = folder / "profile.yaml"
    return StudyResult(
        folder=folder,
        study=study,
        box=box,
        engine=how.engine,
        variants=variants,
        ranking=ranking,
        profile=read_profile(kept if kept.is_file() else None),
    )


def _ratios(layouts: Sequence[Layout], card: ModelCard | None) -> RatioOf:
    """How far off the simulated ratio of two variants may be; a caution where that is not known."""
    known = {layout.name: layout for layout in layouts}
    return lambda first, second: relative_ratio(known[first], known[second], card) or caution()


def _no_ratio(_first: str, _second: str) -> None:
    """Of runs that are no predictions."""


def _read_variant(folder: Path, layout: Layout, card: ModelCard | None) -> VariantResult:
    place = folder / layout.name
    predicted = place / "predicted.json"
    return VariantResult(
        name=layout.name,
        layout=layout,
        run=read_run(place) if is_run(place) else None,
        predicted=Summary.parse(read_text(predicted), origin=str(predicted)) if predicted.is_file() else None,
        resumed=len(_pieces(place)) > 1,
        relative_band=relative_band(layout, card),
    )


def _run_variant(result: StudyResult, variant: VariantResult, *, say: Say, roads: Roads) -> None:
    """One variant to its end; a failure to start is its result, not the end of the study."""
    place = result.folder / variant.name
    workload = result.study.workload
    simulated = result.engine == "simulated"
    info = RunInfo(
        name=variant.name,
        engine=result.engine,
        source=Source.of_engine(result.engine),
        model=result.study.model,
        started_at=None if simulated else roads.clock.wall(),
        atoll_version=atoll.__version__,
    )
    info = with_id(place, info)
    if not is_run(place):
        start_run(place, info, layout=variant.layout, workload=workload)
    windows: Windows = ()
    try:
        if simulated:
            trace = trace_beside(result.folder, workload)
            table = roads.simulate(variant.layout, workload, result.profile, trace, result.study)
        else:
            _predict(result, variant.layout, place, roads)
            table, windows = _measure_pieces(result, variant.layout, place, say=say, roads=roads)
            info = info.replace(source=_source_of_pieces(place))
    except (RunFailed, InputError) as error:
        if isinstance(error, MissingProgram):  # it would be missing for every variant
            raise
        reason = str(error).removeprefix(f"{variant.name}: ")
        say(f"{variant.name}: did not run: {reason}")
        write_info(place, info.replace(failure=reason))
        return
    info = info.replace(windows=windows)
    summary = summarise(table, workload=workload, spans=windows)
    trouble = keep_run(place, info, table, summary)
    if trouble:
        say(f"{variant.name}: {trouble}")
    trouble = remember(place, info, summary, layout=variant.layout, study=result.study.name)
    if trouble:
        say(trouble)
    say(f"{variant.name}: {_headline(summary)}")


def _headline(summary: Summary) -> str:
    return (
        f"{summary.requests.ok} of {summary.requests.sent} ok, TTFT p50 {show_seconds(summary.ttft_s.p50)}"
        f" p95 {show_seconds(summary.ttft_s.p95)},"
        f" {summary.output_tokens_per_s:,.0f} tokens/s"
    )


def _predict(result: StudyResult, layout: Layout, place: Path, roads: Roads) -> None:
    """What the simulator says beforehand; a layout that it cannot express is measured all the same."""
    if (place / "predicted.json").exists():
        return
    try:
        load = result.study.workload
        table = roads.simulate(layout, load, result.profile, trace_beside(result.folder, load), result.study)
    except InputError:
        return
    write_whole(place / "predicted.json", summarise(table, workload=load).to_json())


def _measure_pieces(
    result: StudyResult, layout: Layout, place: Path, *, say: Say, roads: Roads
) -> tuple[RecordTable, Windows]:
    """Measure what is left of the workload and join it to the pieces that were measured before."""
    workload, engine = result.study.workload, result.engine
    done = [read_run(piece).table for piece in _pieces(place)]
    whole = trace_beside(result.folder, workload)
    rest, trace = remaining(workload, done), rest_of_trace(whole, workload, done)
    if rest is not None and bool(trace) == bool(whole):
        piece = place / "pieces" / str(len(done) + 1)
        say(f"{layout.name}: {'resuming' if done else 'starting'} on {engine} engines")
        done.append(roads.measure(layout, rest, piece, engine=engine, say=say, profile=result.profile, trace=trace))
    return join_pieces(done, workload)


def _source_of_pieces(place: Path) -> Source:
    """Measured, unless an engine of one of the pieces said that it is emulated."""
    found = {read_info(piece).source for piece in _pieces(place)}
    return Source.EMULATED if Source.EMULATED in found else Source.MEASURED


def remaining(workload: Workload, done: Sequence[RecordTable]) -> Workload | None:
    """What is left to send after these pieces; None when nothing is."""
    changes: dict[str, object] = {}
    if workload.duration_s is not None and done:
        left = workload.duration_s - sum(piece_seconds(table) for table in done)
        if left < _SHORTEST_REST_S:
            return None
        changes["duration_s"] = left
    if workload.requests is not None and done:
        count = workload.requests - sum(len(table) for table in done)
        if count <= 0:
            return None
        changes["requests"] = count
    if done:
        changes["seed"] = workload.seed + len(done)  # other lengths than those already sent
    return workload.replace(**changes) if changes else workload


def piece_seconds(table: RecordTable) -> float:
    """How far into its time a piece got: its last sending, token or end."""
    if len(table) == 0:
        return 0.0
    return float(np.nanmax(np.concatenate([table.sent_s, table.last_token_s, table.done_s])))


def join_pieces(done: Sequence[RecordTable], workload: Workload) -> tuple[RecordTable, Windows]:
    """One table of all pieces, and its measured windows: each piece has a window of its own; none for one piece."""
    shifts, windows, at = [], [], 0.0
    for table in done:
        shifts.append(at)
        windows.append((at + window_of(table, workload).start_s, at + piece_seconds(table)))
        at += piece_seconds(table)
    whole = RecordTable.concatenate(list(zip(done, shifts, strict=True)))
    return whole, tuple(windows) if len(done) > 1 else ()


def telemetry_of(run: Run) -> dict[str, Any] | None:
    """What was sampled during a run, in its own time; of a variant of a study the samples of its pieces, joined."""
    if run.telemetry is not None:
        return run.telemetry
    parts, at = [], 0.0
    for piece in map(read_run, _pieces(run.path)):
        if piece.telemetry is not None:
            parts.append(piece.telemetry | {"time_s": piece.telemetry["time_s"] + at})
        at += piece_seconds(piece.table)
    if len(parts) < 2:
        return parts[0] if parts else None
    return {column: np.concatenate([np.asarray(part[column]) for part in parts]) for column in parts[0]}


def _ways() -> tuple[str, ...]:
    """What a study may be run on: virtual time, or an engine."""
    return ("simulated", *sorted(ENGINES))


def _pieces(place: Path) -> list[Path]:
    folder = place / "pieces"
    found = [piece for piece in folder.iterdir() if piece.name.isdigit()] if folder.is_dir() else []
    return sorted(found, key=lambda piece: int(piece.name))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two processes must not measure the same study."""
    with alone(folder / ".lock", otherwise=_taken(folder)):
        yield


def _taken(folder: Path) -> str:
    return f"Another atoll is running the study in {folder}; wait for it or stop it."
