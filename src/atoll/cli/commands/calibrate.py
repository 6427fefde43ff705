"""atoll calibrate: measure an engine or the links of this box, keep it as a machine profile."""

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli import options
from atoll.cli.show import out, progress, show_json, show_table
from atoll.cost.calibrate import DecodePoint, FittedProfile
from atoll.cost.profile import MachineProfile
from atoll.errors import InputError
from atoll.layout.layout import ENGINE_VERSION
from atoll.load.target import RequestOptions
from atoll.outside.files import refuse_to_overwrite
from atoll.units import show_seconds
from atoll.workflows import calibrate as work
from atoll.workflows.asking import key_of
from atoll.workflows.engine_options import check_version
from atoll.workflows.links import measure_links
from atoll.workflows.profiles import read_profile, write_profile


def register(app: typer.Typer) -> None:
    app.command(
        "calibrate",
        epilog="Example: `atoll calibrate http://127.0.0.1:8000 --gpu H100-NVL-94GB --tp 2 -o machine.yaml`;"
        " then `atoll plan --profile machine.yaml ...`",
    )(calibrate)


def calibrate(
    url: Annotated[str | None, typer.Argument(metavar="URL", help="An engine that serves nobody else now.")] = None,
    links: Annotated[bool, typer.Option("--links", help="Measure the links of this box instead.")] = False,
    layout: Annotated[Path | None, typer.Option("--layout", metavar="FILE", help="The layout it runs under.")] = None,
    replica: Annotated[int, typer.Option("--replica", min=0, metavar="N", help="Which engine of the layout.")] = 0,
    gpu: options.GpuName = None,
    tp: Annotated[int, typer.Option("--tp", min=1, metavar="N", help="Tensor-parallel size.")] = 1,
    model: options.ModelName = None,
    box: options.BoxFile = None,
    engine_version: Annotated[
        str, typer.Option("--engine-version", metavar="V", help="vLLM's version.")
    ] = ENGINE_VERSION,
    quick: Annotated[bool, typer.Option("--quick", help="Half the probes: under a minute.")] = False,
    profile: Annotated[
        Path | None, typer.Option("--profile", metavar="FILE", help="A profile to start from; its links are kept.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", metavar="KEY", help="For the engine; else ATOLL_API_KEY.")
    ] = None,
    api_key_file: options.ApiKeyFile = None,
    output: options.OutPath = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Measure a live engine (or, with --links, this box's all-reduce) and fit the cost model to it.

    With --gpu or --layout the profile scales the catalogue, and holds for other splits on that machine. Without, a
    straight line is fitted, which holds for more replicas of the same engine.
    """
    if output is not None:
        refuse_to_overwrite(output, force=force)
    start = read_profile(profile) or MachineProfile()
    if links:
        found = measure_links(capture=box, gpu=gpu, start=start, say=_say)
        _keep(found, output)
        _show_links(found, json=json)
        return
    if url is None:
        raise InputError("Give the URL of an engine, such as http://127.0.0.1:8000, or --links.")
    if Path(url).exists():
        raise InputError(
            f"{url} is a {'folder' if Path(url).is_dir() else 'file'}; give the URL of an engine that runs."
        )
    check_version(engine_version)
    engine = work.engine_of(
        layout=layout, replica=replica, gpu=gpu, tensor_parallel=tp, model=model, engine_version=engine_version
    )
    fit = work.calibrate(
        url,
        engine=engine,
        options=RequestOptions(api_key=key_of(api_key, api_key_file, say=_say)),
        quick=quick,
        start=start,
        say=_say,
    )
    _keep(fit.profile, output)
    if json:
        show_json({"profile": fit.profile.to_plain(), "points": _plain(fit), "mean_error": fit.mean_error})
        return
    _show_fit(fit)


def _say(line: str) -> None:
    progress.print(line, soft_wrap=True)


def _keep(profile: MachineProfile, path: Path | None) -> None:
    if path is not None:
        write_profile(profile, path)
        progress.print(f"{path} written; use it with --profile {path}", soft_wrap=True)


def _plain(fit: FittedProfile) -> list[dict[str, object]]:
    return [
        {
            "kind": "decode" if isinstance(point, DecodePoint) else "prompt",
            "sequences": point.sequences if isinstance(point, DecodePoint) else 1,
            "tokens": point.context if isinstance(point, DecodePoint) else point.tokens,
            "measured_s": point.seconds,
            "predicted_s": point.seconds * (1 + error),
        }
        for point, error in zip(fit.points, fit.errors, strict=True)
    ]


def _show_fit(fit: FittedProfile) -> None:
    show_table(
        "Measured, and what the fitted model says",
        ("what", "measured", "fitted", "error"),
        [
            (
                _what(point),
                show_seconds(point.seconds),
                show_seconds(point.seconds * (1 + error)),
                f"{error:+.1%}",
            )
            for point, error in zip(fit.points, fit.errors, strict=True)
        ],
        numbers=(1, 2, 3),
    )
    out.print(f"mean error {fit.mean_error:.1%} over {len(fit.points)} points")
    line = fit.profile.line
    factors = fit.profile.to_plain() if line is None else {"front_s": fit.profile.front_s, **line.to_plain()}
    for name, value in factors.items():
        if isinstance(value, float) and name != "fit_error":
            out.print(f"  {name:20} {value:.4g}")
    for note in fit.profile.notes:
        out.print(f"  {note}", soft_wrap=True)


def _what(point: object) -> str:
    if isinstance(point, DecodePoint):
        return f"decode step, {point.sequences} x {point.context / point.sequences:.0f} tokens"
    return f"first token of a prompt of {getattr(point, 'tokens', 0)} tokens"


def _show_links(profile: MachineProfile, *, json: bool) -> None:
    if json:
        show_json(profile)
        return
    sizes = (32 * 1024, 256 * 1024, 2**21, 2**24, 2**26)
    show_table(
        "All-reduce, microseconds",
        ("GPUs", "32 KiB", "256 KiB", "2 MiB", "16 MiB", "64 MiB", "by"),
        [
            (
                ",".join(map(str, reduce.gpus)),
                *(f"{reduce.curve.seconds(size) * 1e6:.1f}" for size in sizes),
                reduce.source,
            )
            for reduce in profile.reduces
        ],
        numbers=range(1, 6),
    )
