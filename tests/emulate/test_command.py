"""`atoll emulate` as a user runs it: a process of its own, stopped by a signal."""

import json
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from atoll.cost.profile import MachineProfile
from atoll.emulate.replica import blueprint_of
from atoll.errors import InputError
from atoll.inventory.catalog import make_box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.read import read_model
from atoll.outside.ports import free_ports
from atoll.workflows.emulate import layout_to_emulate
from stand_ins.patience import PATIENCE_S

ONE = ["--gpu", "H100-SXM-80GB", "--model", "Qwen/Qwen2.5-7B-Instruct", "--max-model-len", "4096"]


def start(*words: str) -> subprocess.Popen:
    argv = [sys.executable, "-m", "atoll", "emulate", *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def emulator(tmp_path):
    port = free_ports(1)[0]
    (tmp_path / "key").write_text("k\n")
    process = start(*ONE, "--port", str(port), "--api-key-file", str(tmp_path / "key"))
    words = [process.stderr.readline(), process.stderr.readline()]
    yield process, f"http://127.0.0.1:{port}", words
    process.kill()
    process.communicate()


def test_it_says_what_it_is_and_stops_on_sigterm(emulator):
    process, url, words = emulator
    assert "Qwen/Qwen2.5-7B-Instruct on 1 x H100-SXM-80GB, TP 1, 1024 sequences, 8192 tokens a step" in words[0]
    assert words[1].strip() == f"listening on {url}"
    assert httpx.get(f"{url}/v1/models", timeout=PATIENCE_S, trust_env=False).status_code == 401
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0


def test_an_answer_under_way_may_finish_after_sigterm(emulator):
    process, url, _ = emulator
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 60, "stream": True}
    headers = {"Authorization": "Bearer k"}
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE_S, trust_env=False
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        text = "".join(lines)
    assert text.endswith("data: [DONE]")
    assert process.wait(PATIENCE_S) == 0


def test_a_taken_port_is_one_sentence(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        process = start(*ONE, "--port", str(holder.getsockname()[1]))
        _, words = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert words.startswith("atoll: Port ")
    assert len(words.strip().splitlines()) == 1


def test_what_to_emulate_must_be_said():
    process = start("--gpu", "L4")
    _, words = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, words.count("\n")) == (2, 1)
    assert "--model" in words


def test_flags_beside_a_layout_are_its_flags_and_another_model_is_refused(tmp_path):
    layout = Layout(
        name="one",
        model="Qwen/Qwen2.5-7B-Instruct",
        box=make_box("L40S", 1),
        replicas=(Replica(gpus=(0,), tensor_parallel=1),),
        flags=EngineFlags(max_num_seqs=7, enable_prefix_caching=False, extra=("--served-model-name", "a")),
    )
    file = tmp_path / "layout.yaml"
    file.write_text(layout.to_yaml())
    given = EngineFlags(max_model_len=4096, extra=("--enable-prompt-tokens-details",))
    found = layout_to_emulate(file=file, gpu=None, tensor_parallel=1, model=None, flags=given)
    assert found.flags == layout.flags.replace(
        max_model_len=4096, extra=("--served-model-name", "a", "--enable-prompt-tokens-details")
    )
    with pytest.raises(InputError, match="says which GPUs and which model"):
        layout_to_emulate(file=file, gpu="L4", tensor_parallel=1, model=None, flags=given)


def test_a_profile_beside_the_layout_changes_the_pace(tmp_path):
    """A machine found to be five times as slow is emulated as slow: never faster than the timer, busy as we may be."""
    layout = {
        "name": "one",
        "model": "Qwen/Qwen2.5-7B-Instruct",
        "box": {"gpus": [{"index": 0, "name": "H100-SXM-80GB"}]},
        "replicas": [{"gpus": [0], "tensor_parallel": 1}],
        "flags": {"max_model_len": 4096},
    }
    (tmp_path / "layout.yaml").write_text(json.dumps(layout))

    def seconds() -> float:
        port = free_ports(1)[0]
        process = start("--layout", str(tmp_path / "layout.yaml"), "--port", str(port))
        try:
            process.stderr.readline(), process.stderr.readline()
            began = time.monotonic()
            body = {"prompt": "hi", "max_tokens": 40}
            httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, trust_env=False, timeout=PATIENCE_S)
            return time.monotonic() - began
        finally:
            process.kill()
            process.communicate()

    as_planned = blueprint_of(Layout.model_validate(layout), 0, read_model(layout["model"])).timer
    plain = float(as_planned.decode_seconds(1, 2, 39).sum())
    assert seconds() > plain
    (tmp_path / "profile.yaml").write_text(MachineProfile(weights_time=5.0).to_yaml())
    assert seconds() > 2 * plain
