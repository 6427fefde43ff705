"""Who may ask the control plane: by the name it is asked under, and by the key when there is one."""

from collections.abc import Sequence
from hmac import compare_digest

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from atoll.errors import InputError
from atoll.web.wire import Problem

HERE = ("127.0.0.1", "localhost", "[::1]")
HEALTH = "/health"  # asked by Docker, which has no key


def guard(app: FastAPI, *, key: str | None, hosts: Sequence[str]) -> None:
    """Refuse foreign names with 400, and who has not the key with 401.

    Args:
        app: what is guarded.
        key: wanted as `Authorization: Bearer KEY` on every route but /health; None or empty: nobody is asked.
        hosts: names beside this machine's own. A browser sends a foreign one when a page's name was pointed here.
    """
    bad = [host for host in hosts if "*" in host.removeprefix("*.") or "/" in host]
    if bad:
        raise InputError(f"ATOLL_HOSTS: {bad[0]!r} is no name. Write names like runs.example.com, with commas between.")
    if key:
        app.add_middleware(_Keyed, key=key)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*HERE, *hosts], www_redirect=False)


class _Keyed:
    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] == HEALTH or self._has_key(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        problem = Problem(error="This needs the key: send VLLM_API_KEY as `Authorization: Bearer KEY`.")
        refusal = JSONResponse(problem.to_plain(), status_code=401, headers={"WWW-Authenticate": "Bearer"})
        await refusal(scope, receive, send)

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and compare_digest(given.strip().encode("latin-1"), self._key)
