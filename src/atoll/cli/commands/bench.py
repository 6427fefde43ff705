"""`atoll bench`: load-test a URL."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.gates import close_gates, gates_of, judge_run, show_gates, write_junit
from atoll.cli.options import ApiKeyFile, FailIf, Force, Json, Junit, OutPath, SloTpot, SloTtft, takes_load
from atoll.errors import InputError
from atoll.workflows.load import LoadOptions, load_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atoll.analyse.gate import Gate, Judgement
    from atoll.load.datasets import DatasetPrompts
    from atoll.traffic.workload import Workload
    from atoll.workflows.bench import BenchResult
    from atoll.workflows.capacity import Level, Sweep, UsersWithinTargets
    from atoll.workflows.stack_bench import StackRun

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL|LAYOUT|BUNDLE_DIR", help="http://host:port, .../v1 or an endpoint's path; or what was brought up."
    ),
]
RunTime = Annotated[str | None, typer.Option("--run-time", hidden=True, help="Locust's word for --duration.")]
SpawnRate = Annotated[float | None, typer.Option("--spawn-rate", "-r", metavar="R", help="Users started per second.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="M", help="Whom to ask; several share the requests: --model a=0.7 --model b=0.3."),
]
Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="E", help="chat, completions, responses, embeddings, rerank or score."),
]
Images = Annotated[
    list[str] | None, typer.Option("--image", metavar="FILE|URL", help="A picture that every message shows.")
]
Tools = Annotated[Path | None, typer.Option("--tools", metavar="FILE", help="Tools of every request, a JSON list.")]
JsonSchema = Annotated[
    Path | None, typer.Option("--json-schema", metavar="FILE", help="A JSON schema that every answer has to satisfy.")
]
Documents = Annotated[
    int, typer.Option("--documents", min=1, metavar="N", help="Held against a query, with rerank and score.")
]
LengthField = Annotated[
    str,
    typer.Option("--length-field", metavar="NAME", help="The field that limits an answer; else max_tokens."),
]
Usage = Annotated[
    bool, typer.Option("--usage/--no-usage", help="Ask for the usage of a stream, or leave stream_options out.")
]
Omit = Annotated[
    list[str] | None, typer.Option("--omit", metavar="FIELD", help="A field of the request that is left out.")
]
SessionHeader = Annotated[
    str | None,
    typer.Option(
        "--session-header",
        metavar="NAME",
        help="A header with one value a session; of a layout, the one that its router looks at.",
    ),
]
RequestIds = Annotated[
    str | None,
    typer.Option("--request-ids", metavar="TEXT", help='What X-Request-Id begins with; "" sends none.'),
]
RetryAfter = Annotated[
    bool, typer.Option("--retry-after", help="After 429 and 503 wait as the server says and send again.")
]
Stream = Annotated[bool, typer.Option("--stream/--no-stream", help="Ask for a stream, or for the answer at once.")]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", metavar="KEY", help="Else ATOLL_API_KEY or OPENAI_API_KEY is used.")
]
Header = Annotated[list[str] | None, typer.Option("--header", "-H", metavar="NAME: VALUE", help="A further header.")]
ExtraBody = Annotated[str | None, typer.Option("--extra-body", metavar="JSON", help="Further fields of each request.")]
Exact = Annotated[
    bool, typer.Option("--exact-output/--free-output", help="ignore_eos and min_tokens, so that lengths are as asked.")
]
Drain = Annotated[
    str | None, typer.Option("--drain", metavar="D", help="Cancel answers that take longer after the last sending.")
]
TokenTimeout = Annotated[str, typer.Option("--token-timeout", metavar="D", help="Longest silence within an answer.")]
Timeout = Annotated[str | None, typer.Option("--timeout", metavar="D", help="Longest time for a whole answer.")]
ConnectTimeout = Annotated[str, typer.Option("--connect-timeout", metavar="D", help="Longest time for a connection.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not check the server's certificate.")]
CaFile = Annotated[str | None, typer.Option("--ca-file", metavar="FILE", help="Certificates to trust.")]
Proxy = Annotated[str | None, typer.Option("--proxy", metavar="URL", help="HTTP proxy; none is used without this.")]
ReplicaHeader = Annotated[
    str, typer.Option("--replica-header", metavar="NAME", help="Response header that names who served.")
]
Workers = Annotated[
    str, typer.Option("--workers", metavar="N", help="Processes that share the load, or ray://HOST:10001.")
]
OnRay = Annotated[bool, typer.Option("--ray", help="A worker on every node of the Ray cluster at hand.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metrics", metavar="URL", help="An engine's /metrics to sample; one a replica."),
]
Steps = Annotated[
    str | None,
    typer.Option(
        "--steps", metavar="S", help="Users over time: 10@30s,20@1m. With --arrivals: requests per second over time."
    ),
]
TraceFile = Annotated[
    Path | None, typer.Option("--trace", metavar="FILE", help="Replay a trace: Mooncake, BurstGPT or Azure columns.")
]
TraceSpeed = Annotated[float, typer.Option("--trace-speed", metavar="X", help="Replay so many times as fast.")]
PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="PATH", help="ShareGPT JSON, JSON lines, CSV or a folder of .txt files."),
]
DatasetOutput = Annotated[
    bool, typer.Option("--dataset-output", help="Answers as long as in the file, where it knows.")
]
TokenizerAt = Annotated[
    str | None, typer.Option("--tokenizer", metavar="DIR", help="The model's tokenizer, for exact prompt lengths.")
]
Script = Annotated[
    str, typer.Option("--script", metavar="S", help="Of synthetic prompts: english, korean, japanese, chinese, ...")
]
SweepOver = Annotated[
    str | None, typer.Option("--sweep", metavar="L,L,...", help="A run at each of these numbers of users (or rates).")
]
Search = Annotated[bool, typer.Option("--search", help="Find the most users that keep --slo-ttft and --slo-tpot.")]
SloShare = Annotated[
    float, typer.Option("--slo-share", min=0.01, max=1.0, metavar="S", help="Share of requests that must keep it.")
]
MostUsers = Annotated[int, typer.Option("--max-users", min=1, metavar="N", help="Where a search stops.")]
Repeats = Annotated[
    int, typer.Option("--repeats", min=1, metavar="N", help="Runs of a level that is near the edge, in a search.")
]


Control = Annotated[
    Path | None,
    typer.Option("--control", metavar="FILE", help="A file whose number is that of the users, at any time."),
]
Percentiles = Annotated[
    str | None, typer.Option("--percentiles", metavar="P,P,...", help="Further percentiles, such as 99.9.")
]


def register(app: typer.Typer) -> None:
    app.command()(takes_load(bench))


def bench(  # noqa: PLR0915 - one branch a kind of run
    url: Url,
    load: LoadOptions = LoadOptions(),
    run_time: RunTime = None,
    spawn_rate: SpawnRate = None,
    model: Models = None,
    endpoint: Endpoint = None,
    stream: Stream = True,
    exact_output: Exact = True,
    length_field: LengthField = "max_tokens",
    usage: Usage = True,
    omit: Omit = None,
    image: Images = None,
    tools: Tools = None,
    json_schema: JsonSchema = None,
    documents: Documents = 4,
    session_header: SessionHeader = None,
    request_ids: RequestIds = None,
    retry_after: RetryAfter = False,
    api_key: ApiKey = None,
    api_key_file: ApiKeyFile = None,
    header: Header = None,
    extra_body: ExtraBody = None,
    drain: Drain = None,
    token_timeout: TokenTimeout = "5m",  # noqa: S107 - of text, not of the secret kind
    timeout: Timeout = None,
    connect_timeout: ConnectTimeout = "10s",
    insecure: Insecure = False,
    ca_file: CaFile = None,
    proxy: Proxy = None,
    replica_header: ReplicaHeader = "X-Atoll-Replica",
    steps: Steps = None,
    trace: TraceFile = None,
    trace_speed: TraceSpeed = 1.0,
    prompts: PromptsFile = None,
    dataset_output: DatasetOutput = False,
    tokenizer: TokenizerAt = None,
    script: Script = "english",
    workers: Workers = "1",
    ray: OnRay = False,
    metrics: Metrics = None,
    slo_ttft: SloTtft = None,
    slo_tpot: SloTpot = None,
    sweep: SweepOver = None,
    search: Search = False,
    slo_share: SloShare = 0.95,
    max_users: MostUsers = 1024,
    repeats: Repeats = 3,
    control: Control = None,
    percentiles: Percentiles = None,
    fail_if: FailIf = None,
    junit: Junit = None,
    out: OutPath = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Load-test an OpenAI-compatible server; every request is kept in a run folder.

    Users send back to back (--users), or requests come at a rate whether or not the server keeps up (--rate). A
    layout or a bundle brings its own load and targets, and is found where it was brought up; an option replaces just
    that part.

    Example: atoll bench http://127.0.0.1:8000 --users 30 --duration 10m --prompt 1024 --output 512
    """
    from atoll.cli.live import live_view
    from atoll.cli.show import progress
    from atoll.store.folder import make_way
    from atoll.workflows import asking, capacity, sending
    from atoll.workflows import bench as work
    from atoll.workflows.door import find_door, names_a_server
    from atoll.workflows.stack_bench import is_stack_bundle

    if out is not None:
        make_way(out, force=force)
    if is_stack_bundle(url):
        of_all = replace(load, duration=sending.one_duration(load.duration, run_time))
        _bench_stack(url, out, of_all, key=(api_key, api_key_file), force=force, json=json)
        return
    door = find_door(url)
    door.refuse_if_down()
    load_steps = sending.steps_of(steps)
    workload = load_of(
        door.workload,
        replace(load, duration=sending.one_duration(load.duration, run_time), spawn_rate=spawn_rate),
        steps=load_steps,
        traced=trace is not None,
    )
    workload = sending.with_own_seed(workload, said=load.seed is not None)
    models = asking.models_of(model or ())
    fields, images = asking.fields_of(extra_body, images=image or (), tools=tools, json_schema=json_schema)
    asking.refuse_two_names(door.url, api_key, api_key_file)
    options = asking.asking_of(
        models=models,
        endpoint=endpoint,
        stream=stream,
        exact_output=exact_output,
        api_key=asking.key_of(api_key, api_key_file, say=lambda line: progress.print(line, soft_wrap=True)),
        headers=header or (),
        fields=fields,
        images=images,
        documents=documents,
        length_field=length_field,
        usage=usage,
        omit=omit or (),
        session_header=session_header,
        request_ids=request_ids,
        retry_after=retry_after,
        script=script,
        connect_timeout=connect_timeout,
        token_timeout=token_timeout,
        timeout=timeout,
        insecure=insecure,
        ca_file=ca_file,
        proxy=proxy,
        replica_header=replica_header,
        certificate=None if ca_file is not None or door.certificate is None else str(door.certificate),
    )
    vocabulary, count = sending.words_of(
        models[0].name if models else None, tokenizer, chat=endpoint != "completions", script=script
    )
    texts = sending.prompts_of(prompts, seed=workload.seed, count=count, own_output=dataset_output)
    notes = _notes_of(texts, workload)
    rows = sending.trace_of(trace, speed=trace_speed) if trace is not None else door.trace_of(workload)
    slo, model_slos = sending.targets_of(door.slo, slo_ttft, slo_tpot, [one.name for one in models])
    gates = gates_of(fail_if or (), has_target=bool(model_slos) or (slo is not None and not slo.is_empty))
    further = sending.percentiles_of(percentiles, gates)
    sending.refuse_no_users(control, workload, load_steps)
    if search and (gates or junit is not None):
        raise InputError("A search finds what is carried within the targets; --fail-if is for a run, or for a sweep's.")

    def measure(load: "Workload", folder: Path | None) -> "BenchResult":
        with live_view(progress, silent=json, title=f"atoll bench {door.url}") as on_progress:
            result = work.bench(
                door.url,
                load,
                folder=folder,
                layout=door.layout,
                options=options,
                trace=rows,
                prompts=None if texts is None else texts.with_seed(load.seed),
                vocabulary=vocabulary,
                steps=load_steps,
                metrics=metrics or door.metrics,
                slo=slo,
                model_slos=model_slos,
                force=force,
                drain_s=_seconds(drain),
                workers=sending.workers_of(workers, ray=ray),
                notes=notes,
                percentiles=further,
                control_file=control,
                answer_s=door.answer_s(load, rows),
                on_progress=on_progress,
            )
        if (trouble := work.list_run(result)) is not None:
            progress.print(trouble, markup=False, soft_wrap=True)
        return result

    def say(words: str) -> None:
        if not json:
            progress.print(words)

    if sweep is not None:
        levels = capacity.sweep(workload, sending.loads_of(sweep), out or work.new_folder(), measure=measure, say=say)
        _end_sweep(levels, gates, url=door.url, junit=junit, json=json)
    elif search:
        most = capacity.search_users(
            workload,
            out or work.new_folder(),
            slo=slo,
            share=slo_share,
            highest=max_users,
            repeats=repeats,
            measure=measure,
            say=say,
        )
        _show_capacity(most, json=json)
        _refuse_silence(most.levels, door.url)
    else:
        result = measure(workload, out)
        bundle = None if names_a_server(url) else url
        _end_run(result, gates, junit=junit, json=json, bundle=bundle)


