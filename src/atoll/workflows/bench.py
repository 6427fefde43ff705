"""Load-test a URL and keep the run in a folder of its own."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import uvloop

import atoll
from atoll.analyse.remarks import CACHED, CACHED_PROMPTS, cache_sentence, may_share
from atoll.analyse.summary import Summary, summarise
from atoll.errors import AtollError, InputError
from atoll.layout.affinity import session_header
from atoll.layout.layout import Layout
from atoll.load import records
from atoll.load.live_log import FILE as LIVE_FILE
from atoll.load.live_log import note_progress
from atoll.load.pace import LoadStep
from atoll.load.progress import Progress
from atoll.load.prompts import Prompts
from atoll.load.run import LoadControl, LoadResult, Workers, measure_load
from atoll.load.selfwatch import ClientReport
from atoll.load.target import RequestOptions, password_of, url_to_keep
from atoll.load.tokens import Vocabulary
from atoll.load.watch import Telemetry
from atoll.outside.clock import SystemClock
from atoll.outside.files import remove_files, write_whole
from atoll.outside.parquet import write_parquet
from atoll.outside.processes import hide_argument
from atoll.store.folder import RunInfo, claim, keep_run, name_of, start_run, with_id
from atoll.traffic.record import RecordTable, Source
from atoll.traffic.slo import SLO
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Workload

INTERRUPTED, TERMINATED = "interrupted", "terminated"


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """A step of load and what was measured of the requests sent in it."""

    step: LoadStep
    summary: Summary


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchResult:
    """A finished load test, or what there is of one that was stopped."""

    folder: Path
    info: RunInfo
    table: RecordTable
    summary: Summary
    client: ClientReport
    prompts: str  # how the prompts' token counts were made
    stopped: str | None = None  # interrupted, terminated, or None
    steps: tuple[StepResult, ...] = ()
    trouble: str | None = None  # why the run's folder is not whole: a full disk
    seed: int = 1  # of lengths, times and texts


def bench(
    url: str,
    workload: Workload,
    *,
    folder: Path | None = None,
    name: str | None = None,
    engine: str = "external",
    layout: Layout | None = None,
    options: RequestOptions | None = None,
    trace: Sequence[TraceRow] = (),
    prompts: Prompts | None = None,
    vocabulary: Vocabulary | None = None,
    steps: Sequence[LoadStep] = (),
    metrics: Sequence[str] | None = None,
    slo: SLO | None = None,
    model_slos: Mapping[str, SLO] = MappingProxyType({}),
    drain_s: float | None = None,
    workers: Workers | None = None,
    answer_s: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    force: bool = False,
    notes: Sequence[str] = (),
    percentiles: Sequence[float] = (),
    control_file: Path | None = None,
) -> BenchResult:
    """Run the load, write the run's folder, sum it up. Blocks until it is done.

    Ctrl-C and SIGTERM end the load and give what was measured until then (`stopped` says so); a second one ends the
    process at once.

    Args:
        url: see `atoll.load.target.parse_target`.
        workload: who sends what, for how long.
        folder: of the run; None: `runs/bench-DATE-TIME` under the current folder.
        name: of the run; None: the folder's.
        engine: what answers: emulated, vllm, or external for somebody else's server.
        layout: what is served, when it is known; kept with the run.
        options: model, endpoint, key, headers, timeouts; see `atoll.load.target`.
        trace: rows for a workload that takes its requests from a trace.
        prompts: what the users say; None: synthetic text.
        vocabulary: words for synthetic text; None: the server is asked how many tokens they are.
        steps: how the load changes over the run.
        metrics: URLs of the engines' /metrics, one a replica; None tries the server's own.
        drain_s: how long answers may go on after the last sending; None: to their end.
        workers: who sends; None: this process.
        answer_s: how long one answer is expected to take, over which users start; None: one request tells.
        on_progress: called twice a second.
        slo: latency targets, for goodput.
        model_slos: those of single models, where the run asks several.
        force: a run that is in the folder may go.
        notes: what is worth keeping with the run.
        percentiles: further ones that are wanted, such as 99.9.
        control_file: says how many users there are to be, while it runs.

    Raises:
        InputError: something given makes no sense, or the folder already holds something.
        RunFailed: the server cannot be asked at all.
    """
    hide_argument(password_of(url))
    options, clock = _with_session_header(options or RequestOptions(), layout), SystemClock()
    folder = folder or new_folder()
    with claim(folder, force=force):
        info = RunInfo(
            name=name or name_of(folder),
            engine=engine,
            source=Source.of_engine(layout.engine if layout is not None else engine),  # of a run that is cut too
            model=options.model,
            url=url_to_keep(url),
            notes=tuple(notes),
            started_at=clock.wall(),
            atoll_version=atoll.__version__,
        )
        info = with_id(folder, info)
        start_run(folder, info, layout=layout, workload=workload)
        control = LoadControl()
        work = measure_load(
            url,
            workload,
            options=options,
            trace=trace,
            prompts=prompts,
            vocabulary=vocabulary,
            steps=steps,
            metrics=metrics,
            folder=folder,
            drain_s=drain_s,
            on_progress=note_progress(folder, on_progress),
            control=control,
            clock=clock,
            workers=workers,
            answer_s=answer_s,
            control_file=control_file,
        )
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, _signals(runner, control):
                result = runner.run(work)
        except AtollError:
            _take_back(folder)
            raise
        summed = partial(summarise, slo=slo, model_slos=model_slos, percentiles=percentiles)
        return _finish(folder, info, result, workload, steps=steps, summed=summed)


def _with_session_header(options: RequestOptions, layout: Layout | None) -> RequestOptions:
    """Users of a layout whose router goes by session name theirs, as the simulator takes for granted."""
    header = session_header(layout.router) if layout is not None else None
    return options if header is None or options.session_header is not None else replace(options, session_header=header)


def _take_back(folder: Path) -> None:
    """Remove what was written of a run that did not begin."""
    if records.has_records(folder):
        return
    remove_files(folder, ("run.yaml", "workload.yaml", "layout.yaml", LIVE_FILE))


def _finish(
    folder: Path,
    info: RunInfo,
    result: LoadResult,
    workload: Workload,
    *,
    steps: Sequence[LoadStep],
    summed: Callable[..., Summary],
) -> BenchResult:
    """Sum up and write what is left to write; a disk that refuses costs the file, not the summary."""
    summary = summed(result.table, workload=workload)
    summary = _with_engines_cache(summary, result.telemetry, workload)
    notes = (*info.notes, *result.notes, *((result.client.verdict,) if result.client.limited else ()))
    if result.disk is not None:
        notes += (f"The disk refused records for a while: {result.disk}.",)
    info = info.replace(
        model=result.model,
        url=result.url,
        started_at=result.started_at,
        source=Source.EMULATED if Source.EMULATED in {info.source, result.source} else result.source,
        notes=notes,
    )
    trouble = keep_run(folder, info, result.table, summary)
    try:
        write_whole(folder / "client.json", result.client.to_json())
        if len(result.telemetry):
            write_parquet(folder / "telemetry.parquet", result.telemetry.columns())
        if trouble is None:
            records.remove(folder)
    except InputError as error:
        trouble = trouble or str(error)
    return BenchResult(
        folder=folder,
        info=info.replace(complete=trouble is None),
        table=result.table,
        summary=summary,
        client=result.client,
        prompts=result.prompts,
        stopped=result.stopped if result.stopped in {INTERRUPTED, TERMINATED} else None,
        steps=tuple(_step_result(result.table, step, summed) for step in steps),
        trouble=trouble,
        seed=workload.seed,
    )


def _with_engines_cache(summary: Summary, telemetry: Telemetry, workload: Workload) -> Summary:
    """The remark on the prefix cache by the engines' counters, where their answers do not tell of it.

    vLLM tells only with --enable-prompt-tokens-details; its counters are of everybody's requests, the run's and others.
    """
    if may_share(workload) or CACHED_PROMPTS in summary.remarks:
        return summary
    hits, queries = telemetry.grown("prefix_hits"), telemetry.grown("prefix_queries")
    if not queries or hits / queries < CACHED:
        return summary
    counted = {CACHED_PROMPTS: summary.requests.ok}
    return summary.replace(remarks=summary.remarks | counted, notes=(*summary.notes, cache_sentence(hits / queries)))


def _step_result(table: RecordTable, step: LoadStep, summed: Callable[..., Summary]) -> StepResult:
    """The summary of what was sent within a step."""
    rows = (table.sent_s >= step.start_s) & (table.sent_s < step.end_s)
    return StepResult(step=step, summary=summed(table, rows=rows))


def list_run(result: BenchResult, *, catalog: str | None = None) -> str | None:
    """Put the run into the catalogue that `atoll runs list` shows; gives why it is not there, if so."""
    from atoll.workflows.runs import remember  # the catalogue's modules are not needed before this

    return remember(result.folder, result.info, result.summary, catalog=catalog)


def new_folder() -> Path:
    """`runs/bench-20261122-183000`, with a number behind it when that is taken."""
    stem = time.strftime("bench-%Y%m%d-%H%M%S", time.localtime(SystemClock().wall()))
    place = Path("runs")
    names = (place / (f"{stem}-{number}" if number else stem) for number in range(1000))
    return next(path for path in names if not path.exists())


@contextmanager
def _signals(runner: asyncio.Runner, control: LoadControl) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the load; the second of them meets the default again and ends the process."""
    words = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
    if threading.current_thread() is not threading.main_thread():  # whoever has that has the signals
        yield
        return
    before = {number: signal.getsignal(number) for number in words}
    loop = runner.get_loop()

    def end(number: signal.Signals) -> None:
        for one in words:
            loop.remove_signal_handler(one)
            signal.signal(one, signal.SIG_DFL)
        control.stop(words[number])

    for number in words:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if signal.getsignal(number) is not signal.SIG_DFL:
                signal.signal(number, handler)


# What the command line's words mean.
