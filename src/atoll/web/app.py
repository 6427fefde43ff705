"""The control plane as an application. None is made by importing."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Scope

import atoll
from atoll.errors import AtollError, CatalogFailed, InputError, NotThere, RunFailed
from atoll.misfits import misfit, show_path
from atoll.web.api import make_routes
from atoll.web.auth import Guard
from atoll.web.site import PAGES, STATIC, Site, is_fragment, render, static_digest
from atoll.web.wire import Problem

YEAR_S = 365 * 24 * 3600


def create_app(site: Site, *, hosts: frozenset[str], cookie: str, secure: bool = False) -> FastAPI:
    """The application of a site, whose catalogue it closes when it ends.

    Args:
        site: workspace, tokens, catalogue.
        hosts: the host names that it answers to, in lower case, without a port.
        cookie: the name of the cookie that carries the token; with the port in it, since cookies ignore ports.
        secure: whether the cookie is for https only.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        site.open()
        try:
            yield
        finally:
            site.close()

    app = FastAPI(
        title="atoll", version=atoll.__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.include_router(make_routes(site.catalog))
    for name in (*PAGES, "load_tests"):  # the last has no page of its own, only what the pages of jobs send
        app.include_router(import_module(f"atoll.web.pages.{name}").make_page(site))
    app.mount("/static", CachedFiles(directory=STATIC), name="static")
    show = _shower(site)
    for kind in (AtollError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, show)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=6)  # live streams are left alone by it
    app.add_middleware(
        Guard, tokens=site.tokens, hosts=hosts, cookie=cookie, refuse=_refuse, now=site.clock.now, secure=secure
    )
    return app


class CachedFiles(StaticFiles):
    """Static files: one asked for by its present content may be kept for a year, others are asked anew."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        current = scope["query_string"] == f"v={static_digest()}".encode()
        answer.headers["cache-control"] = f"public, max-age={YEAR_S}, immutable" if current else "no-cache"
        return answer


def status_of(error: Exception) -> int:
    """404: not there; 400: given wrong; 502: a run failed; 503: the catalogue failed; else 500."""
    if isinstance(error, HTTPException):
        return error.status_code
    kinds = ((NotThere, 404), (InputError, 400), (RequestValidationError, 422), (RunFailed, 502), (CatalogFailed, 503))
    return next((status for kind, status in kinds if isinstance(error, kind)), 500)


def sentence_of(error: Exception) -> str:
    """The sentence that the command line would show."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return f"{misfit(first, place=show_path(first['loc'][1:]))}."
    if isinstance(error, HTTPException):
        return "There is no such page." if error.status_code == 404 else str(error.detail)
    if isinstance(error, AtollError):
        return str(error)
    return f"atoll itself failed here ({type(error).__name__}); the server's output has the whole story."


def _shower(site: Site) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def show(request: Request, error: Exception) -> Response:
        status, sentence = status_of(error), sentence_of(error)
        if request.url.path.startswith(("/api/", "/health")):
            return JSONResponse(Problem(error=sentence).to_plain(), status_code=status)
        template = "error_fragment.html" if is_fragment(request) else "error.html"
        return site.show(request, template, page="common", status=status, sentence=sentence)

    return show


def _refuse(status: int, sentence: str, scope: Scope) -> tuple[bytes, bytes]:  # noqa: ARG001
    """What the guard answers: JSON for the API and for programs, a page for a person."""
    headers = dict(scope["headers"])
    if b"text/html" not in headers.get(b"accept", b"") or scope["path"].startswith("/api/"):
        return b"application/json", json.dumps({"error": sentence}).encode()
    request = Request(scope)
    template = "error_fragment.html" if is_fragment(request) else "error.html"
    return b"text/html; charset=utf-8", render(request, template, page="common", sentence=sentence).encode()
