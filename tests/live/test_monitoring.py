"""The dashboard and the alerts on a real Prometheus that scrapes emulated replicas behind nginx; `--prometheus PATH`."""

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from atoll.layout.layout import Layout
from atoll.outside.clock import SystemClock
from atoll.outside.ports import free_ports
from atoll.outside.shell import RealShell
from atoll.render import RenderSettings
from atoll.render.dashboard import queries
from atoll.run.deployment import read_state
from atoll.run.process import down, up
from atoll.traffic.slo import SLO
from atoll.workflows.render import render_layout
from stand_ins.patience import wait_until

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(300)]
LAYOUT = Path(__file__).parents[1] / "data" / "bundles" / "h100-nvl-2xtp2.layout.yaml"
SHELL, CLOCK = RealShell(), SystemClock()
BODY = {"messages": [{"role": "user", "content": "one two three " * 100}], "max_tokens": 60, "ignore_eos": True}
ELSEWHERE = {"CPU of the machine in use", "Memory of the machine in use"}  # no node exporter here


async def load(url: str, seconds: float) -> None:
    """Sixteen users, without a pause."""
    until = time.monotonic() + seconds

    async def user(client: httpx.AsyncClient) -> None:
        while time.monotonic() < until:
            assert (await client.post(f"{url}/v1/chat/completions", json=BODY)).status_code == 200

    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        await asyncio.gather(*(user(client) for _ in range(16)))


def test_every_panel_shows_something_and_a_dead_replica_is_told(tmp_path, request):
    first, second, door, page = free_ports(4)
    layout = Layout.parse(LAYOUT.read_text(), origin=LAYOUT.name)
    replicas = [one.replace(port=port) for one, port in zip(layout.replicas, (first, second), strict=True)]
    layout = layout.replace(
        engine="emulated", replicas=replicas, router=layout.router.replace(port=door), slo=SLO(ttft_s=1)
    )
    bundle = tmp_path / "bundle"
    render_layout(layout, to="process", folder=bundle, settings=RenderSettings(extras=("monitoring",)))
    argv = [request.config.getoption("prometheus"), "--config.file", str(bundle / "monitoring" / "prometheus.yml")]
    argv += ["--storage.tsdb.path", str(tmp_path / "tsdb"), f"--web.listen-address=127.0.0.1:{page}"]
    prometheus = httpx.Client(base_url=f"http://127.0.0.1:{page}/api/v1", trust_env=False, timeout=30)

    def ask(path: str, **words: str):
        return prometheus.get(path, params=words).json()["data"]

    def firing() -> set[str]:
        return {one["labels"]["alertname"] for one in ask("/alerts")["alerts"] if one["state"] == "firing"}

    async def story() -> None:
        deployment = await up(bundle, shell=SHELL, clock=CLOCK, timeout_s=60)
        await load(deployment.url, 45)
        board = json.loads((bundle / "monitoring" / "grafana" / "dashboards" / "atoll.json").read_text())
        empty = []
        for title, expression in queries(board):
            found = ask("/query", query=expression.replace("$__rate_interval", "30s"))["result"]
            print(f"{title:40} {[float(one['value'][1]) for one in found]}")
            empty += [title] if not found else []
        assert set(empty) == ELSEWHERE
        rules = ask("/rules")["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} == {"ok"}
        assert not firing()
        os.kill(read_state(bundle).replicas[1].pid, signal.SIGKILL)
        wait_until(lambda: "ReplicaDown" in firing())

    with prometheus, subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            asyncio.run(story())
        finally:
            asyncio.run(down(bundle, shell=SHELL, clock=CLOCK))
            running.terminate()
