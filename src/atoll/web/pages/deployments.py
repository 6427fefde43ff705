"""Deployments: the workspace's bundles, what runs of them, live; up, down, load test, logs, files."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from markupsafe import Markup

from atoll.errors import AtollError, InputError, NotThere
from atoll.layout.layout import Layout
from atoll.outside.files import read_text
from atoll.report.drawing import draw_layout
from atoll.run.deployment import LOG_FOLDER, read_state
from atoll.web.jobs import Job, JobState
from atoll.web.looks import Seen
from atoll.web.pages.jobs import first_byte, last_sentence, start_job
from atoll.web.site import Site
from atoll.web.tail import tail
from atoll.web.words import Words
from atoll.web.workspace import Kind, Thing
from atoll.workflows.deploy import find_deployable, say_logs

SHOWN = 100  # bundles on one page
LONGEST_LOOK_S = 60.0
TAIL_BYTES = 20_000  # of a log, when the page opens
TAIL_LINES = 200
MOST_FILE_BYTES = 256 * 1024
SHOWN_FILES = frozenset({".yaml", ".yml", ".conf", ".md", ".txt", ".toml"})  # .env and the state file hold secrets
MARKS = {"healthy": "✓", "starting": "…", "starting or stuck": "…", "created": "…"}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A bundle with what is known of it now."""

    thing: Thing
    seen: Seen
    job: Job | None = None  # the Up or Down that is under way, else the last one
    loads: tuple[Job, ...] = ()  # load tests of it that run

    @property
    def busy(self) -> bool:
        return self.job is not None and self.job.state is JobState.RUNNING

    @property
    def settling(self) -> bool:
        """Whether it is on its way up or down, or what is known of it is older than the end of that.

        By the wall's clock, which may have been put back since: by more than a look takes, and it says nothing.
        """
        end, begun_at = self.job.end if self.job is not None else None, self.seen.begun_at
        return self.busy or (end is not None and begun_at is not None and 0 < end.ended_at - begun_at < LONGEST_LOOK_S)

    @property
    def state(self) -> str:
        """looking, unknown, starting, stopping, updating, up, degraded or down."""
        if self.job is not None and self.settling:
            return {"up": "starting", "down": "stopping"}.get(self.job.note.argv[0], "updating")
        if self.seen.problem is not None:
            return "unknown"
        return "looking" if self.seen.look is None else self.seen.look.state

    @property
    def may_go_up(self) -> bool:
        """Compose brings back what is missing of a deployment; processes are taken down first."""
        look = self.seen.look
        kind = look.status.kind if look is not None and look.status is not None else None
        return not self.settling and self.state != "up" and (self.state != "degraded" or kind == "compose")


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()

    @routes.get("/deployments")
    def deployments(request: Request) -> HTMLResponse:
        return site.show(request, "deployments.html", page="deployments", **_listed(site))

    @routes.get("/deployments/now")
    def now(request: Request) -> HTMLResponse:
        """The list, asked again while somebody looks."""
        return site.show(request, "deployments_now.html", page="deployments", **_listed(site))

    @routes.get("/deployments/{bundle_id}")
    def deployment(request: Request, bundle_id: str, log: str = "") -> HTMLResponse:
        thing = site.workspace.find(bundle_id, Kind.BUNDLE)
        layout, problem = _layout_of(thing)
        names = tuple(_services(thing, layout))
        chosen = log if log in names else names[0]
        words, said_to = _log_end(thing, chosen)
        return site.show(
            request,
            "deployment.html",
            page="deployments",
            **_now(site, request, thing, layout, problem),
            names=names,
            chosen=chosen,
            words=words,
            said_to=said_to,
            files=_files(thing.path),
        )

    @routes.get("/deployments/{bundle_id}/state")
    def state(request: Request, bundle_id: str) -> HTMLResponse:
        """The live part of a deployment's page. A folder that is gone is told in it, not as an error."""
        try:
            thing = site.workspace.find(bundle_id, Kind.BUNDLE)
        except NotThere:
            return site.show(request, "deployment_gone.html", page="deployments")
        values = _now(site, request, thing, *_layout_of(thing))
        return site.show(request, "deployment_state.html", page="deployments", **values)

    def known_bundle(bundle_id: str) -> Thing:
        """Looked up before a stream begins, while there can still be another answer than 200."""
        return site.workspace.find(bundle_id, Kind.BUNDLE)

    @routes.get("/deployments/{bundle_id}/log/{name}", response_class=EventSourceResponse)
    async def log(
        thing: Annotated[Thing, Depends(known_bundle)], name: str, begin: Annotated[int, Depends(first_byte)]
    ) -> AsyncIterator[ServerSentEvent]:
        """A service's log, line by line."""
        path = _log_file(thing, name)
        if path is None:
            async for text in _container_lines(thing, name):
                yield ServerSentEvent(event="reset", data={}) if text is None else _said(text)
            yield ServerSentEvent(event="over", data={})
            return
        async for line in tail(path, offset=begin, sleep=site.clock.sleep, ended=lambda: not thing.path.is_dir()):
            if line is None:
                yield ServerSentEvent(event="reset", data={})
            else:
                yield ServerSentEvent(event="said", id=str(line.offset), data=line.text)
        yield ServerSentEvent(event="over", data={})

    @routes.post("/deployments/{bundle_id}/up")
    def up(request: Request, bundle_id: str) -> Response:
        return _start(site, request, "up", bundle_id)

    @routes.post("/deployments/{bundle_id}/down")
    def down(request: Request, bundle_id: str) -> Response:
        return _start(site, request, "down", bundle_id)

    @routes.post("/deployments/{bundle_id}/update")
    def update(request: Request, bundle_id: str, layout: Annotated[str, Form()] = "") -> Response:
        """What the folder says, or a layout of the workspace, one replica after the other."""
        words = [site.workspace.find(layout, Kind.LAYOUT).word] if layout else []
        return _start(site, request, "update", bundle_id, *words)

    return routes


