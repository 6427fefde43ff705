"""A control plane for tests: asked in process, or started as a process of its own for a browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from atoll.outside.clock import SystemClock
from atoll.web.app import create_app
from atoll.web.site import Site
from atoll.web.tokens import Role, Tokens

HOST = "127.0.0.1:8090"
OPERATOR, VIEWER = "operator-secret", "viewer-secret"
PATIENCE_S = 60  # ends a hang, nothing more
STUDY = """\
name: cards
box: {gpu: L40S-48GB, gpus: 2}
model: Qwen/Qwen2.5-7B-Instruct
workload: {users: 2, requests: 12, prompt: 64, output: 16}
variants:
  - {name: one, tensor_parallel: 1}
  - {name: two, tensor_parallel: 1, replicas: 2}
"""


def site_over(workspace, *, catalog, kept):
    """A site with one token of each role; `kept` is the catalogue that further ones are kept in."""
    extra = (("olga", OPERATOR, Role.OPERATOR), ("vera", VIEWER, Role.VIEWER))
    clock = SystemClock()
    return Site(workspace=workspace, tokens=Tokens(kept, now=clock.now, extra=extra), catalog=catalog, clock=clock)


def routes_of(site):
    """(method, path) of every route of the application, those of included routers too."""

    def walk(router):
        for route in router.routes:
            inner = getattr(route, "original_router", None)
            if inner is not None:
                yield from walk(inner)
            else:
                yield from ((method, route.path) for method in sorted(getattr(route, "methods", None) or ()))

    found = tuple(walk(create_app(site, hosts=frozenset({"127.0.0.1"}), cookie="atoll-8090")))
    assert len(found) > 30
    return found


def client_of(site, secret=OPERATOR, *, raising=True, **headers):
    """An HTTP client in process, with a token; without `raising` what fails in the server is its answer."""
    app = create_app(site, hosts=frozenset({"127.0.0.1", "[::1]", "*.lan"}), cookie="atoll-8090")
    given = {"Authorization": f"Bearer {secret}"} if secret else {}
    return TestClient(
        app,
        base_url=f"http://{HOST}",
        headers=given | headers,
        follow_redirects=False,
        raise_server_exceptions=raising,
    )


@dataclass
class Server:
    """`atoll serve` as a process of its own."""

    workspace: Path
    process: subprocess.Popen
    link: str  # as printed, with the token
    log: Path

    @property
    def url(self):
        return self.link.split("/?")[0]

    @property
    def secret(self):
        return self.link.split("token=")[1]

    def kill(self):
        """As kill -9 does it."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()


def start_server(workspace, state, *arguments, port=0, **variables):
    """Start it and wait until it has printed its link; its words go to a file, never to a pipe."""
    log = state / f"serve-{time.monotonic_ns()}.log"
    state.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "XDG_STATE_HOME": str(state), **variables}
    with log.open("wb") as stream:
        argv = [sys.executable, "-m", "atoll", "serve", str(workspace), "--port", str(port), *arguments]
        process = subprocess.Popen(argv, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, env=environment)
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        found = re.search(r"https?://\S+/\?token=\S+", log.read_text())
        if found:
            return Server(Path(workspace), process, found.group(), log)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"the server did not start: {log.read_text()}")


def start_engine(folder):
    """`atoll emulate` on a free port; gives the process and its URL once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    argv = [sys.executable, "-m", "atoll", "emulate", "--gpu", "H100-SXM-80GB", "--model", "Qwen/Qwen2.5-7B-Instruct"]
    with (folder / "engine.log").open("wb") as stream:
        process = subprocess.Popen([*argv, "--port", str(port)], stdout=stream, stderr=stream)
    url, ends = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return process, url
        except httpx.TransportError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError((folder / "engine.log").read_text())


def chromium():
    """The browser that is found, if any; in CI a test that is skipped for the want of it fails."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium")
    return found
