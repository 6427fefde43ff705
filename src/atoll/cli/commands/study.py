"""`atoll study run|resume|show`: every variant of a study, then the ranking and the report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from atoll.cli.options import EngineKind, Json, Language, OutPath, spoken, takes_load
from atoll.cli.show import out, progress, show_json
from atoll.errors import NoMeasurement, RunFailed
from atoll.workflows.load import LoadOptions


def register(app: typer.Typer) -> None:
    study = typer.Typer(
        help="Run the variants of a study, compare them, write the report.",
        epilog="Example: `atoll study run examples/four-h100-nvl/study.yaml`",
        no_args_is_help=True,
    )
    app.add_typer(study, name="study")
    study.command("run")(takes_load(run))
    study.command("resume")(resume)
    study.command("show")(show)


def run(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's file, study.yaml.")],
    engine: EngineKind = "simulated",
    only: Annotated[list[str] | None, typer.Option("--only", metavar="VARIANT", help="Only these variants.")] = None,
    load: LoadOptions = LoadOptions(),
    folder: OutPath = None,
    lang: Language = None,
    json: Json = False,
) -> None:
    """Run every variant of a study and write the report.

    In virtual time (`simulated`), on emulated engines behind a real nginx (`emulated`), or on vLLM (`vllm`). The load
    is the study's; an option of the load replaces just that part of it.

    Example: atoll study run examples/four-h100-nvl/study.yaml --engine simulated
    """
    from atoll.cli.live import live_view
    from atoll.workflows.study import real_roads, run_study

    with live_view(progress, silent=json, title=f"atoll study {path}") as on_progress:
        roads = real_roads(on_progress)
        result = run_study(path, engine=engine, out=folder, only=only, load=load, say=progress.print, roads=roads)
    _finish(result, lang=spoken(lang), json=json)


def resume(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's folder, or its file.")],
    engine: Annotated[str | None, typer.Option("--engine", metavar="E", help="Which of the file's runs.")] = None,
    lang: Language = None,
    json: Json = False,
) -> None:
    """Go on with a study that was cut: finished variants stay, a cut one goes on where it stopped.

    Example: atoll study resume runs/four-h100-nvl-emulated
    """
    from atoll.cli.live import live_view
    from atoll.workflows.study import find_study_folder, real_roads, resume_study

    found = find_study_folder(path, engine=engine)
    with live_view(progress, silent=json, title=f"atoll study {found}") as on_progress:
        result = resume_study(found, say=progress.print, roads=real_roads(on_progress))
    _finish(result, lang=spoken(lang), json=json)


def show(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's folder, or its file.")],
    engine: Annotated[str | None, typer.Option("--engine", metavar="E", help="Which of the file's runs.")] = None,
    lang: Language = None,
    json: Json = False,
) -> None:
    """Show the ranking of a study that was run, as far as it got.

    Example: atoll study show runs/four-h100-nvl-simulated --json
    """
    from atoll.cli.commands.study_tables import show_study, study_document
    from atoll.workflows.study import find_study_folder, read_result

    result = read_result(find_study_folder(path, engine=engine))
    if json:
        show_json(study_document(result))
    else:
        show_study(result, spoken(lang))


def _finish(result: Any, *, lang: str, json: bool) -> None:
    from atoll.cli.commands.study_tables import show_study, study_document
    from atoll.workflows.report import report_study

    written = report_study(result, lang=lang)
    if json:
        show_json(study_document(result) | {"report": str(written)})
    else:
        show_study(result, lang)
        out.print(f"Report: {written}", markup=False, soft_wrap=True)
    if not result.ranking:
        raise NoMeasurement(f"No variant of {result.study.name} ran; the reasons stand above and in {written}.")
    _refuse_silence(result, written)


def _refuse_silence(result: Any, written: Path) -> None:
    """A study that is not what was asked for ends as a failed run, after all that could be done was done."""
    missing = [variant.name for variant in result.variants if variant.run is None or not variant.run.info.complete]
    if missing:
        raise RunFailed(f"{', '.join(missing)} did not run; the reasons stand above and in {written}.")
    mute = [variant for variant in result.variants if variant.run.summary.requests.ok == 0]
    if mute:
        table = mute[0].run.table
        why = next((text for text in (*table.detail, *table.error) if text), "nothing was answered")
        raise NoMeasurement(f"No request to {', '.join(one.name for one in mute)} succeeded: {why.rstrip('.')}.")
