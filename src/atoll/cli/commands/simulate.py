"""`atoll simulate`: a study, a layout, or so many replicas of a kind, in virtual time."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.cli.options import (
    BoxFile,
    Force,
    GpuCount,
    GpuName,
    Json,
    ModelName,
    OutPath,
    PolicyName,
    Profile,
    Replicas,
    SloTpot,
    SloTtft,
    TensorParallel,
    takes_engine,
    takes_load,
)
from atoll.engines.engine import BLOCK_TOKENS
from atoll.errors import InputError
from atoll.workflows.engine_options import NOTHING, EngineOptions
from atoll.workflows.load import LoadOptions, load_of, slo_of

if TYPE_CHECKING:
    from atoll.layout.layout import Layout
    from atoll.layout.study import Study
    from atoll.workflows.simulate import SimulatedRun

_Path = Annotated[Path | None, typer.Argument(metavar="STUDY|LAYOUT|BUNDLE_DIR", help="A study's or a layout's file.")]
_Only = Annotated[list[str] | None, typer.Option("--only", metavar="VARIANT", help="Of a study, only these variants.")]
_Trace = Annotated[
    Path | None, typer.Option("--trace", metavar="FILE", help="Due times and lengths of a trace, CSV or JSON lines.")
]
_Queue = Annotated[int | None, typer.Option("--max-num-queued-reqs", min=1, metavar="N", help="vLLM's option.")]
_Workers = Annotated[
    int | None, typer.Option("--workers", min=1, metavar="N", help="nginx workers without a shared zone.")
]
_Fail = Annotated[
    list[str] | None, typer.Option("--fail", metavar="R@T[-B]", help="Replica R dies at T and is back at B: 1@2m-3m.")
]
_Slow = Annotated[
    list[str] | None, typer.Option("--slow", metavar="R=F", help="Replica R's steps take F times as long: 1=1.5.")
]
_Drain = Annotated[
    str | None, typer.Option("--drain", metavar="D", help="Cancel answers that take longer after --duration.")
]


def register(app: typer.Typer) -> None:
    app.command()(takes_load(takes_engine(simulate)))


# What a file of its own says already.
_OF_THE_LAYOUT = frozenset(
    {"box", "gpu", "gpus", "tp", "replicas", "model", "max_num_queued_reqs"}
    | {field.name for field in fields(EngineOptions)}
)
_BESIDE_A_STUDY = frozenset({"path", "only", "out", "json", "slo_ttft", "slo_tpot"})


def _given(context: typer.Context) -> list[str]:
    """The options that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _refuse(names: Iterable[str], path: Path | None, why: str) -> None:
    for name in names:
        raise InputError(f"{path} {why}, so --{name.replace('_', '-')} does not go with it.")


