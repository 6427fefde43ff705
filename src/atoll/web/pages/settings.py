"""Settings: language, theme, access tokens, versions and licences."""

import tomllib
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from atoll.errors import CatalogFailed, InputError
from atoll.web.site import STATIC, Site
from atoll.web.tokens import Role
from atoll.web.words import LANGUAGES

YEAR_S = 365 * 24 * 3600
SHOWN_LINES = 50  # of the audit log
THEMES = ("auto", "light", "dark")


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()

    @routes.get("/settings")
    def settings(request: Request, find: str = "") -> HTMLResponse:
        return _show(site, request, find=find)

    @routes.get("/settings/look")
    def look(lang: str = "", theme: str = "") -> Response:
        """A reader's own language and theme, kept in their browser; nothing here changes, so a viewer may."""
        answer = RedirectResponse("/settings", status_code=303)
        if lang in LANGUAGES:
            answer.set_cookie("lang", lang, max_age=YEAR_S, httponly=True, samesite="strict")
        if theme in THEMES:
            answer.set_cookie("theme", theme, max_age=YEAR_S, httponly=True, samesite="strict")
        return answer

    @routes.post("/settings/tokens")
    def make_token(request: Request, name: Annotated[str, Form()], role: Annotated[str, Form()]) -> HTMLResponse:
        if role not in {one.value for one in Role}:
            raise InputError(f"{role!r} is no role; there are operator and viewer.")
        site.note(request, f"make a {role}'s token for {name}")
        token, secret = site.tokens.make(name, Role(role), now=site.clock.wall())
        return _show(site, request, made=token, secret=secret)

    @routes.post("/settings/tokens/{token_id}/revoke")
    def revoke_token(request: Request, token_id: str) -> Response:
        site.note(request, f"revoke token {token_id}")
        site.tokens.revoke(token_id)
        return RedirectResponse("/settings", status_code=303)

    return routes


def vendored() -> list[dict[str, str]]:
    """The static files that others wrote, with versions and licences."""
    text = (STATIC / "vendor" / "vendor.toml").read_text(encoding="utf-8")
    files: list[dict[str, str]] = tomllib.loads(text)["file"]
    return files


def _last_lines(site: Site, find: str) -> dict[str, Any]:
    """Of the audit log; a catalogue that fails is told there, and the rest of the page works."""
    try:
        return {"lines": site.audit.last(words=find, limit=SHOWN_LINES), "trouble": None}
    except CatalogFailed as error:
        return {"lines": (), "trouble": str(error)}


def _show(site: Site, request: Request, *, find: str = "", **values: Any) -> HTMLResponse:
    shown = {"made": None, "secret": None} | values
    return site.show(
        request,
        "settings.html",
        page="settings",
        tokens=site.tokens.all(),
        find=find,
        **_last_lines(site, find),
        files=vendored(),
        languages=LANGUAGES,
        themes=THEMES,
        **shown,
    )
