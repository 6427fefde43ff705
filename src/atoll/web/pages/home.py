"""Home: what runs now, the last runs, three doors."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from atoll.store.catalog import Query
from atoll.web.jobs import JobState
from atoll.web.pages.deployments import now_running
from atoll.web.pages.plan import TRY
from atoll.web.site import Site

LAST_RUNS = 8


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()

    @routes.get("/")
    def home(request: Request) -> HTMLResponse:
        return site.show(
            request,
            "home.html",
            page="home",
            **_now(site),
            runs=site.catalog.find(Query(limit=LAST_RUNS)),
            workspace=site.workspace.root,
            try_link=f"/plan?{TRY.query}",
        )

    @routes.get("/now")
    def now(request: Request) -> HTMLResponse:
        """What runs now, asked again while somebody looks."""
        return site.show(request, "home_now.html", page="home", **_now(site))

    return routes


def _now(site: Site) -> dict[str, Any]:
    running = [job for job in site.jobs.all() if job.state is JobState.RUNNING]
    return {"running": running, "shown": now_running(site), "gpus": site.meter.latest()}
