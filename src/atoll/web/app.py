"""The control plane as an application. None is made by importing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import atoll
from atoll.errors import AtollError, CatalogFailed
from atoll.outside.shell import environment
from atoll.store.catalog import Catalog
from atoll.web.api import make_routes
from atoll.web.guard import guard
from atoll.web.wire import Problem
from atoll.workflows.runs import open_runs


def create_app(catalog: Catalog, *, key: str | None = None, hosts: Sequence[str] = ()) -> FastAPI:
    """The application over an open catalogue, which it closes when it ends; key and hosts: see `guard`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            catalog.close()

    app = FastAPI(title="atoll", version=atoll.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(make_routes(catalog))
    app.add_exception_handler(AtollError, _show_problem)
    guard(app, key=key, hosts=hosts)
    return app


def app_from_environment() -> FastAPI:
    """`uvicorn --factory atoll.web.app:app_from_environment`.

    ATOLL_CATALOG names the catalogue, VLLM_API_KEY is the key, ATOLL_HOSTS are further names, with commas between.
    """
    settings = environment()
    hosts = [name.strip() for name in settings.get("ATOLL_HOSTS", "").split(",")]
    return create_app(open_runs(), key=settings.get("VLLM_API_KEY"), hosts=[name for name in hosts if name])


async def _show_problem(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    """The same sentence as on the command line. What is asked for here is named by its address, so it is missing."""
    status = 500 if isinstance(error, CatalogFailed) else 404
    return JSONResponse(Problem(error=str(error)).to_plain(), status_code=status)