def _bench_stack(
    url: str, out: Path | None, load: LoadOptions, *, key: tuple[str | None, Path | None], force: bool, json: bool
) -> None:
    """Each model its own load, all at the same time; one page."""
    from atoll.cli.show import progress, show_json
    from atoll.load.target import RequestOptions
    from atoll.workflows import asking, sending
    from atoll.workflows.bench import new_folder
    from atoll.workflows.stack_bench import bench_stack

    made = bench_stack(
        Path(url),
        out or new_folder(),
        options=RequestOptions(api_key=asking.key_of(*key, say=lambda line: progress.print(line, soft_wrap=True))),
        with_load=lambda own: sending.with_own_seed(load_of(own, load), said=load.seed is not None),
        force=force,
    )
    if json:
        show_json({"runs": {run.layout.name: run.summary.to_plain() for run in made.runs}, "report": str(made.report)})
    else:
        _show_stack(made)


def _show_stack(made: "StackRun") -> None:
    from atoll.cli.show import out, table
    from atoll.units import show_seconds

    columns = ["model", "sent", "failed", "TTFT p50", "p95", "TPOT", "answer", "tok/s", "good"]
    rows = []
    for run in made.runs:
        summary, good = run.summary, run.summary.goodput
        row = [run.layout.name, f"{summary.requests.sent:,}", f"{summary.requests.failed:,}"]
        row += map(show_seconds, (summary.ttft_s.p50, summary.ttft_s.p95, summary.tpot_s.p50, summary.e2e_s.p50))
        rows.append([*row, f"{summary.output_tokens_per_s:,.0f}", "-" if good is None else f"{good.share:.0%}"])
    out.print(table(f"{made.stack.name}: all at the same time", columns, rows, numbers=range(1, 9), wrap=(0,)))
    out.print(f"Runs in {made.folder}; report: {made.report}", markup=False, soft_wrap=True)


