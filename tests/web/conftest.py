"""A control plane for each test: in process for its routes, as a process of its own for a browser."""

from dataclasses import dataclass

import pytest

from atoll.store.opening import open_catalog
from atoll.web.tokens import open_private
from atoll.web.workspace import Workspace
from stand_ins.control_plane import PATIENCE_S, chromium, client_of, site_over, start_engine, start_server


@pytest.fixture
def site(tmp_path):
    """A site over an empty workspace, with one token of each role."""
    return make_site(tmp_path)


@pytest.fixture(scope="module")
def asked_often(tmp_path_factory):
    """A client for questions that change nothing, whose workers stay warm for the whole module."""
    with client_of(make_site(tmp_path_factory.mktemp("asked"))) as made:
        yield made


def make_site(tmp_path):
    return site_over(
        Workspace(tmp_path / "workspace"),
        catalog=open_catalog(f"sqlite:{tmp_path / 'runs.db'}"),
        kept=open_private(tmp_path / "state" / "tokens.db"),
    )


@pytest.fixture
def client(site):
    with client_of(site) as made:
        yield made


@pytest.fixture
def server(tmp_path):
    made = start_server(tmp_path / "workspace", tmp_path / "state")
    yield made
    made.stop()


@pytest.fixture
def emulated_engine(tmp_path):
    """The URL of an emulated engine."""
    process, url = start_engine(tmp_path)
    yield url
    process.kill()
    process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def browser():
    """A browser for one module: while its driver runs, no test may run a loop of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    playwright.expect.set_options(timeout=PATIENCE_S * 1000)
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield made
        made.close()


@dataclass
class Seen:
    """What a page's browser complained of, and whom it asked."""

    errors: list
    asked: list

    def check(self, url):
        assert self.errors == []
        assert [one for one in self.asked if not one.startswith((url, "data:", "blob:"))] == []


@pytest.fixture
def open_page(browser):
    """Opens pages in a context of their own; at the end none has had an error or asked elsewhere."""
    opened = []

    def open_one(link, *, width=1440, height=900, lang="en-US", scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": height}, locale=lang, color_scheme=scheme, accept_downloads=True
        )
        page, seen = context.new_page(), Seen([], [])
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("request", lambda request: seen.asked.append(request.url))
        page.goto(link)
        opened.append((context, seen, link.split("/?")[0]))
        return page

    yield open_one
    for context, seen, url in opened:
        context.close()
        seen.check(url)
