"""The control plane as an application. None is made by importing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import atoll
from atoll.errors import AtollError, CatalogFailed
from atoll.store.catalog import Catalog
from atoll.web.api import make_routes
from atoll.web.wire import Problem
from atoll.workflows.runs import open_runs


def create_app(catalog: Catalog) -> FastAPI:
    """The application over an open catalogue, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            catalog.close()

    app = FastAPI(title="atoll", version=atoll.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(make_routes(catalog))
    app.add_exception_handler(AtollError, _show_problem)
    return app


def app_from_environment() -> FastAPI:
    """The application over the catalogue that ATOLL_CATALOG names: `uvicorn --factory atoll.web.app:...`."""
    return create_app(open_runs())


async def _show_problem(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    """The same sentence as on the command line. What is asked for here is named by its address, so it is missing."""
    status = 500 if isinstance(error, CatalogFailed) else 404
    return JSONResponse(Problem(error=str(error)).to_plain(), status_code=status)