def _seconds(text: str | None) -> float | None:
    from atoll.units import parse_seconds

    return None if text is None else parse_seconds(text)


def _notes_of(texts: "DatasetPrompts | None", workload: "Workload") -> tuple[str, ...]:
    """What is not as it was wanted, said at once and kept with the run."""
    from atoll.cli.show import progress

    if texts is None or texts.note is None:
        return ()
    note = f"{texts.note}: --output {workload.output.words} is used."
    progress.print(note, markup=False, soft_wrap=True)
    return (note,)


def _end_run(
    result: "BenchResult", gates: "Sequence[Gate]", *, junit: Path | None, json: bool, bundle: str | None
) -> None:
    judged = judge_run(result.summary, gates)
    _show(result, judged, json=json, bundle=bundle)
    write_junit(judged, junit, suite=f"atoll bench {result.info.url}", seconds=result.summary.duration_s)
    _end(result)
    close_gates(judged)


def _end_sweep(levels: "Sweep", gates: "Sequence[Gate]", *, url: str, junit: Path | None, json: bool) -> None:
    runs = [run for level in levels.levels for run in level.runs]
    judged = [one for run in runs for one in judge_run(run.summary, gates, name=run.info.name)]
    _show_sweep(levels, json=json, judged=judged)
    write_junit(judged, junit, suite=f"atoll bench {url}")
    _refuse_silence(levels.levels, url)
    close_gates(judged)


