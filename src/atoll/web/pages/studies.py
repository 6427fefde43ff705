"""Studies: written or uploaded, checked, run as a job; a run with its variants, ranking and report as they grow."""

from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from atoll.errors import AtollError, InputError, NotThere
from atoll.outside.files import read_text, write_whole
from atoll.web.forms import given_text
from atoll.web.jobs import Job, JobState
from atoll.web.pages.jobs import start_job
from atoll.web.pages.runs import REPORT_POLICY
from atoll.web.site import Site, is_fragment
from atoll.web.studying import (
    Checked,
    CheckQuestion,
    RankQuestion,
    ReportQuestion,
    StudyState,
    is_stale,
    study_state,
)
from atoll.web.words import LANGUAGES
from atoll.web.workspace import Kind, Thing

ENGINES = ("simulated", "emulated", "vllm")
MOST_STUDY_BYTES = 1 << 20
CHECK_S = 20.0  # that a document may take to be read
LISTED = 200  # runs on the page


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()
    _add_documents(routes, site)
    _add_runs(routes, site)
    return routes


def _add_documents(routes: APIRouter, site: Site) -> None:
    @routes.get("/studies")
    def studies(request: Request) -> HTMLResponse:
        found = site.workspace.things(Kind.STUDY_RUN)
        jobs = _jobs_by_target(site)
        runs = [_listed(thing, jobs.get(thing.name)) for thing in found[:LISTED]]
        documents = site.workspace.things(Kind.STUDY)
        return site.show(
            request,
            "studies.html",
            page="studies",
            documents=documents,
            runs=runs,
            count=len(found),
            checked=None,
            text="",
        )

    @routes.post("/studies/check")
    async def check(
        request: Request, text: Annotated[str, Form()] = "", file: Annotated[UploadFile | None, File()] = None
    ) -> HTMLResponse:
        """Whether a document is a study, and at which line not; nothing is kept."""
        given = await given_text(text, file, most_bytes=MOST_STUDY_BYTES, what="study")
        checked = await _check(site, given, site.workspace.root / "studies")
        template = "study_checked.html" if is_fragment(request) else "study_checked_page.html"
        return site.show(request, template, page="studies", checked=checked)

    @routes.post("/studies")
    async def keep(
        request: Request, text: Annotated[str, Form()] = "", file: Annotated[UploadFile | None, File()] = None
    ) -> Response:
        """Keep a study under its own name; one that cannot be run is shown again with what is wrong."""
        given = await given_text(text, file, most_bytes=MOST_STUDY_BYTES, what="study")
        checked = await _check(site, given, site.workspace.root / "studies")
        if checked.study is None:
            return site.show(
                request,
                "studies.html",
                page="studies",
                status=400,
                documents=site.workspace.things(Kind.STUDY),
                runs=[],
                count=0,
                checked=checked,
                text=given,
            )
        path = site.workspace.fresh("studies", checked.study.name, ".yaml")
        site.note(request, f"keep {path.relative_to(site.workspace.root)}")
        write_whole(path, given)
        return RedirectResponse(f"/studies/{site.workspace.thing_at(path, Kind.STUDY).id}", status_code=303)

    @routes.post("/studies/{study_id}/run")
    async def run(request: Request, study_id: str, engine: Annotated[str, Form()] = "simulated") -> Response:
        """`atoll study run` as a job."""
        thing = site.workspace.find(study_id, Kind.STUDY)
        if engine not in ENGINES:
            raise InputError(f"{engine[:40]!r} is no way to run a study; there are {', '.join(ENGINES)}.")
        checked = await _check(site, read_text(thing.path), thing.path.parent)
        if checked.study is None:
            raise InputError(str(checked.trouble))
        folder = site.workspace.fresh("runs", f"{checked.study.name}-{engine}")
        target = str(folder.relative_to(site.workspace.root))
        argv = ["study", "run", thing.word, "--engine", engine, "-o", target]
        start_job(site, request, argv, title=folder.name, target=target)
        return RedirectResponse(f"/studies/{site.workspace.thing_at(folder, Kind.STUDY_RUN).id}", status_code=303)

    @routes.post("/studies/{study_id}/delete")
    def delete(request: Request, study_id: str) -> Response:
        """The document alone; its runs stay."""
        thing = site.workspace.find(study_id, Kind.STUDY)
        site.note(request, f"delete {thing.name}")
        thing.path.unlink(missing_ok=True)
        return RedirectResponse("/studies", status_code=303)


