"""Runs: found, tagged, forgotten, imported, exported, looked at, compared by an address that can be sent."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi import Query as Parameter
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from atoll.analyse.compare import Verdict
from atoll.analyse.summary import Summary
from atoll.errors import AtollError, InputError, NotThere
from atoll.outside.files import write_whole
from atoll.report.drawing import draw_layout
from atoll.store.catalog import Query, RunEntry
from atoll.store.folder import is_run, read_run
from atoll.store.foreign import WRITERS
from atoll.traffic.record import Source
from atoll.web.auth import MOST_IMPORT_BYTES
from atoll.web.site import Site
from atoll.web.words import LANGUAGES, Words
from atoll.web.workspace import Kind
from atoll.workflows.compare import ComparedRuns, compare_folders
from atoll.workflows.exchange import export_run, import_run
from atoll.workflows.report import report_path
from atoll.workflows.runs import remember, study_of, tag_entry

SHOWN = 100  # runs on one page
# A report has scripts and styles of its own, so it gets rules of its own: no origin, no way out.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:;"
    " frame-ancestors 'self'"
)


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()

    @routes.get("/runs")
    def runs(
        request: Request,
        study: str = "",
        model: str = "",
        tag: str = "",
        source: str = "",
        skip: Annotated[int, Parameter(ge=0, le=10**9)] = 0,
    ) -> HTMLResponse:
        wanted = {"study": study, "model": model, "tag": tag, "source": source}
        query = _query(wanted, skip)
        found = site.catalog.overview(query)
        return site.show(
            request,
            "runs.html",
            page="runs",
            runs=site.catalog.find(query),
            found=found,
            skip=skip,
            newer=_page_link(wanted, max(0, skip - SHOWN)) if skip else None,
            older=_page_link(wanted, skip + SHOWN) if skip + SHOWN < found.count else None,
            wanted=wanted,
            models=found.models,
            studies=found.studies,
            tags=found.tags,
            sources=tuple(Source),
            most_bytes=MOST_IMPORT_BYTES,
        )

    @routes.get("/runs/compare")
    def compare(request: Request, run: Annotated[list[str], Parameter()] = []) -> HTMLResponse:  # noqa: B006
        """Runs held against the first; the address holds the whole question."""
        found = compare_folders([_folder(site, run_id) for run_id in run])
        return site.show(request, "compare.html", page="runs", **_compared(found))

    @routes.post("/runs/import")
    def take_in(request: Request, file: Annotated[UploadFile, File()], name: Annotated[str, Form()] = "") -> Response:
        """Another load generator's result becomes a run of the workspace."""
        folder = site.workspace.fresh("runs", name.strip() or Path(file.filename or "import").stem)
        site.note(request, f"import {file.filename} as {folder.name}")
        data = file.file.read(MOST_IMPORT_BYTES + 1)
        if len(data) > MOST_IMPORT_BYTES:
            raise InputError(f"{file.filename} is larger than {MOST_IMPORT_BYTES >> 20} MiB.")
        kept = site.workspace.own / "uploads" / f"{folder.name}{Path(file.filename or '').suffix[:10]}"
        write_whole(kept, data)
        try:
            places = import_run(kept, folder=folder)
        finally:
            kept.unlink(missing_ok=True)
        for place, _ in places:
            index_run(site, place)
        return RedirectResponse("/runs", status_code=303)

    @routes.get("/runs/{run_id}")
    def run(request: Request, run_id: str) -> Response:
        entry = _entry(site, run_id)
        if entry is None:  # a folder's id: a run that the catalogue does not know yet
            index_run(site, site.workspace.find(run_id, Kind.RUN).path)
            found = read_run(site.workspace.find(run_id, Kind.RUN).path)
            return RedirectResponse(f"/runs/{quote(found.info.run_id or run_id, safe='')}", status_code=303)
        return site.show(
            request, "run.html", page="runs", entry=entry, **_shown(site, entry, site.words(request, "runs"))
        )

    @routes.get("/runs/{run_id}/report")
    def report(run_id: str, lang: str = "en") -> Response:
        """The run's report, as a page in a frame without an origin."""
        if lang not in LANGUAGES:
            raise InputError(f"{lang[:20]!r} is no language of a report; there are {' and '.join(LANGUAGES)}.")
        folder = _folder(site, run_id)
        page = report_path(folder, lang=lang, out=site.workspace.own / "reports" / f"{folder.name}-{lang}.html")
        return HTMLResponse(page.read_text(encoding="utf-8"), headers={"content-security-policy": REPORT_POLICY})

    @routes.get("/runs/{run_id}/export")
    def export(run_id: str, to: str = "csv") -> Response:
        text = export_run(_folder(site, run_id), to)
        kind = {"csv": "text/csv", "prometheus": "text/plain"}.get(to, "application/json")
        named = f"attachment; filename*=UTF-8''{quote(f'{run_id}-{to}', safe='')}"
        return PlainTextResponse(text, media_type=kind, headers={"content-disposition": named})

    @routes.post("/runs/{run_id}/tag")
    def tag(request: Request, run_id: str, tag: Annotated[str, Form()]) -> Response:
        if not tag.strip() or len(tag) > 60:
            raise InputError("A tag has 1 to 60 characters.")
        site.note(request, f"atoll runs tag {run_id} {tag}")
        tag_entry(site.catalog, run_id, tag.strip(), within=site.workspace.root)
        return RedirectResponse(f"/runs/{quote(run_id, safe='')}", status_code=303)

    @routes.post("/runs/{run_id}/forget")
    def forget(request: Request, run_id: str) -> Response:
        """Out of the catalogue; the folder stays."""
        site.note(request, f"atoll runs forget {run_id}")
        site.catalog.remove(run_id)
        return RedirectResponse("/runs", status_code=303)

    return routes