def simulate(
    context: typer.Context,
    path: _Path = None,
    only: _Only = None,
    box: BoxFile = None,
    gpu: GpuName = None,
    gpus: GpuCount = None,
    tp: TensorParallel = None,
    replicas: Replicas = None,
    policy: PolicyName = None,
    model: ModelName = None,
    load: LoadOptions = LoadOptions(),
    trace: _Trace = None,
    engine: EngineOptions = NOTHING,
    max_num_queued_reqs: _Queue = None,
    workers: _Workers = None,
    fail: _Fail = None,
    slow: _Slow = None,
    drain: _Drain = None,
    profile: Profile = None,
    slo_ttft: SloTtft = None,
    slo_tpot: SloTpot = None,
    out: OutPath = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Say what the users of a layout would see, without a GPU and in a moment.

    The load is the one that the study, layout or bundle carries; an option of the load replaces just that part of it.
    The plain form, with --gpu, --tp, --replicas and --model, takes 30 users, prompts of 1024 and answers of 512 tokens
    and ten minutes where no option says otherwise. -o keeps the run's records in a folder.

    Example: atoll simulate --gpu H100-SXM-80GB --gpus 4 --tp 2 --replicas 2 --model Qwen/Qwen2.5-32B-Instruct
    --users 30 --prompt 2000 --output 1500 --requests 300
    """
    from atoll.layout.study import Study
    from atoll.store.folder import claim, make_way
    from atoll.workflows import simulate as work
    from atoll.workflows.profiles import read_profile
    from atoll.workflows.traces import trace_beside

    if out is not None:
        make_way(out, force=force)
    given = work.read_layout_or_study(path) if path is not None else None
    if isinstance(given, Study):
        assert path is not None
        allowed = _BESIDE_A_STUDY | set(load.given)
        _refuse([n for n in _given(context) if n not in allowed], path, "is a study with its own layouts")
        study = given.replace(workload=load_of(given.workload, load))
        slo = slo_of(None, slo_ttft, slo_tpot)
        runs = work.simulate_study(study, path.parent, only=only, out=out, slo=slo, say=_warn)
        _show_study(given, runs, json=json)
        return
    if only:
        raise InputError("--only chooses variants of a study; name a study's file.")
    if given is not None:
        _refuse([n for n in _given(context) if n in _OF_THE_LAYOUT], path, "is a layout and says so itself")
    layout = given or work.plain_layout(
        capture=box,
        gpu=gpu,
        gpus=gpus,
        tensor_parallel=tp or 1,
        replicas=replicas or 1,
        model=model,
        pipeline_parallel=engine.pp or 1,
        flags=engine.flags().replace(max_num_queued_reqs=max_num_queued_reqs),
        engine_version=engine.version,
    )
    layout = work.with_router(layout, policy=policy, workers=workers)
    workload = load_of(layout.workload, load, traced=trace is not None)
    rows = work.read_trace(trace) if path is None or trace is not None else trace_beside(path.parent, workload)
    run = work.simulate_run(
        layout,
        workload,
        slo=slo_of(layout.slo, slo_ttft, slo_tpot),
        profile=read_profile(profile),
        trace=rows,
        conditions=work.conditions_of(
            fail or (), slow or (), drain, replicas=len(layout.replicas), duration_s=workload.duration_s
        ),
    )
    if out is not None:
        with claim(out, force=force):
            trouble = work.keep_run(run, out)
        if trouble is not None:
            _warn(trouble)
    _show(run, json=json)


def _warn(sentence: str) -> None:
    from atoll.cli.show import progress

    progress.print(sentence, markup=False, soft_wrap=True)


def _show(run: "SimulatedRun", *, json: bool) -> None:
    from atoll.cli.show import show_bands, show_json, show_summary

    if json:
        show_json(run.summary.model_dump(mode="json") | _setting(run))
        return
    show_summary(run.summary, title=f"{run.layout.name}, simulated")
    show_bands({run.layout.name: run.band})


def _setting(run: "SimulatedRun") -> dict[str, Any]:
    """What the summary is of."""
    limits = run.equipment.limits  # of each replica; cards of different kinds have different defaults
    return {
        "name": run.layout.name,
        "source": "simulated",
        "band": None if run.band is None else run.band.around_means(run.summary),
        "model": run.layout.model,
        "policy": str(run.layout.router.policy),
        "replicas": _replicas(run.layout),
        "kv_tokens": [BLOCK_TOKENS * blocks for blocks in run.equipment.kv_blocks],
        "max_num_seqs": min(one.max_num_seqs for one in limits),
        "max_num_batched_tokens": min(one.max_num_batched_tokens for one in limits),
        "max_model_len": run.equipment.max_model_len,
    }


def _replicas(layout: "Layout") -> list[dict[str, Any]]:
    return [{"gpus": list(one.gpus), "tensor_parallel": one.tensor_parallel} for one in layout.replicas]


def _show_study(study: "Study", runs: "tuple[SimulatedRun | tuple[str, str], ...]", *, json: bool) -> None:
    from atoll.cli.show import out, show_bands, show_json, show_table
    from atoll.units import show_seconds

    title = study.title or study.name
    if json:
        documents = [
            {"name": run[0], "failure": run[1]}
            if isinstance(run, tuple)
            else _setting(run) | {"summary": run.summary.model_dump(mode="json")}
            for run in runs
        ]
        show_json({"study": title, "runs": documents})
        return
    rows = [
        (
            run.layout.name,
            show_seconds(run.summary.ttft_s.p50),
            show_seconds(run.summary.ttft_s.p95),
            show_seconds(run.summary.tpot_s.p50),
            show_seconds(run.summary.e2e_s.p50),
            f"{run.summary.output_tokens_per_s:,.0f}",
            str(run.summary.requests.ok),
        )
        for run in runs
        if not isinstance(run, tuple)
    ]
    columns = ("variant", "TTFT p50", "TTFT p95", "TPOT p50", "E2E p50", "tokens/s", "ok")
    show_table(f"{title}, simulated", columns, rows, numbers=range(1, 7))
    show_bands({run.layout.name: run.band for run in runs if not isinstance(run, tuple)})
    for run in runs:
        if isinstance(run, tuple):
            out.print(f"{run[0]} does not run: {run[1]}")
        elif trouble := study.trouble_of(run.layout.name).words:
            out.print(f"{run.layout.name}: {trouble}.", markup=False, soft_wrap=True)
