"""Load-test a URL and keep the run in a folder of its own."""

import asyncio
import json
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import uvloop

import atoll
from atoll.analyse.gate import Gate
from atoll.analyse.remarks import CACHED, CACHED_PROMPTS, cache_sentence, may_share
from atoll.analyse.summary import Summary, summarise
from atoll.errors import AtollError, InputError, MissingProgram
from atoll.layout.affinity import session_header
from atoll.layout.layout import Layout
from atoll.load import records
from atoll.load.live_log import FILE as LIVE_FILE
from atoll.load.live_log import note_progress
from atoll.load.pace import LoadStep, parse_steps
from atoll.load.progress import Progress
from atoll.load.prompts import Prompts
from atoll.load.run import LoadControl, LoadResult, Workers, measure_load
from atoll.load.scripts import words_of_script
from atoll.load.selfwatch import ClientReport
from atoll.load.target import Endpoint, ModelShare, RequestOptions, Timeouts, password_of, url_to_keep
from atoll.load.tokens import Counter, Vocabulary, find_tokenizer, read_vocabulary
from atoll.load.watch import Telemetry
from atoll.outside.clock import SystemClock
from atoll.outside.files import read_text, remove_files, write_whole
from atoll.outside.parquet import write_parquet
from atoll.outside.processes import hide_argument
from atoll.outside.shell import environment
from atoll.store.folder import RunInfo, claim, keep_run, name_of, start_run, with_id
from atoll.traffic.record import RecordTable, Source
from atoll.traffic.seed import fresh_seed
from atoll.traffic.slo import SLO
from atoll.traffic.trace import TraceRow, parse_trace
from atoll.traffic.workload import Workload
from atoll.units import parse_seconds

if TYPE_CHECKING:
    from atoll.load.datasets import DatasetPrompts

MOST_RETRIES = 10  # of one request; then its refusal stands
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
        return _finish(folder, info, result, workload, steps=steps, slo=slo, percentiles=percentiles)


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
    slo: SLO | None,
    percentiles: Sequence[float],
) -> BenchResult:
    """Sum up and write what is left to write; a disk that refuses costs the file, not the summary."""
    summary = summarise(result.table, workload=workload, slo=slo, percentiles=percentiles)
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
        steps=tuple(_step_result(result.table, step, slo) for step in steps),
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


def _step_result(table: RecordTable, step: LoadStep, slo: SLO | None) -> StepResult:
    """The summary of what was sent within a step."""
    rows = (table.sent_s >= step.start_s) & (table.sent_s < step.end_s)
    return StepResult(step=step, summary=summarise(table, rows=rows, slo=slo))


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
    try:
        before = {number: signal.getsignal(number) for number in words}
    except ValueError:  # not the main thread: whoever has that has the signals
        yield
        return
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


def one_duration(duration: str | None, run_time: str | None) -> str | None:
    """--duration, or --run-time, which is Locust's word for it; raises InputError when both are given and differ."""
    if duration is not None and run_time is not None and parse_seconds(duration) != parse_seconds(run_time):
        raise InputError(f"--duration {duration} and --run-time {run_time} are two words for one thing. Give one.")
    return duration or run_time


def with_own_seed(workload: Workload, *, said: bool) -> Workload:
    """The load with a seed that no run had before, unless the user or the document says one.

    The same prompts twice would be answered from the engine's prefix cache.
    """
    if said or workload.seed != Workload().seed:
        return workload
    return workload.replace(seed=fresh_seed(np.random.default_rng()))


def refuse_two_names(url: str, key: str | None, file: Path | None) -> None:
    """A name and a password in the URL are sent (HTTP Basic); a key beside them would be a second answer to who asks.

    Raises:
        InputError: both are given.
    """
    if password_of(url) and (key is not None or file is not None):
        raise InputError("The URL has a name and a password, and an API key is given beside them. Give one of the two.")


def percentiles_of(text: str | None, gates: Sequence[Gate] = ()) -> tuple[float, ...]:
    """`99.9,75`, and those that gates ask for, without the usual ones; raises InputError."""
    try:
        given = [float(piece) for piece in text.split(",")] if text else []
    except ValueError:
        given = [0.0]
    if any(not 0 < percent < 100 for percent in given):
        raise InputError(f"--percentiles {text} are none. Write them like 99.9,75.")
    asked = {*given, *(gate.percentile for gate in gates if gate.percentile is not None)}
    return tuple(sorted(asked - {50.0, 90.0, 95.0, 99.0}))


