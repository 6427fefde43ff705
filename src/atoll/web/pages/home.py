"""Home: what runs now, the last runs, three doors."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from atoll.store.catalog import Query
from atoll.web.jobs import JobState
from atoll.web.pages.plan import TRY
from atoll.web.site import Site

LAST_RUNS = 8


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()

    @routes.get("/")
    def home(request: Request) -> HTMLResponse:
        jobs = site.jobs.all()
        return site.show(
            request,
            "home.html",
            page="home",
            running=[job for job in jobs if job.state is JobState.RUNNING],
            runs=site.catalog.find(Query(limit=LAST_RUNS)),
            workspace=site.workspace.root,
            try_link=f"/plan?{TRY.query}",
        )

    return routes
