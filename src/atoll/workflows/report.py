"""The report of a study or of a run: one page, and each of its charts as SVG and PNG."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import atoll
from atoll.analyse.band import Band
from atoll.analyse.summary import Summary
from atoll.cost.band import band_of
from atoll.engines import find_engine
from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.layout.ports import give_ports
from atoll.model.read import known_card, read_model
from atoll.outside.files import read_text, write_whole
from atoll.render import Bundle, render_bundle
from atoll.report import (
    RunView,
    StudyView,
    chart_pdf,
    chart_png,
    chart_svg,
    draw_charts,
    draw_slide,
    render_report,
    tell_verdict,
)
from atoll.store.folder import Run, is_run, read_run
from atoll.traffic.record import Source
from atoll.workflows.diagnose import diagnose_bundle
from atoll.workflows.study import StudyResult, VariantResult, find_study_folder, read_result, telemetry_of


def report_path(path: Path, *, lang: str = "en", out: Path | None = None) -> Path:
    """Write the page of a run's or a study's folder (or a study's file).

    Args:
        path: what to report on.
        lang: `en` or `ko`.
        out: the page; None: `report.html` in the folder. Its charts go to `report-charts/` beside it.

    Raises:
        BadRun: neither a run nor a study.
    """
    if out is not None and out.suffix.lower() not in {".html", ".htm"}:
        raise InputError(f"{out}: a report is a page of HTML; name it {out.with_suffix('.html')}.")
    folder, view = _read_view(path)
    return _write(view, out or folder / "report.html", lang=lang)


def slide_path(path: Path, *, lang: str = "en", out: Path | None = None) -> Path:
    """Write the one page for a slide of a run's or a study's folder; None: `slide.pdf` there.

    Raises:
        InputError: a file that is neither .pdf, .png nor .svg, or nothing was measured that could be drawn.
        BadRun: neither a run nor a study.
    """
    if out is not None and out.suffix.lower() not in _SLIDES:
        raise InputError(f"{out}: a slide is .pdf, .png or .svg; name it {out.with_suffix('.pdf')}.")
    folder, view = _read_view(path)
    if not view.measured_runs:
        raise InputError(f"{path}: no run in it has measurements, so there is nothing for a slide.")
    page = out or folder / "slide.pdf"
    write_whole(page, _SLIDES[page.suffix.lower()](draw_slide(view, lang=lang)))
    return page


_SLIDES: Mapping[str, Callable[[dict[str, Any]], str | bytes]] = {
    ".pdf": chart_pdf, ".png": chart_png, ".svg": chart_svg,
}  # fmt: skip


def _read_view(path: Path) -> tuple[Path, StudyView]:
    """Where a page of it goes, and what stands there."""
    if path.is_dir() and is_run(path):
        return path, _view_of_run(read_run(path))
    result = read_result(find_study_folder(path))
    return result.folder, view_of_study(result)


def report_study(result: StudyResult, *, lang: str = "en", out: Path | None = None) -> Path:
    """Write the page of a study that is read already; see `report_path`."""
    return _write(view_of_study(result), out or result.folder / "report.html", lang=lang)


def report_stack(name: str, runs: Sequence[Run], page: Path, *, lang: str = "en") -> Path:
    """Write one page of the runs of a stack's models, which were under load at the same time."""
    views = [_view_of_run(run) for run in runs]
    first = views[0]
    whole = StudyView(
        name=name,
        engine=first.engine,
        source=first.source,
        box=first.box,
        runs=tuple(run for view in views for run in view.runs),
        atoll_version=first.atoll_version,
        made_on=first.made_on,
    )
    return _write(whole, page, lang=lang)


def verdict_of(result: StudyResult, *, lang: str = "en") -> tuple[str, ...]:
    """The report's finding in sentences."""
    return tell_verdict(view_of_study(result), lang=lang)


def _write(view: StudyView, page: Path, *, lang: str) -> Path:
    write_whole(page, render_report(view, lang=lang))
    for name, spec in draw_charts(view, lang=lang).items():
        write_whole(charts_folder(page) / f"{name}.svg", chart_svg(spec))
        write_whole(charts_folder(page) / f"{name}.png", chart_png(spec))
    return page


def charts_folder(page: Path) -> Path:
    """`report.html` has its charts in `report-charts/`, so two pages in one folder keep theirs apart."""
    return page.with_name(f"{page.stem}-charts")


def view_of_study(result: StudyResult) -> StudyView:
    """All that the page shows, gathered."""
    bundles = {variant.name: _bundle(variant.layout) for variant in result.variants}
    started = [v.run.info.started_at for v in result.variants if v.run is not None and v.run.info.started_at]
    return StudyView(
        name=result.study.name,
        title=result.study.title,
        engine=result.engine,
        source=result.source,
        model=result.study.model,
        box=result.box,
        workload=result.study.workload,
        runs=tuple(_view_of_variant(variant, bundles[variant.name]) for variant in result.variants),
        ranking=result.ranking,
        baseline=result.study.baseline_name,
        findings=_findings(bundles),
        atoll_version=atoll.__version__,
        made_on=_date(min(started)) if started else None,
    )


def _view_of_variant(variant: VariantResult, bundle: Bundle | None) -> RunView:
    run = variant.run
    finished = run if run is not None and run.info.complete else None
    return RunView(
        name=variant.name,
        layout=variant.layout,
        table=finished.table if finished else None,
        summary=finished.summary if finished else None,
        measured=finished.measured if finished else None,
        band=variant.band if finished else None,
        predicted=variant.predicted,
        predicted_band=variant.predicted_band,
        failure=variant.failure,
        resumed=variant.resumed,
        commands=_commands(variant.layout),
        files=_files(variant, bundle),
        digest=bundle.digest if bundle else None,
        notes=run.info.notes if run else (),
        telemetry=telemetry_of(finished) if finished else None,
    )


def _view_of_run(run: Run) -> StudyView:
    bundle = _bundle(run.layout) if run.layout else None
    view = RunView(
        name=run.name,
        layout=run.layout,
        table=run.table,
        summary=run.summary,
        measured=run.measured,
        band=_band(run),
        predicted=_predicted(run.path),
        failure=run.info.failure,
        commands=_commands(run.layout) if run.layout else (),
        files=bundle.files if bundle else {},
        digest=bundle.digest if bundle else None,
        notes=run.info.notes,
        telemetry=run.telemetry,
    )
    return StudyView(
        name=run.name,
        engine=run.info.engine,
        source=run.info.source,
        model=run.info.model,
        box=run.layout.box if run.layout else None,
        workload=run.workload,
        runs=(view,),
        atoll_version=atoll.__version__,
        made_on=_date(run.info.started_at) if run.info.started_at else None,
    )


def _band(run: Run) -> Band | None:
    if run.info.source is not Source.SIMULATED or run.layout is None:
        return None
    return band_of(run.summary, run.layout, known_card(run.layout.model))


def _predicted(folder: Path) -> Summary | None:
    path = folder / "predicted.json"
    return Summary.parse(read_text(path), origin=str(path)) if path.is_file() else None


def _bundle(layout: Layout) -> Bundle | None:
    """The files that would deploy the layout; None for an engine version that no file can be written for."""
    try:
        return render_bundle(layout.replace(engine="vllm"), read_model(layout.model), to="compose")
    except InputError:
        return None


def _commands(layout: Layout) -> tuple[str, ...]:
    """What starts each replica in a container."""
    try:
        engine, card, ported = find_engine("vllm"), read_model(layout.model), give_ports(layout)
        launches = [
            engine.launch(ported, replica, card, host="0.0.0.0", port=replica.port or 0)  # noqa: S104 - in a container
            for replica in ported.replicas
        ]
    except InputError:
        return ()
    return tuple(" ".join(launch.argv) for launch in launches)


def _files(variant: VariantResult, bundle: Bundle | None) -> dict[str, str]:
    """What was deployed, when it was; else what would be. Secrets stay where they are."""
    deployed = variant.run.path / "pieces" / "1" / "deployment" if variant.run is not None else None
    if deployed is not None and deployed.is_dir():
        names = ("process.yaml", "nginx.conf", "layout.yaml")
        return {name: read_text(deployed / name) for name in names if (deployed / name).is_file()}
    return {name: text for name, text in bundle.files.items() if name != ".env"} if bundle else {}


def _findings(bundles: dict[str, Bundle | None]) -> tuple[str, ...]:
    """What the doctor says of the files, each sentence once with the variants it is about."""
    said: dict[str, list[str]] = {}
    for name, bundle in bundles.items():
        for finding in diagnose_bundle(bundle) if bundle else ():
            if finding.severity != "info":
                said.setdefault(f"{finding.rule} {finding.what}. {finding.fix}".strip(), []).append(name)
    return tuple(f"{', '.join(dict.fromkeys(names))}: {sentence}" for sentence, names in said.items())


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