def refuse_no_users(control: Path | None, workload: Workload, steps: Sequence[LoadStep]) -> None:
    """Raises InputError where a file is to say the number of users, and there are none, or steps say it already."""
    if control is not None and not workload.is_closed:
        raise InputError("--control changes the number of users; it does not go with --rate or a trace's own times.")
    if control is not None and steps:
        raise InputError("--control and --steps both say how many users there are. Give one of them.")


def workers_of(workers: str, *, ray: bool = False) -> Workers | None:
    """Who sends: `1` is this process, `4` four of this machine, `ray://HOST:PORT` or `ray` a worker on every node.

    Raises:
        InputError: neither a number nor a Ray address.
        MissingProgram: Ray is not installed.
    """
    if workers == "1" and not ray:
        return None
    from atoll.load.ray_workers import RayActors
    from atoll.load.workers import Processes

    if ray or workers == "ray" or workers.startswith("ray://"):
        return RayActors(workers if workers.startswith("ray://") else None)
    if not workers.isdigit() or int(workers) < 1:
        raise InputError(f"--workers {workers} is no number of processes. Write 4, or ray://HOST:10001.")
    return Processes(int(workers)) if int(workers) > 1 else None


def steps_of(text: str | None) -> tuple[LoadStep, ...]:
    return () if text is None else parse_steps(text)


def trace_of(path: Path | None, *, speed: float = 1.0) -> tuple[TraceRow, ...]:
    """Rows of a trace, its times divided by `speed`; raises BadTraffic when it is none."""
    if path is None:
        return ()
    if speed <= 0:
        raise InputError(f"--trace-speed {speed:g} goes nowhere. Write 2 for twice as fast.")
    rows = parse_trace(read_text(path), origin=str(path))
    return tuple(replace(row, due_s=row.due_s / speed) for row in rows)


def words_of(
    model: str | None, tokenizer: str | None, *, chat: bool, script: str = "english"
) -> tuple[Vocabulary | None, Counter | None]:
    """The words and the counter of the model's tokenizer, when it is on this disk; None, None when it is not.

    Raises:
        InputError: the tokenizer that was named is none, or the script.
        MissingProgram: one was named and the tokenizers package is not installed.
    """
    words_of_script(script)
    variables = environment()
    home = variables.get("HF_HOME") or str(Path(variables.get("HOME", "/root")) / ".cache" / "huggingface")
    path = find_tokenizer(model, given=tokenizer, home=home)
    if path is None:
        return None, None
    try:
        return read_vocabulary(path, chat=chat, script=script)
    except MissingProgram:
        if tokenizer is not None:
            raise
        return None, None


def prompts_of(
    path: Path | None, *, seed: int, count: Counter | None, own_output: bool = False
) -> "DatasetPrompts | None":
    """Prompts of a file or folder; None without one."""
    if path is None:
        return None
    from atoll.load.conversations import read_conversations
    from atoll.load.datasets import DatasetPrompts

    found = read_conversations(path)
    return DatasetPrompts(found, origin=str(path), seed=seed, count=count, own_output=own_output)


def loads_of(text: str) -> tuple[float, ...]:
    """`1,2,4,8`; raises InputError."""
    try:
        loads = tuple(float(piece) for piece in text.split(","))
    except ValueError:
        loads = ()
    if not loads or min(loads) <= 0:
        raise InputError(f"{text!r} are no levels of load. Write them like 1,2,4,8.")
    return loads


def key_of(
    given: str | None,
    file: Path | None,
    *,
    say: Callable[[str], None],
    variables: Sequence[str] = ("ATOLL_API_KEY", "OPENAI_API_KEY"),
) -> str | None:
    """The API key: of a file, of the command line (which says who can see it there), or of the first variable set.

    Raises:
        InputError: both are given, the file cannot be read, or what is there is no key.
    """
    if file is not None:
        if given is not None:
            raise InputError("--api-key and --api-key-file are two ways to say one thing. Give one.")
        return _one_key(read_text(file).strip(), str(file))
    if given is not None:
        hide_argument(given)
        hiding = f"--api-key-file and {variables[0]} hide it"
        say(f"--api-key stands in the shell's history, and stood in `ps` for a moment; {hiding}.")
        return _one_key(given, "--api-key")
    found = environment()
    return next((_one_key(found[name], name) for name in variables if found.get(name)), None)


def _one_key(text: str, place: str) -> str:
    """The text, which goes into a header: no line ends, no blanks, no bytes that are no text."""
    if not text or any(letter.isspace() or not letter.isprintable() for letter in text):
        raise InputError(f"{place} is expected to hold one key and nothing else.")
    return text