def _show(result: "BenchResult", judged: "Sequence[Judgement]", *, json: bool, bundle: str | None) -> None:
    from atoll.cli.bench_tables import bench_json, show_bench
    from atoll.cli.show import show_json

    if json:
        show_json(bench_json(result) | ({"gates": list(judged)} if judged else {}))
    else:
        show_bench(result, bundle=bundle)
        show_gates(judged)


def _show_sweep(levels: "Sweep", *, json: bool, judged: "Sequence[Judgement]") -> None:
    from atoll.cli.bench_tables import levels_json, show_levels
    from atoll.cli.show import out, show_json

    if json:
        show_json(
            {
                "levels": levels_json(levels.levels),
                "knee": levels.knee,
                "still_helps_at": levels.still_helps_at,
                "seed": levels.seed,
                **({"gates": list(judged)} if judged else {}),
            }
        )
        return
    show_levels(levels.levels)
    if levels.knee is not None:
        out.print(f"More load stops helping at about {levels.knee:g} (most throughput per latency).")
    if levels.still_helps_at is not None:
        highest = f"{levels.still_helps_at:g}"
        out.print(f"More load still helped at {highest}, the highest level; where it stops lies beyond.")
    out.print(f"Seed {levels.seed}; --seed {levels.seed} sends the same requests again.")
    show_gates(judged)


