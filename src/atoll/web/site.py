"""Site: all that a page needs, put together once by `atoll serve` or a test, and how a page is shown."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

import atoll
from atoll.outside.clock import Clock, SystemClock
from atoll.outside.workers import Workers
from atoll.report.sentences import tell, tell_words
from atoll.store.catalog import Catalog
from atoll.units import show_bytes, show_seconds
from atoll.web.audit import Audit, AuditLine
from atoll.web.jobs import Jobs
from atoll.web.looks import Looks, Meter
from atoll.web.planning import Planner
from atoll.web.tokens import PRINTED_LINK, Role, Token, Tokens
from atoll.web.words import Words, choose_language, words_of
from atoll.web.workspace import Workspace

# The pages of the bar at the top, in order; each is a module of web/pages with a file in words/ and in templates/.
PAGES = ("home", "boxes", "plan", "deployments", "jobs", "studies", "runs", "doctor", "chat", "settings")

MOST_WORKERS = 2  # heavy questions that are answered at the same time; further ones wait


@dataclass(kw_only=True)
class Site:
    """The control plane of one workspace."""

    workspace: Workspace
    tokens: Tokens
    catalog: Catalog
    door: str | None = None  # the URL that chat and load tests go to when no deployment of the workspace runs
    contained: bool = False  # inside the Compose stack: no Docker socket, up and down are the operator's on the host
    warm: bool = False  # start what answers heavy questions before the first one is asked
    clock: Clock = field(default_factory=SystemClock)

    @cached_property
    def jobs(self) -> Jobs:
        return Jobs(self.workspace.root)

    @cached_property
    def workers(self) -> Workers:
        """Processes that answer heavy questions; what goes wrong is said over their lines, so they print nothing."""
        return Workers("atoll.web.worker", most=MOST_WORKERS, log=Path(os.devnull), clock=self.clock)

    @cached_property
    def planner(self) -> Planner:
        return Planner(self.workers)

    def open(self) -> None:
        """What is to be ready before the first request."""
        if self.warm:
            self.workers.warm()

    def close(self) -> None:
        """End what was started and let the catalogue go."""
        if "workers" in self.__dict__:
            self.workers.close()
        self.tokens.close()
        self.catalog.close()

    @cached_property
    def looks(self) -> Looks:
        return Looks(self.clock)

    @cached_property
    def meter(self) -> Meter:
        return Meter(self.clock)

    def words(self, request: Request, page: str) -> Words:
        """A page's words in the reader's language."""
        return words_of(page, _language_of(request))

    @cached_property
    def audit(self) -> Audit:
        return Audit(self.workspace.own, self.catalog)

    def note(self, request: Request, what: str, *, insist: bool = True) -> None:
        """One line in the audit log; it is written before what it tells of is done. See Audit.note for `insist`."""
        self.audit.note(AuditLine(at=self.clock.wall(), who=token_of(request).name, what=what), insist=insist)

    def show(self, request: Request, template: str, *, page: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page or a fragment of one, in the reader's language and theme."""
        return HTMLResponse(render(request, template, page=page, site=self, **values), status_code=status)


def token_of(request: Request) -> Token:
    """Whose request this is; the guard has let nobody through without a token."""
    token = request.state.token
    assert isinstance(token, Token)
    return token


def is_fragment(request: Request) -> bool:
    """Whether htmx asked, so that a piece of a page is wanted."""
    return "hx-request" in request.headers


def render(request: Request, template: str, *, page: str, **values: Any) -> str:
    """A template's text. `t` is the page's words, `lang` and `theme` the reader's, `may_change` the token's role."""
    lang = _language_of(request)
    token = getattr(request.state, "token", None)
    shown: Mapping[str, Any] = {
        "t": words_of(page, lang),
        "say": lambda text: tell(text, lang),
        "say_words": lambda words: tell_words(words, lang),
        "who": lambda name: words_of("common", lang)["printed_link"] if name == PRINTED_LINK else name,
        "lang": lang,
        "theme": request.cookies.get("theme", ""),
        "page": page,
        "pages": PAGES,
        "request": request,
        "token": token,
        "may_change": token is not None and token.role is Role.OPERATOR,
        "version": atoll.__version__,
        "static_digest": static_digest(),
        **values,
    }
    text: str = _environment().get_template(template).render(shown)
    return text


def _language_of(request: Request) -> str:
    return choose_language(request.cookies.get("lang"), request.headers.get("accept-language", ""))


@cache
def static_digest() -> str:
    """Changes with any of the static files, so that a browser may keep those it has."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _environment() -> Environment:
    return _ENVIRONMENT


def _make_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("atoll.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = lambda value: "–" if value is None else show_seconds(value)
    environment.filters["signed"] = _signed
    environment.filters["between"] = _between
    environment.filters["gpus"] = _gpus
    environment.filters["value"] = lambda value: "" if value is None else value
    environment.filters["bytes"] = show_bytes
    environment.filters["count"] = lambda value: "–" if value is None else f"{value:,.0f}"
    environment.filters["percent"] = _percent
    environment.filters["watts"] = lambda value: "–" if value is None else f"{value:,.0f} W"
    environment.filters["moment"] = _moment
    environment.filters["safe_json"] = _safe_json
    environment.filters["coded"] = _coded
    return environment


def _signed(seconds: float | None) -> str:
    """`+12 ms`; a minus that is as wide as the plus."""
    if seconds is None:
        return "–"
    return ("+" if seconds > 0 else "−" if seconds < 0 else "") + show_seconds(abs(seconds))


def _between(interval: tuple[float, float]) -> str:
    """`34–49 ms`; the unit once where both have the same."""
    low, high = map(show_seconds, interval)
    return f"{low.rpartition(' ')[0]}–{high}" if low.rpartition(" ")[2] == high.rpartition(" ")[2] else f"{low}–{high}"


def _gpus(indices: Sequence[int]) -> str:
    """`0,1`, and from three neighbours on `0-3`."""
    neighbours = len(indices) > 2 and list(indices) == list(range(indices[0], indices[0] + len(indices)))
    return f"{indices[0]}-{indices[-1]}" if neighbours else ",".join(map(str, indices))


def _percent(share: float | None) -> str:
    """A share of 1; small ones with a digit more, since an empty cache and a used one differ."""
    if share is None:
        return "–"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _moment(at: float) -> str:
    """`2026-11-30 21:04`, UTC; a time that no calendar has is a dash."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "–"


def _coded(text: str) -> Markup:
    """What stands in backticks as code; all else is escaped."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def _safe_json(text: str) -> Markup:
    """JSON inside a script element: nothing in it can end the element."""
    escaped = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(escaped)  # noqa: S704 - it holds no character that HTML knows


_ENVIRONMENT = _make_environment()

PageRoutes = Callable[[Site], Any]
STATIC = Path(__file__).parent / "static"