def models_of(given: Sequence[str]) -> tuple[ModelShare, ...]:
    """`a`, or several as `a=0.7 b=0.3`; the share is 1 where none is said.

    Raises:
        InputError: a share is none, or a name comes twice.
    """
    models = []
    for text in given:
        name, mark, share = text.rpartition("=")
        try:
            models.append(ModelShare(name=name, share=float(share)) if mark else ModelShare(name=text))
        except ValueError:
            models.append(ModelShare(name=text))  # an equals sign of its own
        if not 0 < models[-1].share < inf or not models[-1].name:
            raise InputError(f"--model {text}: a share is above 0, such as --model base=0.7 --model adapter=0.3.")
    if len({model.name for model in models}) < len(models):
        raise InputError("--model names one model twice. Give each of several models once, with its share.")
    return tuple(models)


def fields_of(
    extra_body: str | None, *, images: Sequence[str], tools: Path | None, json_schema: Path | None
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Further fields of every request, and the URLs of pictures that every message shows.

    Raises:
        InputError: a file is not there, or holds something else.
    """
    fields = _json_object(extra_body, "--extra-body") if extra_body else {}
    if tools is not None:
        listed = _json_of(read_text(tools), str(tools))
        if not isinstance(listed, list):
            raise InputError(f'{tools} is no list of tools. Write it like [{{"type": "function", ...}}].')
        fields["tools"] = listed
    if json_schema is not None:
        schema = _json_object(read_text(json_schema), str(json_schema))
        wanted = {"name": re.sub(r"[^A-Za-z0-9_-]", "_", json_schema.stem), "schema": schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": wanted}
    from atoll.load.conversations import image_url

    return fields, tuple(image_url(given, Path()) for given in images)


def asking_of(
    *,
    models: tuple[ModelShare, ...],
    endpoint: str | None,
    stream: bool,
    exact_output: bool,
    api_key: str | None,
    headers: Sequence[str],
    fields: Mapping[str, object],
    images: tuple[str, ...],
    documents: int,
    length_field: str,
    usage: bool,
    omit: Sequence[str],
    session_header: str | None,
    request_ids: str | None,
    retry_after: bool,
    script: str,
    connect_timeout: str,
    token_timeout: str,
    timeout: str | None,
    insecure: bool,
    ca_file: str | None,
    proxy: str | None,
    replica_header: str,
) -> RequestOptions:
    """The RequestOptions of a command line."""
    if endpoint is not None and endpoint not in set(Endpoint):
        raise InputError(f"--endpoint {endpoint} is not one of {', '.join(Endpoint)}.")
    if session_header is not None:
        _header(f"{session_header}: x")
    if request_ids is not None and not re.fullmatch(r"[!-~]*", request_ids):
        raise InputError(f"--request-ids {request_ids!r} does not fit into a header.")
    if not re.fullmatch(r"\w+", length_field):
        raise InputError(f"--length-field {length_field!r} is no field's name. Write max_completion_tokens.")
    return RequestOptions(
        model=models[0].name if models else None,
        models=models if len(models) > 1 else (),
        endpoint=None if endpoint is None else Endpoint(endpoint),
        stream=stream,
        exact_output=exact_output,
        api_key=api_key,
        headers=dict(_header(text) for text in headers),
        extra_body=fields,
        images=images,
        documents=documents,
        length_field=length_field,
        usage=usage,
        omit=tuple(omit),
        session_header=session_header,
        request_ids=request_ids,
        retries=MOST_RETRIES if retry_after else 0,
        script=script,
        timeouts=Timeouts(
            connect_s=parse_seconds(connect_timeout),
            token_s=parse_seconds(token_timeout),
            request_s=None if timeout is None else parse_seconds(timeout),
        ),
        verify_tls=not insecure,
        ca_file=ca_file,
        proxy=proxy,
        replica_header=replica_header,
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    is_token = re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()) is not None
    if not colon or not is_token or not value.replace("\t", "").isprintable():
        raise InputError(f"--header {text!r} is no header. Write it like 'X-Name: value'.")
    return name.strip(), value.strip()


def _json_of(text: str, what: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{what} is no JSON: {error}.") from None


def _json_object(text: str, what: str) -> dict[str, object]:
    plain = _json_of(text, what)
    if not isinstance(plain, dict):
        raise InputError(f"{what} is no JSON object. Write it like '{{\"top_p\": 0.9}}'.")
    return plain
