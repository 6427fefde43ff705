"""The two commands from the outside: one JSON document, exit codes, sentences."""

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest

from atoll.layout.layout import Layout
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload

QWEN = "Qwen/Qwen2.5-32B-Instruct"
BOX = ("--gpu", "H100-NVL-94GB", "--gpus", "4")


def atoll(*words):
    wide = {**os.environ, "COLUMNS": "120"}
    return subprocess.run([sys.executable, "-m", "atoll", *words], capture_output=True, text=True, env=wide)


def test_plan_prints_one_document_and_writes_the_layout(tmp_path):
    layout = tmp_path / "layout.yaml"
    done = atoll("plan", *BOX, "--model", QWEN, "--users", "30", "--formula", "-o", str(layout), "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["choices"][0]["name"] in layout.read_text()
    assert Layout.parse(layout.read_text(), origin="layout.yaml").workload == Workload(users=30)
    assert "atoll render" in done.stderr


def test_simulate_takes_the_load_and_the_targets_that_plan_wrote(tmp_path):
    layout = tmp_path / "layout.yaml"
    load = ("--users", "8", "--prompt", "500", "--output", "60", "--duration", "1m", "--slo-ttft", "1s")
    assert atoll("plan", *BOX, "--model", QWEN, *load, "--formula", "-o", str(layout)).returncode == 0
    written = Layout.parse(layout.read_text(), origin="layout.yaml")
    assert written.workload == Workload(users=8, prompt=500, output=60, duration="1m")
    assert written.slo == SLO(ttft_s=1)
    plain = json.loads(atoll("simulate", str(layout), "--json").stdout)
    assert plain == json.loads(atoll("simulate", str(layout), *load, "--json").stdout)
    assert plain["goodput"]["slo_ttft_s"] == 1
    fewer = json.loads(atoll("simulate", str(layout), "--users", "1", "--json").stdout)
    assert fewer["requests"]["sent"] < plain["requests"]["sent"]


def test_plan_for_a_person():
    done = atoll("plan", *BOX, "--model", QWEN, "--users", "30", "--slo-ttft", "1s", "--formula")
    assert done.returncode == 0
    for words in (
        "TTFT p50",
        "in target: back-to-back users within the targets, by formula.",
        "Why ",
        "Rejected",
        "Next: save it with -o",
    ):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", QWEN, "--tp", "3"), "its 40 attention heads do not divide by 3; legal sizes are 1, 2, 4 and 8."),
        (("--model", "deepseek-ai/DeepSeek-R1"), "8 x H100-NVL-94GB with tensor parallel 8 would hold it."),
        (("--model", QWEN, "--policy", "best"), "--policy best is not one of round_robin"),
        (("--model", QWEN, "--users", "3", "--rate", "1"), "Give --users (back to back) or --rate"),
        (("--model", QWEN, "--rate", "0"), "--rate 0 sends nothing"),
        (("--model", QWEN, "--users", "100000"), "--users 100000 is more than a plan simulates, 10,000"),
        (("--model", "no-such-model"), "'no-such-model' is neither a model that atoll knows"),
        ((), "Say which model: --model NAME"),
        (("--model", QWEN, "--slo-ttft", "soon"), "'soon' is not a duration"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, sentence):
    done = atoll("plan", *BOX, "--formula", *words)
    assert done.returncode == 2
    assert sentence in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_split_that_needs_whole_experts_is_rendered_and_accepted(tmp_path):
    """Plan, then the doctor over the rendered files: TP 8 of a model whose experts' blocks do not divide by 8."""
    layout, files = tmp_path / "layout.yaml", tmp_path / "files"
    box = ("--gpu", "H100-SXM-80GB", "--gpus", "8", "--tp", "8")
    planned = atoll("plan", *box, "--model", "Qwen/Qwen3-235B-A22B-FP8", "--formula", "-o", str(layout))
    assert planned.returncode == 0
    assert "--gpu-memory-utilization 0.92 --enable-expert-parallel" in planned.stdout
    assert atoll("render", str(layout), "--to", "compose", "-o", str(files)).returncode == 0
    assert "- --enable-expert-parallel" in (files / "compose.yaml").read_text()
    assert atoll("doctor", str(layout), str(files)).returncode == 0


def read_terminal(terminal):
    """What a program writes to its terminal until it ends."""
    parts = []
    with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
        while part := os.read(terminal, 65536):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


def test_on_a_terminal_the_table_fills_while_it_works_and_a_pipe_gets_the_plan_alone(tmp_path):
    words = ("plan", *BOX, "--model", QWEN, "--users", "8", "--prompt", "200", "--output", "50")
    ours, theirs = pty.openpty()
    with (tmp_path / "stdout").open("w") as stdout:
        started = subprocess.Popen(
            [sys.executable, "-m", "atoll", *words], stdout=stdout, stderr=theirs, env={**os.environ, "COLUMNS": "120"}
        )
        os.close(theirs)
        shown = read_terminal(ours)
    assert started.wait() == 0
    assert "by formula; simulating" in shown
    assert "TTFT p50" in shown
    assert (tmp_path / "stdout").read_text() == atoll(*words).stdout


def test_what_is_impossible_is_still_a_document():
    done = atoll("plan", *BOX, "--model", QWEN, "--tp", "3", "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["choices"] == []
    assert document["rejected"][0]["name"] == "TP3"


def test_model_prints_one_document():
    done = atoll("model", QWEN, "--gpu", "H100-NVL-94GB", "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["legal_tensor_parallel"] == [1, 2, 4, 8]
    assert [fit["tensor_parallel"] for fit in document["fits"]] == [1, 2, 4, 8]


def test_model_for_a_person():
    done = atoll("model", "gpt-oss-20b")
    assert done.returncode == 0
    for words in ("20.9 B parameters", "mxfp4", "keep the last 128 tokens only", "Users of 4,096 tokens"):
        assert words in done.stdout


def test_an_unknown_model_is_one_sentence():
    done = atoll("model", "Qwen/Qwen2.5-33B-Instruct")
    assert done.returncode == 2
    assert "Near names" in done.stderr


def test_waiting_users_and_a_cut_context_are_said(tmp_path):
    """One card has room for ten thousand tokens for sure: four users of 2,500, the others of its half would wait."""
    box = tmp_path / "box.yaml"
    box.write_text(
        "gpus: [{index: 0, name: RTX-PRO-6000-96GB}, {index: 1, name: RTX-4090-24GB}]\nlinks: [{a: 0, b: 1, kind: PHB}]\n"
    )
    words = ("--model", "Qwen/Qwen3-32B-AWQ", "--users", "24", "--prompt", "2000", "--output", "500")
    done = atoll("plan", "--box", str(box), *words)
    said = " ".join(done.stdout.split())
    assert "1 1xTP1.RTX-PRO-6000-96GB 0" in said
    assert "It is put before 2xTP1, though its answers take" in said
    assert "since users wait for a seat" in said
    assert "full" in said
    assert "10,240" in said
    assert "context: tokens of a prompt and its answer; the KV cache has no room for all of the model's 40,960." in said
    document = json.loads(atoll("plan", "--box", str(box), *words, "--json").stdout)
    assert [choice["context"] for choice in document["choices"]] == [40960, 10240, 10240]


def test_losers_have_a_line_each_and_the_long_form_is_asked_for():
    asked = ("plan", *BOX, "--model", QWEN, "--users", "30", "--formula")
    done = atoll(*asked, "--why", "4xTP1")
    short = done.stdout.partition("Behind 2xTP2:")[2].partition("Why 4xTP1:")[0].splitlines()
    assert [line.split(":")[0].strip() for line in short[1:]] == ["1xTP4", "1xTP2", "4xTP1"]
    assert all("It takes" in line and "Each GPU holds" not in line for line in short[1:])
    assert "Why 4xTP1: Each GPU holds 65.5 GB" in done.stdout
    unknown = atoll(*asked, "--why", "9xTP9")
    assert unknown.returncode == 2
    assert "--why 9xTP9: no such layout is in the table; there are 2xTP2" in unknown.stderr


def test_the_language_of_a_plan_is_that_of_the_terminal_or_what_is_asked_for():
    asked = (sys.executable, "-m", "atoll", "plan", *BOX, "--model", QWEN, "--users", "30", "--formula")
    korean = {**os.environ, "COLUMNS": "120", "LC_ALL": "ko_KR.UTF-8", "PYTHONUTF8": "1"}
    said = subprocess.run(asked, capture_output=True, text=True, encoding="utf-8", env=korean).stdout
    assert "2xTP2의 근거: GPU마다 가중치" in said
    words = ("Replicas are", "Behind ", "Why ", "Flags:", "Rejected", "Next:", " it ", " the ", "users")
    assert [word for word in words if word in said] == []
    assert "Why 2xTP2:" in subprocess.run([*asked, "--lang", "en"], capture_output=True, text=True, env=korean).stdout
    wrong = atoll("plan", *BOX, "--model", QWEN, "--lang", "de")
    assert (wrong.returncode, wrong.stderr) == (2, "atoll: --lang de is not one of en, ko.\n")


def test_a_chart_of_another_kind_is_refused_before_the_work():
    refused = atoll("plan", *BOX, "--model", QWEN, "--chart", "a.pdf")
    assert (refused.returncode, refused.stdout) == (2, "")
