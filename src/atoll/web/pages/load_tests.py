"""Load tests: start `atoll bench` on a bundle or the server's door, and change its users while it runs."""

import re
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from atoll.errors import InputError
from atoll.load.control import MOST_USERS
from atoll.outside.files import write_whole
from atoll.web.doors import key_of
from atoll.web.jobs import JobState
from atoll.web.load_control import CONTROLS, control_of, sends_users
from atoll.web.pages.jobs import begin
from atoll.web.site import Site
from atoll.web.workspace import Kind


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()

    @routes.post("/jobs/bench")
    def bench(
        request: Request,
        target: Annotated[str, Form()] = "",
        users: Annotated[str, Form()] = "",
        rate: Annotated[str, Form()] = "",
        duration: Annotated[str, Form()] = "",
        prompt: Annotated[str, Form()] = "",
        output: Annotated[str, Form()] = "",
        name: Annotated[str, Form()] = "",
    ) -> Response:
        """Start `atoll bench` on a bundle of the workspace, or on the door that the server was started for."""
        where = _where(site, target)
        folder = site.workspace.fresh(
            "runs", name.strip() or f"bench-{where.name if isinstance(where, Path) else 'door'}"
        )
        relative = str(folder.relative_to(site.workspace.root))
        shown = site.workspace.thing_at(where, Kind.BUNDLE).word if isinstance(where, Path) else where
        given = {"--users": users, "--rate": rate, "--duration": duration, "--prompt": prompt, "--output": output}
        options = [word for option, value in given.items() if value.strip() for word in (option, value.strip())]
        _check_options(options)
        argv = ["bench", shown, *options, "-o", relative]
        if sends_users(str(where), users=users, rate=rate):
            control = CONTROLS / folder.name
            (site.workspace.root / control).unlink(missing_ok=True)  # of a run of this name that is gone
            argv += ["--control", str(control)]
        key = key_of(where if isinstance(where, Path) else None)
        return begin(site, request, argv, title=folder.name, target=relative, api_key=key)

    @routes.post("/jobs/{job_id}/users")
    def users(request: Request, job_id: str, users: Annotated[str, Form()] = "") -> Response:
        """Change how many users a running load test has, by its control file."""
        found = site.jobs.find(job_id)
        control = control_of(found)
        if control is None or found.state is not JobState.RUNNING:
            raise InputError("There are no users to change: only a running load test with users has some.")
        if not re.fullmatch(r"[0-9]{1,15}", users.strip()) or int(users) > MOST_USERS:
            raise InputError(f"{users.strip()[:40]!r} is not a number of users from 0 to {MOST_USERS:,}.")
        site.note(request, f"{int(users)} users in job {job_id}")
        write_whole(site.workspace.root / control, f"{int(users)}\n")
        return RedirectResponse(f"/jobs/{job_id}", status_code=303)

    return routes


def _where(site: Site, target: str) -> Path | str:
    """A bundle of the workspace by its id, else the door."""
    if target:
        return site.workspace.find(target, Kind.BUNDLE).path
    if site.door is None:
        raise InputError("Choose a deployment to load; this server was not started with a door of its own.")
    return site.door


def _check_options(words: list[str]) -> None:
    """A value that begins with a dash would be read as an option."""
    for value in words[1::2]:
        if value.startswith("-"):
            raise InputError(f"{value!r} is no value of a load.")
