"""Calibrate a real vLLM, then predict a load that it has not seen. Asked for with --vllm PATH; wants a quiet machine."""

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from atoll.analyse.summary import summarise
from atoll.inventory.catalog import make_box
from atoll.load.run import run_load
from atoll.load.target import Asking, Endpoint
from atoll.plan.layout import EngineFlags, Layout, Replica
from atoll.traffic.workload import Workload
from atoll.workflows.calibrate import calibrate
from atoll.workflows.simulate import simulate

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
HERE = Path(__file__).parent
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@pytest.fixture(scope="module")
def engine(request, tmp_path_factory):
    """The tiny model on vLLM's CPU build: (URL, folder of the model)."""
    vllm = Path(request.config.getoption("vllm")).resolve()
    model = tmp_path_factory.mktemp("calibrate") / "tiny"
    subprocess.run([vllm.with_name("python"), HERE / "tiny_model.py", model], check=True, timeout=120)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [vllm, "serve", model, "--port", str(port), "--max-num-seqs", "64", "--max-model-len", "2048"]
    process = subprocess.Popen(
        argv,
        env={**os.environ, **CPU, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                break
        time.sleep(1)
    yield url, model
    os.killpg(process.pid, 15)
    process.wait(60)


def test_a_calibrated_model_predicts_another_load(engine, capsys):
    import asyncio

    url, model = engine
    fit = calibrate(url, engine=None, longest=2048)
    assert fit.mean_error < 0.15
    load = Workload.model_validate({"users": 8, "requests": 200, "prompt": 100, "output": 100})
    measured = summarise(asyncio.run(run_load(url, load, asking=Asking(endpoint=Endpoint.COMPLETIONS))))
    layout = Layout(
        name="tiny",
        model=str(model),
        box=make_box("A2-16GB", 1),  # any card will do: the line says how fast it is
        replicas=(Replica(gpus=(0,), tensor_parallel=1),),
        flags=EngineFlags(max_num_seqs=64, max_num_batched_tokens=2048, max_model_len=2048),
    )
    predicted = summarise(simulate(layout, load, profile=fit.profile))
    with capsys.disabled():
        print(f"\nfit error {fit.mean_error:.1%}")
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            print(f"{name}: measured {getattr(measured, name).mean:.4f}, predicted {getattr(predicted, name).mean:.4f}")
    assert predicted.tpot_s.mean == pytest.approx(measured.tpot_s.mean, rel=0.4)