def now_running(site: Site) -> list[Shown]:
    """The deployments that are up, or on their way, for the first page."""
    bundles = site.workspace.things(Kind.BUNDLE)
    return [
        shown
        for shown in _all_shown(site, bundles)
        if shown.state in {"up", "degraded", "starting", "stopping", "updating"}
    ]


def _start(site: Site, request: Request, verb: str, bundle_id: str, *more: str) -> Response:
    """`atoll up`, `down` or `update` as a job; the page then tells how it goes."""
    thing = site.workspace.find(bundle_id, Kind.BUNDLE)
    if site.contained:
        raise InputError(f"This page runs inside the stack and has no Docker: run `atoll {verb}` on the host.")
    shown = _shown(site, thing, site.jobs.all())
    if shown.busy and shown.job is not None:
        raise InputError(f"`{shown.job.command}` is under way already; wait until it has ended.")
    start_job(site, request, [verb, thing.word, *more], title=f"{verb} {thing.name}", target=thing.name)
    return RedirectResponse(f"/deployments/{bundle_id}", status_code=303)


def _listed(site: Site) -> dict[str, Any]:
    bundles = site.workspace.things(Kind.BUNDLE)
    return {"shown": _all_shown(site, bundles), "count": len(bundles), "contained": site.contained}


def _all_shown(site: Site, bundles: Sequence[Thing]) -> list[Shown]:
    jobs = site.jobs.all()
    return [_shown(site, thing, jobs, in_list=True) for thing in bundles[:SHOWN]]


def _shown(site: Site, thing: Thing, jobs: Sequence[Job], *, in_list: bool = False) -> Shown:
    ours = [job for job in jobs if job.note.target == thing.name and job.note.argv[0] in {"up", "down", "update"}]
    loads = [job for job in jobs if job.note.argv[:2] == ("bench", thing.word) and job.state is JobState.RUNNING]
    running = [job for job in ours if job.state is JobState.RUNNING]
    return Shown(
        thing=thing,
        seen=site.looks.latest(thing.path, in_list=in_list and not running),
        job=next(iter((*running, *ours)), None),
        loads=tuple(loads),
    )


