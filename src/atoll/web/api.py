"""The JSON routes. Each reads its input, calls one thing, gives the result."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from fastapi import Query as Parameter
from starlette.status import HTTP_201_CREATED

import atoll
from atoll.store.catalog import Catalog, Query, RunEntry
from atoll.web.wire import Health, Problem, Runs

MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem}}


def make_routes(catalog: Catalog) -> APIRouter:
    """Routes over one catalogue, which threads may share."""
    routes = APIRouter()

    @routes.get("/health")
    def health() -> Health:
        """200 while the catalogue can be read, 503 while it fails."""
        try:
            catalog.find(Query(limit=1))
        except Exception as error:
            raise HTTPException(503, f"The catalogue fails: {error}") from error
        return Health(version=atoll.__version__)

    @routes.get("/api/runs")
    def list_runs(
        study: str | None = None,
        model: str | None = None,
        engine: str | None = None,
        tag: str | None = None,
        limit: Annotated[int, Parameter(ge=1, le=10_000)] = 100,
    ) -> Runs:
        wanted = Query(study=study, model=model, engine=engine, tag=tag, limit=limit)
        return Runs(runs=catalog.find(wanted))

    @routes.post("/api/runs", status_code=HTTP_201_CREATED)
    def save_run(entry: RunEntry) -> RunEntry:
        """Keep a run; one with the same run_id is replaced. What was answered with 201 survives a crash."""
        catalog.save(entry)
        return entry

    @routes.get("/api/runs/{run_id}", responses=MISSING)
    def show_run(run_id: str) -> RunEntry:
        return catalog.load(run_id)

    @routes.delete("/api/runs/{run_id}", status_code=204, responses=MISSING)
    def forget_run(run_id: str) -> None:
        catalog.remove(run_id)

    return routes
