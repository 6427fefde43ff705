"""Whoever answers as `atoll emulate` is never shown as measured, whatever the load test believes it asks."""

import asyncio
import json
import subprocess
import sys

import pytest

from atoll.model.read import read_model
from atoll.outside.clock import SystemClock
from atoll.outside.shell import RealShell
from atoll.run.process import down, prepare, up
from atoll.store.folder import read_info
from atoll.workflows.report import report_path
from stand_ins.layouts import MODEL, two_pairs
from stand_ins.naughty import Naughty


@pytest.fixture
def door(tmp_path):
    """The URL of nginx before two emulated replicas."""
    place, shell, clock = tmp_path / "deployment", RealShell(), SystemClock()
    prepare(two_pairs(), read_model(MODEL), folder=place, free_router_port=True)
    deployment = asyncio.run(up(place, shell=shell, clock=clock, attached=True, say=lambda _: None))
    yield deployment.url
    asyncio.run(down(place, shell=shell, clock=clock))


def atoll(*words, folder):
    program = [sys.executable, "-m", "atoll", *words, "--json"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_plain_url_is_found_to_be_emulated_through_nginx(door, tmp_path):
    load = ("--users", "2", "--requests", "4", "--prompt", "8", "--output", "4")
    assert atoll("bench", door, *load, "-o", "run", folder=tmp_path)["source"] == "emulated"
    info = read_info(tmp_path / "run")
    assert (info.engine, info.source) == ("external", "emulated")
    (listed,) = atoll("runs", "list", folder=tmp_path)["runs"]
    assert listed["source"] == "emulated"
    compared = atoll("compare", "run", "run", folder=tmp_path)["runs"]
    assert [run["source"] for run in compared] == ["emulated", "emulated"]
    page = report_path(tmp_path / "run").read_text()
    assert '<span class="chip emulated">emulated</span>' in page
    assert '<span class="chip measured">' not in page


def test_any_other_server_is_measured(tmp_path):
    server = Naughty()
    try:
        done = atoll("bench", server.url, "--model", "m", "--requests", "2", "-o", "run", folder=tmp_path)
    finally:
        server.close()
    assert done["source"] == "measured"
