"""Jobs: load tests and studies under way and ended, live: figures, the command, its words, Stop."""

import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from atoll.errors import AtollError, InputError
from atoll.load.live_log import FILE as LIVE_FILE
from atoll.store.folder import is_run, read_info
from atoll.traffic.record import Source
from atoll.web.doors import BENCH_KEY_VARIABLE
from atoll.web.jobs import Job, JobState
from atoll.web.load_control import users_of
from atoll.web.site import Site, token_of
from atoll.web.tail import tail
from atoll.web.workspace import Kind

MOST_POINTS = 2000  # of a run's history that are sent at once; a longer one is thinned
STOP_WAIT_S = 3.0


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()

    def known_job(job_id: str) -> Job:
        """Looked up before a stream begins, while there can still be another answer than 200."""
        return site.jobs.find(job_id)

    @routes.get("/jobs")
    def jobs(request: Request) -> HTMLResponse:
        return site.show(request, "jobs.html", page="jobs", jobs=site.jobs.all())

    @routes.get("/jobs/{job_id}")
    def job(request: Request, job_id: str) -> HTMLResponse:
        found = site.jobs.find(job_id)
        points, offset = history(_live_file(site, found))
        words, said_to = _last_words(site, found)
        return site.show(
            request,
            "job.html",
            page="jobs",
            job=found,
            points=json.dumps(points),
            has_figures=found.note.argv[:1] == ("bench",),
            last=points[-1] if points else None,
            offset=offset,
            words=words,
            said_to=said_to,
            results=_results(site, found),
            source=_source(site, found),
            users=users_of(site, found),
        )

    @routes.get("/jobs/{job_id}/state")
    def state(request: Request, job_id: str) -> HTMLResponse:
        """The head of a job's page, asked again while it runs."""
        found = site.jobs.find(job_id)
        return site.show(
            request,
            "job_state.html",
            page="jobs",
            job=found,
            results=_results(site, found),
            source=_source(site, found),
        )

    @routes.get("/jobs/{job_id}/live", response_class=EventSourceResponse)
    async def live(
        job: Annotated[Job, Depends(known_job)], begin: Annotated[int, Depends(first_byte)]
    ) -> AsyncIterator[ServerSentEvent]:
        """The looks at a load test as they come, each with the byte to go on from as its id."""
        path, job_id = _live_file(site, job), job.note.id
        async for line in tail(path, offset=begin, sleep=site.clock.sleep, ended=_ended(site, job_id)):
            if line is None:
                yield ServerSentEvent(event="reset", data={})
            else:
                yield ServerSentEvent(event="point", id=str(line.offset), raw_data=line.text)
        yield ServerSentEvent(event="over", data={})

    @routes.get("/jobs/{job_id}/words", response_class=EventSourceResponse)
    async def words(
        job: Annotated[Job, Depends(known_job)], begin: Annotated[int, Depends(first_byte)]
    ) -> AsyncIterator[ServerSentEvent]:
        """What the command says, line by line."""
        path, job_id = site.jobs.output_path(job.note.id), job.note.id
        async for line in tail(path, offset=begin, sleep=site.clock.sleep, ended=_ended(site, job_id)):
            if line is not None:
                yield ServerSentEvent(event="said", id=str(line.offset), data=line.text)
        yield ServerSentEvent(event="over", data={})

    @routes.post("/jobs/{job_id}/stop")
    def stop(request: Request, job_id: str) -> Response:
        site.note(request, f"stop job {job_id}", insist=False)
        site.jobs.stop(job_id, wait_s=STOP_WAIT_S)
        return RedirectResponse(f"/jobs/{job_id}", status_code=303)

    @routes.post("/jobs/{job_id}/resume")
    def resume(request: Request, job_id: str) -> Response:
        """Go on with a study that was stopped or cut."""
        found = site.jobs.find(job_id)
        if found.state is JobState.RUNNING or found.note.target is None or found.note.argv[:1] != ("study",):
            raise InputError("There is nothing to resume: only a study that has ended early goes on where it was.")
        argv = ["study", "resume", found.note.target]
        return begin(site, request, argv, title=found.note.title, target=found.note.target)

    @routes.post("/jobs/{job_id}/delete")
    def delete(request: Request, job_id: str) -> Response:
        site.note(request, f"forget job {job_id}")
        site.jobs.remove(job_id)
        return RedirectResponse("/jobs", status_code=303)

    return routes


