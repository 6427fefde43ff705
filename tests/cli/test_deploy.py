"""`atoll up`, `status`, `logs` and `down` as a user types them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from atoll.model.read import read_model
from atoll.outside.ports import free_ports
from atoll.outside.processes import all_stats
from atoll.render.nginx import PROCESS_ACCESS_LOG
from atoll.run.process import PROCESS_FILE, prepare, read_plan
from stand_ins.layouts import MODEL, two_pairs
from stand_ins.patience import PATIENCE_S, wait_until


def atoll(*words: object, cwd: Path) -> subprocess.CompletedProcess:
    argv = [sys.executable, "-m", "atoll", *map(str, words)]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)


def running_in(folder: Path) -> list[str]:
    found = []
    for stat in all_stats():
        try:
            here = Path(f"/proc/{stat.id.pid}/cwd").readlink() == folder.resolve()
        except OSError:
            continue
        if here and stat.alive:
            found.append(stat.name)
    return found


@pytest.fixture
def layout_file(tmp_path):
    layout = two_pairs(engine="vllm")
    layout = layout.replace(router=layout.router.replace(port=free_ports(1)[0]))
    (tmp_path / "layout.yaml").write_text(layout.to_yaml())
    return tmp_path / "layout.yaml"


def test_up_status_logs_and_down_of_a_layout(layout_file, tmp_path):
    folder = tmp_path / "two-pairs-process"
    up = atoll("up", "layout.yaml", "--engine", "emulated", "--json", cwd=tmp_path)
    try:
        assert up.returncode == 0, up.stderr
        deployment = json.loads(up.stdout)
        assert "replica-1 answers after" in up.stderr
        body = {"model": deployment["model"], "prompt": "hello", "max_tokens": 2}
        answer = httpx.post(f"{deployment['url']}/v1/completions", json=body, timeout=PATIENCE_S, trust_env=False)
        assert answer.json()["usage"]["completion_tokens"] == 2
        seen = json.loads(atoll("status", "layout.yaml", "--json", cwd=tmp_path).stdout)
        assert seen["state"] == "up"
        assert [service["gpus"] for service in seen["services"]] == [[0, 1], [2, 3], []]
        shown = atoll("status", folder, cwd=tmp_path).stdout
        assert "two-pairs is up" in shown
        assert "replica-1" in shown
        assert "up already" in atoll("up", "layout.yaml", "--engine", "emulated", cwd=tmp_path).stderr
        logs = json.loads(atoll("logs", folder, "--replica", 0, "--json", cwd=tmp_path).stdout)
        assert logs["lines"][0].startswith("replica 0 of two-pairs")
        asked = {"X-Request-Id": "slow-1"}, {"X-Request-Id": "slow-10"}
        for headers in asked:
            httpx.post(f"{deployment['url']}/v1/completions", json=body, headers=headers, trust_env=False)
        wait_until(lambda: "slow-10" in (folder / PROCESS_ACCESS_LOG).read_text())
        (line,) = json.loads(atoll("logs", folder, "--request", "slow-1", "--json", cwd=tmp_path).stdout)["lines"]
        noted = json.loads(line.removeprefix("door | "))
        assert (noted["id"], noted["status"], noted["path"]) == ("slow-1", 200, "/v1/completions")
        unknown = atoll("logs", folder, "--request", "slow", cwd=tmp_path)
        assert (unknown.returncode, "names 'slow'" in unknown.stderr) == (2, True)
    finally:
        down = atoll("down", "layout.yaml", "--json", cwd=tmp_path)
    assert sorted(json.loads(down.stdout)["ended"]) == ["replica-0", "replica-1", "router"]
    assert running_in(folder) == []
    assert "nothing was running" in atoll("down", folder, cwd=tmp_path).stdout


def test_a_dry_run_writes_and_starts_nothing(layout_file, tmp_path):
    done = atoll("up", "layout.yaml", "--engine", "emulated", "--dry-run", "--json", cwd=tmp_path)
    plan = json.loads(done.stdout)
    assert set(plan["files"]) >= {"nginx.conf", "process.yaml", "layout.yaml"}
    assert "--replica 1" in plan["commands"][2]
    assert not (tmp_path / "two-pairs-process").exists()


def test_what_cannot_be_started_is_one_sentence_and_exit_2(layout_file, tmp_path):
    for words in (("up", "none.yaml"), ("up", tmp_path), ("status", tmp_path), ("down", "layout.yaml")):
        done = atoll(*words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr.startswith("atoll: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_a_start_that_is_cut_short_leaves_nobody(tmp_path, number, code):
    """Until all answer, the deployment hangs on the command that starts it."""
    folder = tmp_path / "bundle"
    prepare(two_pairs(), read_model(MODEL), folder=folder, free_router_port=True)
    plan = read_plan(folder)
    silent = plan.replicas[1].replace(argv=("python", "-c", "import time; time.sleep(3600)"))
    (folder / PROCESS_FILE).write_text(plan.replace(replicas=(plan.replicas[0], silent)).to_yaml())
    starting = subprocess.Popen([sys.executable, "-m", "atoll", "up", str(folder)], stderr=subprocess.PIPE, text=True)
    try:
        lines = [starting.stderr.readline() for _ in range(2)]  # the router and replica 0 answer
        assert all("answers after" in line for line in lines), lines
        os.kill(starting.pid, number)
        assert starting.wait(PATIENCE_S) == code
    finally:
        starting.kill()
        starting.communicate()
    wait_until(lambda: not running_in(folder))


def test_two_at_once_bring_it_up_once(layout_file, tmp_path):
    argv = [sys.executable, "-m", "atoll", "up", "layout.yaml", "--engine", "emulated"]
    both = [
        subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in "ab"
    ]
    words = [process.communicate(timeout=PATIENCE_S)[1] for process in both]
    try:
        assert sorted(process.returncode for process in both) == [0, 2]
        loser = words[0] if both[0].returncode else words[1]
        assert "is being brought up by another atoll" in loser or "is up already" in loser
        assert "is up" in atoll("status", "layout.yaml", cwd=tmp_path).stdout
    finally:
        atoll("down", "layout.yaml", cwd=tmp_path)
    assert running_in(tmp_path / "two-pairs-process") == []