def _show_capacity(most: "UsersWithinTargets", *, json: bool) -> None:
    from atoll.cli.bench_tables import levels_json, show_levels
    from atoll.cli.show import bold, out, show_json

    if json:
        shown: dict[str, Any] = {"users": most.users, "share": most.share, "limited": most.limited}
        shown |= {"at_least": most.at_least, "at_most": most.at_most, "in_doubt": bool(most.in_doubt)}
        show_json(shown | {"levels": levels_json(most.levels)})
        return
    show_levels(most.levels)
    out.print(bold(f"{most.users} users", f" is the most of whose requests {most.share:.0%} keep within the targets."))
    if most.in_doubt:
        least, last = most.at_least, "more" if most.at_most is None else f"{most.at_most}"
        requests = min(level.counted for level in most.in_doubt)
        words = (
            f"The edge lies between {least} and {last} users: {requests} requests a level are too few to tell nearer."
        )
        out.print(f"{words} A longer --duration or more --repeats would.")
    if most.limited:
        out.print("This is a lower bound: the search met --max-users, or the client was the limit at some level.")


def _refuse_silence(levels: "Sequence[Level]", url: str) -> None:
    """NoMeasurement when not one request of all levels was answered."""
    from atoll.errors import NoMeasurement

    if not any(run.summary.requests.ok for level in levels for run in level.runs):
        raise NoMeasurement(f"No request to {url} succeeded at any level.")


def _end(result: "BenchResult") -> None:
    """Exit as the run ended: 130 by hand, 143 by SIGTERM, 1 without one answer or when the disk refused the records."""
    from atoll.errors import Interrupted, NoMeasurement, RunFailed

    if result.stopped == "interrupted":
        raise Interrupted(f"Stopped by hand; what was measured is in {result.folder}.")
    if result.stopped == "terminated":
        raise typer.Exit(143)
    if result.summary.requests.ok == 0:
        failures = result.summary.failures
        words = "; ".join(
            f"{one.error} {one.count}" + (f": {one.sentence}" if one.sentence else "") for one in failures
        )
        cancelled = result.summary.requests.cancelled
        words = words or (f"cancelled {cancelled}" if cancelled else "nothing was sent")
        raise NoMeasurement(f"No request to {result.info.url} succeeded ({words}); the records are in {result.folder}.")
    if result.trouble is not None:
        raise RunFailed(f"The run is measured, but {result.folder} is not whole: {result.trouble}")