def first_byte(after: Annotated[int, Query(ge=0)] = 0, last_event_id: Annotated[str, Header()] = "") -> int:
    """Where a stream goes on: after what the browser has seen, else after what the page held."""
    return int(last_event_id) if re.fullmatch(r"[0-9]{1,15}", last_event_id) else after


def begin(
    site: Site, request: Request, argv: list[str], *, title: str, target: str, api_key: str | None = None
) -> Response:
    """Start a command of the page and show its job."""
    job = start_job(site, request, argv, title=title, target=target, api_key=api_key)
    return RedirectResponse(f"/jobs/{job.note.id}", status_code=303)


def start_job(
    site: Site,
    request: Request,
    argv: list[str],
    *,
    title: str,
    target: str | None,
    api_key: str | None = None,
) -> Job:
    """Start a command of the page, with its line in the audit log first; a key goes by the environment."""
    site.note(request, "atoll " + " ".join(argv))
    return site.jobs.start(
        argv,
        title=title,
        target=target,
        now=site.clock.wall(),
        by=token_of(request).name,
        secrets_in_environment=None if api_key is None else {BENCH_KEY_VARIABLE: api_key},
    )


def history(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The looks so far, thinned to MOST_POINTS, and the byte after the last one."""
    try:
        data = path.read_bytes()
    except OSError:
        return [], 0
    end = data.rfind(b"\n") + 1
    lines = data[:end].splitlines()
    step = max(1, -(-len(lines) // MOST_POINTS))
    kept = lines[::step] if step == 1 or (len(lines) - 1) % step == 0 else [*lines[::step], lines[-1]]
    points = []
    for line in kept:
        try:
            point = json.loads(line)
        except ValueError:
            continue
        if isinstance(point, dict):
            points.append(point)
    return points, end


def _ended(site: Site, job_id: str) -> Callable[[], bool]:
    return lambda: site.jobs.has_ended(job_id, now=site.clock.now())


def _live_file(site: Site, job: Job) -> Path:
    place = site.workspace.root / (job.note.target or "nowhere")
    return place / LIVE_FILE


def last_sentence(site: Site, job: Job) -> str:
    """The last line of what a command has said: of one that failed, why."""
    lines = _last_words(site, job)[0].split("\n")
    return next((line for line in reversed(lines) if line.strip()), "").removeprefix("atoll: ")


def _last_words(site: Site, job: Job) -> tuple[str, int]:
    """The end of what the command has said, whole lines."""
    path = site.jobs.output_path(job.note.id)
    size = path.stat().st_size if path.is_file() else 0
    data, end = site.jobs.output(job.note.id, offset=max(0, size - 20_000))
    cut = data.rfind(b"\n") + 1
    return data[:cut].decode("utf-8", errors="replace"), end - (len(data) - cut)


def _source(site: Site, job: Job) -> str | None:
    """Where a load test's figures come from; None until that is known: a server may turn out to be emulated."""
    place = site.workspace.root / (job.note.target or "nowhere")
    if job.note.argv[:1] != ("bench",) or not is_run(place):
        return None
    try:
        info = read_info(place)
    except AtollError:
        return None
    known = info.complete or info.source is not Source.MEASURED or (place / "layout.yaml").is_file()
    return str(info.source) if known else None


def _results(site: Site, job: Job) -> list[dict[str, str]]:
    """Links to what the job has made."""
    if job.note.target is None:
        return []
    place = site.workspace.root / job.note.target
    known = {
        "run.yaml": (Kind.RUN, "runs"),
        "study-run.yaml": (Kind.STUDY_RUN, "studies"),
        "compose.yaml": (Kind.BUNDLE, "deployments"),
        "process.yaml": (Kind.BUNDLE, "deployments"),
    }
    return [
        {"href": f"/{page}/{site.workspace.thing_at(place, kind).id}", "name": job.note.target}
        for file, (kind, page) in known.items()
        if (place / file).is_file()
    ]