def _add_runs(routes: APIRouter, site: Site) -> None:
    @routes.get("/studies/{study_id}")
    async def study(request: Request, study_id: str) -> HTMLResponse:
        """A study's document, or a run of one; a run that a job is about to begin, too."""
        thing = await to_thread.run_sync(_thing, site, study_id)
        if thing is not None and thing.kind is Kind.STUDY:
            text = read_text(thing.path)
            checked = await _check(site, text, thing.path.parent)
            return site.show(
                request, "study.html", page="studies", thing=thing, text=text, checked=checked, engines=ENGINES
            )
        return site.show(request, "study_run.html", page="studies", **_shown(site, study_id, thing))

    @routes.get("/studies/{study_id}/state")
    def state(request: Request, study_id: str, done: int = 0) -> HTMLResponse:
        """The head of a run's page, asked again while it goes; says when there is more to rank."""
        shown = _shown(site, study_id, _thing(site, study_id))
        answer = site.show(request, "study_state.html", page="studies", **shown)
        if shown["state"] is not None and shown["state"].count("done") != done:
            answer.headers["hx-trigger"] = "grown"
        return answer

    @routes.get("/studies/{study_id}/ranking")
    async def ranking(request: Request, study_id: str) -> HTMLResponse:
        thing = site.workspace.find(study_id, Kind.STUDY_RUN)
        ranked = await site.workers.one(RankQuestion(folder=thing.path))
        return site.show(request, "study_ranking.html", page="studies", ranked=ranked)

    @routes.get("/studies/{study_id}/report")
    async def report(study_id: str, lang: str = "en") -> Response:
        """The report as far as the study has run, as a page in a frame without an origin."""
        if lang not in LANGUAGES:
            raise InputError(f"{lang[:20]!r} is no language of a report; there are {' and '.join(LANGUAGES)}.")
        thing = site.workspace.find(study_id, Kind.STUDY_RUN)
        out = site.workspace.own / "reports" / f"{thing.id}-{lang}.html"
        if is_stale(out, study_state(thing.path)):
            await site.workers.one(ReportQuestion(folder=thing.path, lang=lang, out=out))
        return HTMLResponse(read_text(out), headers={"content-security-policy": REPORT_POLICY})

    @routes.post("/studies/{study_id}/resume")
    def resume(request: Request, study_id: str) -> Response:
        """`atoll study resume` as a job; the command itself refuses where another one is at it."""
        thing = site.workspace.find(study_id, Kind.STUDY_RUN)
        job = _jobs_by_target(site).get(thing.name)
        if job is not None and job.state is JobState.RUNNING:
            raise InputError(f"{thing.name} is running already; stop its job first.")
        start_job(site, request, ["study", "resume", thing.word], title=thing.path.name, target=thing.name)
        return RedirectResponse(f"/studies/{study_id}", status_code=303)


async def _check(site: Site, text: str, folder: Path) -> Checked:
    if not text.strip():
        return Checked(trouble="Write a study, or choose the file that holds it.")
    if len(text) > MOST_STUDY_BYTES:
        return Checked(trouble=f"The text is larger than {MOST_STUDY_BYTES >> 20} MiB; no study is.")
    question = CheckQuestion(text=text, folder=folder, root=site.workspace.root)
    checked: Checked = await site.workers.one(question, most_s=CHECK_S)
    return checked


def _thing(site: Site, study_id: str) -> Thing | None:
    """A document or a run; None where a job of this workspace is about to make the run."""
    try:
        return site.workspace.find(study_id, Kind.STUDY, Kind.STUDY_RUN)
    except NotThere:
        if _job_of(site, study_id) is None:
            raise
    return None


def _jobs_by_target(site: Site) -> dict[str, Job]:
    """The youngest job of each folder."""
    found: dict[str, Job] = {}
    for job in site.jobs.all():
        if job.note.target is not None and job.note.argv[:1] == ("study",):
            found.setdefault(job.note.target, job)
    return found


def _job_of(site: Site, study_id: str) -> Job | None:
    root = site.workspace.root
    for target, job in _jobs_by_target(site).items():
        if site.workspace.thing_at(root / target, Kind.STUDY_RUN).id == study_id:
            return job
    return None


def _shown(site: Site, study_id: str, thing: Thing | None) -> dict[str, Any]:
    job = _job_of(site, study_id)
    state = None if thing is None else study_state(thing.path)
    now = site.clock.wall()
    runs = job is not None and job.state is JobState.RUNNING
    return {
        "id": study_id,
        "name": thing.name if thing is not None else job.note.target if job is not None else study_id,
        "job": job,
        "state": state,
        "runs": runs,
        "word": _word_of(state, job),
        "took_s": None if state is None else max(0.0, (now if runs else state.changed_at) - state.started_at),
    }


def _word_of(state: StudyState | None, job: Job | None) -> str:
    """running, done, failed, stopped, cut; `unfinished` where nobody here knows who runs it."""
    if job is not None and job.state is JobState.RUNNING:
        return "running"
    if state is not None and state.is_complete:
        return "done"
    if job is not None and job.state is not JobState.DONE:
        return str(job.state)
    return "failed" if state is not None and state.count("failed") and not state.count("waiting") else "unfinished"


def _listed(thing: Thing, job: Job | None) -> dict[str, Any]:
    try:
        state = study_state(thing.path)
    except AtollError as error:
        return {"thing": thing, "state": None, "word": "failed", "trouble": str(error)}
    return {"thing": thing, "state": state, "word": _word_of(state, job), "trouble": None}