def _query(wanted: dict[str, str], skip: int) -> Query:
    source = wanted["source"]
    return Query(
        study=wanted["study"] or None,
        model=wanted["model"] or None,
        tag=wanted["tag"] or None,
        source=Source(source) if source in set(Source) else None,
        skip=skip,
        limit=SHOWN,
    )


def _page_link(wanted: dict[str, str], skip: int) -> str:
    return "/runs?" + urlencode({name: value for name, value in wanted.items() if value} | {"skip": skip})


def index_run(site: Site, folder: Path) -> None:
    """Put a run of the workspace into this server's catalogue."""
    run = read_run(folder)
    remember(folder, run.info, run.summary, layout=run.layout, study=study_of(folder), opened=site.catalog)


def _entry(site: Site, run_id: str) -> RunEntry | None:
    try:
        return site.catalog.load(run_id)
    except NotThere:
        return None


def _folder(site: Site, run_id: str) -> Path:
    """The run's folder, where it is in this workspace."""
    entry = site.catalog.load(run_id)
    place = Path(entry.folder or "/nowhere")
    if not _is_ours(site, place):
        raise InputError(f"The folder of {entry.name} is not in this workspace, so only its summary is known.")
    return place


def _is_ours(site: Site, place: Path) -> bool:
    try:
        return place.resolve().is_relative_to(site.workspace.root) and is_run(place)
    except (OSError, ValueError):  # a name that no folder can have
        return False


def _shown(site: Site, entry: RunEntry, words: Words) -> dict[str, Any]:
    """What is known of one run: from its folder where that is here, else the catalogue's summary."""
    shown: dict[str, Any] = {"run": None, "drawing": None, "trouble": None, "formats": tuple(WRITERS)}
    try:
        run = read_run(_folder(site, entry.run_id))
    except AtollError as error:
        return shown | {"trouble": str(error), "summary": _summary_of(entry)}
    drawing = (
        None
        if run.layout is None
        else draw_layout(run.layout, router_word=words["router"], idle_word=words["idle_cards"])
    )
    return shown | {"run": run, "drawing": drawing, "summary": run.summary}


def _summary_of(entry: RunEntry) -> Summary | None:
    """The catalogue's own copy; None where it holds none that can be read."""
    try:
        return Summary.from_plain(entry.summary, origin=entry.run_id)
    except InputError:
        return None


def _compared(found: ComparedRuns) -> dict[str, Any]:
    rows = [
        {
            "name": comparison.second,
            "cells": [
                {
                    "measure": one.measure.removesuffix("_s").upper(),
                    "statistic": one.statistic,
                    "first": one.first,
                    "second": one.second,
                    "difference": one.difference,
                    "low": one.low,
                    "high": one.high,
                    "verdict": one.verdict.name.lower(),
                    "kind": {Verdict.FASTER: "good", Verdict.SLOWER: "bad"}.get(one.verdict, "faint"),
                }
                for one in comparison.differences
            ],
        }
        for comparison in found.comparisons
    ]
    runs = list(zip(found.names, found.runs, strict=True))
    return {"runs": runs, "rows": rows, "first": found.names[0]}


def compare_link(run_ids: list[str]) -> str:
    """The address that compares these runs."""
    return "/runs/compare?" + urlencode([("run", run_id) for run_id in run_ids])