def _now(site: Site, request: Request, thing: Thing, layout: Layout | None, problem: str | None) -> dict[str, Any]:
    """What the live part of a deployment's page shows."""
    shown = _shown(site, thing, site.jobs.all())
    failed = shown.job is not None and shown.job.state is JobState.FAILED and shown.state != "up"
    return {
        "why_failed": last_sentence(site, shown.job) if shown.job is not None and failed else None,
        "one": shown,
        "layout": layout,
        "problem": problem,
        "drawing": None if layout is None else _drawn(layout, shown, site.words(request, "deployments")),
        "places": range(0 if layout is None else len(layout.replicas)),
        "contained": site.contained,
    }


def _drawn(layout: Layout, shown: Shown, words: Words) -> Markup:
    """The layout on its box, each replica with a mark for its health while something runs."""
    look = shown.seen.look
    marks = {
        one.number: MARKS.get(one.state, "✗")
        for one in (look.replicas if look is not None and look.state != "down" else ())
        if one.number is not None
    }
    return draw_layout(layout, router_word=words["router"], idle_word=words["idle_cards"], marks=marks)


def _layout_of(thing: Thing) -> tuple[Layout | None, str | None]:
    """The bundle's layout, or the sentence that says why it cannot be read."""
    try:
        path = thing.path / "layout.yaml"
        return Layout.parse(read_text(path), origin=f"{thing.name}/layout.yaml"), None
    except (AtollError, OSError) as error:
        return None, str(error)


def _services(thing: Thing, layout: Layout | None) -> Iterator[str]:
    """The names of the services whose logs can be chosen."""
    yield from (f"replica-{number}" for number in range(1 if layout is None else len(layout.replicas)))
    if (thing.path / "process.yaml").is_file():
        yield "router"


def _log_file(thing: Thing, name: str) -> Path | None:
    """The log of a process; None for containers and for what is no file of this folder."""
    folder = thing.path / LOG_FOLDER
    path = folder / f"{_program(thing, name)}.log"
    safe = all(c.isalnum() or c == "-" for c in name) and not folder.is_symlink() and not path.is_symlink()
    return path if safe and (thing.path / "process.yaml").is_file() else None


def _program(thing: Thing, name: str) -> str:
    """Who is the replica of that number now: after an update it is `replica-0-2`."""
    try:
        programs = read_state(thing.path).replicas
    except (AtollError, OSError):
        return name
    return next((one.name for one in reversed(programs) if name == f"replica-{one.number}"), name)


def _said(text: str) -> ServerSentEvent:
    return ServerSentEvent(event="said", data=text)


async def _container_lines(thing: Thing, name: str) -> AsyncIterator[str | None]:
    """What a replica's container says, first None: whoever comes again gets the last lines again."""
    number = name.removeprefix("replica-")
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    async def follow() -> None:
        try:
            target = find_deployable(thing.path)
            await say_logs(target, say=lines.put_nowait, replica=int(number), follow=True, lines=TAIL_LINES)
        except AtollError as error:
            lines.put_nowait(str(error))
        finally:
            lines.put_nowait(None)

    yield None
    if not number.isdecimal():
        return
    following = asyncio.create_task(follow())
    try:
        while (line := await lines.get()) is not None:
            yield line
    finally:
        following.cancel()


def _log_end(thing: Thing, name: str) -> tuple[str, int]:
    """The last whole lines of a service's log, and the byte to go on from."""
    path = _log_file(thing, name)
    if path is None or not path.is_file():
        return "", 0
    with path.open("rb") as stream:
        begin = max(0, path.stat().st_size - TAIL_BYTES)
        stream.seek(begin)
        data = stream.read(TAIL_BYTES)
    cut = data.rfind(b"\n") + 1
    first = data.find(b"\n") + 1 if begin else 0
    return data[first:cut].decode("utf-8", errors="replace"), begin + cut


def _files(folder: Path) -> list[tuple[str, str]]:
    """The bundle's files with their text; secrets, logs and links are left out."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file() or path.suffix not in SHOWN_FILES:
            continue
        with path.open("rb") as stream:
            found.append((path.name, stream.read(MOST_FILE_BYTES).decode("utf-8", errors="replace")))
    return found
