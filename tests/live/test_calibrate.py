"""Calibrate one real vLLM, then predict two behind nginx. Asked for with --vllm PATH; wants two idle cores.

The model is wide enough that a step takes tens of milliseconds, so that the engine and not its front is what a load waits
for. Two engines, each of two processes, have to share two cores with nginx and the load, which slows them by half. What a
machine shares is seen only while it is shared: so one engine is calibrated twice, alone and beside a busy neighbour, and
each profile predicts what runs as it was measured. Medians are compared: with eight busy processes on two cores a token
may wait for seconds, which is the box's doing and no engine's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
HERE = Path(__file__).parent
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
FLAGS = {"max_model_len": 2048, "max_num_seqs": 16, "max_num_batched_tokens": 2048, "gpu_memory_utilization": 0.1}
ROOM = 0.25  # relative
ALONE = {"1x": (1, "round_robin")}
BESIDE = {"2x-round-robin": (2, "round_robin"), "2x-least-conn": (2, "least_conn")}


@pytest.fixture(scope="module")
def atoll(request, tmp_path_factory):
    """The command, in a folder that holds the model `wide`; gives what it printed."""
    vllm = Path(request.config.getoption("vllm")).resolve()
    folder = tmp_path_factory.mktemp("calibrate")
    subprocess.run([vllm.with_name("python"), HERE / "tiny_model.py", folder / "wide", "--wide"], check=True)
    environment = {**os.environ, **CPU, "HF_HUB_OFFLINE": "1", "PATH": f"{vllm.parent}:{os.environ['PATH']}"}

    def run(*words: str) -> str:
        argv = [sys.executable, "-m", "atoll", *words]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=folder, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run, folder


@pytest.fixture(scope="module")
def ports(atoll):
    """Of two replicas that are up."""
    run, folder = atoll
    gpus = [{"index": 0, "name": "L4-24GB"}, {"index": 1, "name": "L4-24GB"}]  # cards stand for cores here
    layout = {
        "name": "two",
        "model": str(folder / "wide"),
        "box": {"gpus": gpus, "links": [{"a": 0, "b": 1, "kind": "PHB"}]},
        "replicas": [{"gpus": [0], "tensor_parallel": 1}, {"gpus": [1], "tensor_parallel": 1}],
        "router": {"policy": "round_robin", "port": 18390},
        "flags": FLAGS,
        "engine": "vllm",
    }
    (folder / "two.yaml").write_text(json.dumps(layout))
    try:
        run("up", "two.yaml", "-o", "two")
        plan = YAML(typ="safe").load((folder / "two" / "process.yaml").read_text())
        yield [replica["port"] for replica in plan["replicas"]]
    finally:
        run("down", "two")


@pytest.fixture(scope="module")
def calibrated(atoll, ports):
    """alone.yaml and beside.yaml, from one replica; what `calibrate` printed."""
    run, folder = atoll
    alone = run("calibrate", f"http://127.0.0.1:{ports[0]}", "-o", "alone.yaml", "--json")
    busy = [sys.executable, "-m", "atoll", "bench", f"http://127.0.0.1:{ports[1]}", "--users", "4", "--duration", "20m"]
    with subprocess.Popen(
        [*busy, "--prompt", "64", "--output", "64", "--json"], cwd=folder, stdout=subprocess.DEVNULL
    ) as neighbour:
        try:
            beside = run("calibrate", f"http://127.0.0.1:{ports[0]}", "-o", "beside.yaml", "--json")
            assert neighbour.poll() is None
        finally:
            neighbour.terminate()
    return json.loads(alone), json.loads(beside)


def test_the_fit_agrees_with_what_was_measured(calibrated):
    for one in calibrated:
        assert one["mean_error"] < 0.1
        assert len(one["points"]) >= 6


def test_one_engine_tells_how_two_will_do(atoll, calibrated, ports, capsys):
    run, folder = atoll
    run("down", "two")
    for profile, variants in (("alone", ALONE), ("beside", BESIDE)):
        study = {
            "name": profile,
            "box": {"gpu": "L4-24GB", "gpus": 2},
            "model": str(folder / "wide"),
            "profile": f"{profile}.yaml",
            "workload": {"users": 8, "duration": "40s", "warmup": "8s", "prompt": 64, "output": 64},
            "flags": FLAGS,
            "variants": [
                {"name": name, "tensor_parallel": 1, "replicas": replicas, "policy": policy}
                for name, (replicas, policy) in variants.items()
            ],
        }
        (folder / "study.yaml").write_text(json.dumps(study))
        said = run("study", "run", "study.yaml", "--engine", "vllm", "-o", profile)
        with capsys.disabled():
            print(f"\n{said}")
        for name in variants:
            measured, predicted = (
                json.loads((folder / profile / name / kept).read_text()) for kept in ("summary.json", "predicted.json")
            )
            assert measured["requests"]["failed"] == 0
            for figure in ("tpot_s", "e2e_s"):
                near = pytest.approx(measured[figure]["p50"], rel=ROOM)
                assert predicted[figure]["p50"] == near, (name, figure)
