"""atoll model: weights, KV cache, legal splits and what fits where."""

from typing import Annotated

import typer

from atoll.cli import options
from atoll.cli.show import bold, out, show_json, show_table
from atoll.units import show_bytes, show_count
from atoll.workflows.engine_options import NOTHING, EngineOptions
from atoll.workflows.model import Fit, ModelReport, report_model


def register(app: typer.Typer) -> None:
    app.command("model", epilog="Example: `atoll model Qwen/Qwen2.5-32B-Instruct --gpu H100-NVL-94GB --context 8192`")(
        options.takes_engine(model)
    )


def model(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR|config.json", help="A known model, a folder or a file.")],
    gpu: options.GpuName = None,
    context: Annotated[int | None, typer.Option(min=1, metavar="TOKENS", help="Length of each user's text.")] = None,
    engine: EngineOptions = NOTHING,
    hub: Annotated[bool, typer.Option("--hub", help="Ask the Hugging Face hub for a model not known here.")] = False,
    json: options.Json = False,
) -> None:
    """Weights, KV cache per token, legal tensor-parallel sizes and the users that fit on each kind of GPU."""
    report = report_model(name, gpu=gpu, context=context, hub=hub, options=engine)
    if json:
        show_json(report)
        return
    _show_facts(report)
    _show_fits(report)


def _show_facts(report: ModelReport) -> None:
    active = f", {show_count(report.active_parameters)} a token" if report.experts else ""
    stored = report.quantisation.method or report.dtype
    sizes = ", ".join(str(size) for size in report.legal_tensor_parallel)
    out.print(bold(report.name, f"  {report.architecture}"))
    out.print(
        f"  weights    {show_count(report.parameters)} parameters{active}, {show_bytes(report.weight_bytes)} ({stored})"
    )
    out.print(
        f"  KV cache   {show_bytes(report.kv_bytes_per_token)} a token ({report.kv_dtype}):"
        f" {report.layers} layers, {report.kv_heads} key-value heads of {report.head_dim}{_window(report)}"
    )
    out.print(f"  context    up to {report.max_context:,} tokens")
    out.print(f"  splits     over {sizes} GPUs (tensor parallel, as vLLM allows)")
    for note in report.notes:
        out.print(f"  note       {note}")


def _window(report: ModelReport) -> str:
    attention = report.attention
    if attention.linear_layers:
        return f"; {attention.linear_layers} layers keep a fixed state instead"
    if attention.sliding_layers:
        return f"; {attention.sliding_layers} layers keep the last {attention.sliding_window:,} tokens only"
    return ""


def _show_fits(report: ModelReport) -> None:
    """One row for all kinds on which the same fits, the roomiest first; kinds on which nothing fits are left out."""
    sizes = sorted({fit.tensor_parallel for fit in report.fits})
    show_table(
        f"Users of {report.context:,} tokens each that fit (KV cache tokens), vLLM at {report.gpu_memory_utilization:g}"
        " of the memory",
        (*(f"TP {size}" for size in sizes), "on"),
        [(*cells, ", ".join(kinds)) for cells, kinds in _alike(report)],
        numbers=range(len(sizes)),
    )


def _alike(report: ModelReport) -> list[tuple[tuple[str, ...], list[str]]]:
    cells: dict[str, list[Fit]] = {}
    for fit in report.fits:
        cells.setdefault(fit.gpu, []).append(fit)
    rows: dict[tuple[str, ...], list[str]] = {}
    kept = [kind for kind, fits in cells.items() if any(fit.fits for fit in fits)] or list(cells)[:1]
    for kind in sorted(kept, key=lambda kind: -cells[kind][-1].kv_tokens):
        rows.setdefault(tuple(_cell(fit) for fit in cells[kind]), []).append(kind)
    return list(rows.items())


def _cell(fit: Fit) -> str:
    return f"{fit.users:,} ({_tokens(fit.kv_tokens)})" if fit.fits else "-"


def _tokens(count: int) -> str:
    """`724k`, `7.56M`: narrow enough for four sizes beside a card's whole name in 80 columns."""
    return f"{count / 1e6:.3g}M" if count >= 999_500 else f"{count / 1e3:.3g}k"
