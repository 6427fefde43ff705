"""Real vLLM (the CPU build will do): its parser on our command lines, and two replicas under load. `--vllm PATH` asks."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from atoll.layout.layout import Layout
from atoll.model.read import read_model
from atoll.render import render_bundle
from atoll.render.process import ProcessPlan

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
HERE = Path(__file__).parent
BUNDLES = HERE.parent / "data" / "bundles"
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@pytest.fixture(scope="session")
def vllm(request) -> Path:
    return Path(request.config.getoption("vllm")).resolve()


@pytest.fixture(scope="session")
def version(vllm) -> str:
    done = subprocess.run([vllm, "--version"], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip().split()[-1].split("+")[0]


def golden_command_lines(version: str) -> dict[str, list[str]]:
    found = {}
    for path in sorted(BUNDLES.glob("*.layout.yaml")):
        layout = Layout.parse(path.read_text(), origin=path.name).replace(engine_version=version)
        name = layout.model if not layout.model.startswith("/") else f"Qwen/{Path(layout.model).name}"
        bundle = render_bundle(layout, read_model(name), to="process")
        plan = ProcessPlan.parse(bundle.files["process.yaml"], origin="process.yaml")
        found |= {f"{layout.name}/{r.number}": list(r.argv[2:]) for r in plan.replicas}
    return found


def test_vllm_accepts_every_golden_command_line(vllm, version):
    lines = golden_command_lines(version)
    bad = ["m", "--max-num-sequences", "8"]
    python = vllm.with_name("python")
    given = json.dumps([*lines.values(), bad])
    argv = [python, HERE / "parse_with_vllm.py"]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=300, check=True)
    answers = json.loads(done.stdout.split("ANSWER ")[1])
    assert dict(zip(lines, answers[:-1], strict=True)) == dict.fromkeys(lines)
    assert "unrecognized arguments: --max-num-sequences" in answers[-1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def deployment(vllm, version, tmp_path_factory):
    """Two replicas of the tiny model behind nginx, brought up by the command that a user types."""
    folder = tmp_path_factory.mktemp("vllm")
    subprocess.run([vllm.with_name("python"), HERE / "tiny_model.py", folder / "tiny"], check=True, timeout=120)
    ports = [free_port() for _ in range(3)]
    layout = {
        "name": "tiny",
        "model": str(folder / "tiny"),
        "box": {"gpus": [{"index": 0}, {"index": 1}], "links": [{"a": 0, "b": 1, "kind": "PHB"}]},
        "replicas": [{"gpus": [n], "tensor_parallel": 1, "port": ports[n]} for n in range(2)],
        "router": {"policy": "least_conn", "port": ports[2]},
        "flags": {
            "max_model_len": 2048,
            "max_num_seqs": 8,
            "max_num_batched_tokens": 2048,
            "gpu_memory_utilization": 0.1,
        },
        "engine": "vllm",
        "engine_version": version,
    }
    (folder / "layout.yaml").write_text(json.dumps(layout))
    bundle = folder / "bundle"
    environment = {**os.environ, **CPU, "PATH": f"{vllm.parent}:{os.environ['PATH']}"}

    def atoll(*words: str) -> str:
        argv = [sys.executable, "-m", "atoll", *words]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=600, env=environment, cwd=folder, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        atoll("up", str(folder / "layout.yaml"), "-o", str(bundle))
        yield atoll, bundle, f"http://127.0.0.1:{ports[2]}"
    finally:
        with contextlib.suppress(AssertionError):
            atoll("down", str(bundle))


def bench(atoll, url: str, seconds: int) -> dict:
    words = ("--users", "8", "--duration", f"{seconds}s", "--prompt", "64", "--output", "40")
    return json.loads(atoll("bench", url, "--model", "tiny", *words, "--json"))


def engine_cores(bundle: Path) -> list[int]:
    """Processes named VLLM::EngineCore in the sessions of this deployment's replicas."""
    pids = {program["pid"] for program in json.loads((bundle / "deployment.json").read_text())["replicas"]}
    rows = subprocess.run(
        ["ps", "-eo", "pid=,sid=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    split = [row.split(None, 2) for row in rows]
    return [int(pid) for pid, sid, args in split if int(sid) in pids and "EngineCore" in args]


def test_eight_users_are_served_by_both_replicas(deployment):
    atoll, bundle, url = deployment
    summary = bench(atoll, url, 10)
    counts = summary["requests"]
    assert counts["sent"] == counts["ok"] > 20
    assert sorted(part["replica"] for part in summary["per_replica"]) == ["0", "1"]
    services = {s["name"]: s for s in json.loads(atoll("status", str(bundle), "--json"))["services"]}
    assert services["replica-0"]["healthy"]
    assert services["replica-0"]["kv_usage"] is not None


def test_a_killed_engine_core_costs_only_its_own_answers(deployment):
    atoll, bundle, url = deployment
    cores = engine_cores(bundle)
    assert len(cores) == 2
    results: list[dict] = []
    running = threading.Thread(target=lambda: results.append(bench(atoll, url, 20)))
    running.start()
    time.sleep(8)
    os.kill(cores[0], signal.SIGKILL)
    running.join()
    counts = results[0]["requests"]
    print(
        results[0]["requests"], results[0]["errors"], [(p["replica"], p["requests"]) for p in results[0]["per_replica"]]
    )
    assert counts["sent"] == counts["ok"] + counts["failed"] + counts["cancelled"]
    assert 0 < counts["failed"] <= 16  # those it was answering, and those it was given before it noticed
    healthy = [
        s["healthy"] for s in json.loads(atoll("status", str(bundle), "--json"))["services"] if s["number"] is not None
    ]
    assert sorted(healthy) == [False, True]
    assert bench(atoll, url, 5)["requests"]["failed"] == 0


def test_down_leaves_no_process(deployment):
    atoll, bundle, url = deployment
    atoll("down", str(bundle))
    assert engine_cores(bundle) == []
    with socket.socket() as probe:
        host, port = url.removeprefix("http://").split(":")
        assert probe.connect_ex((host, int(port))) != 0
