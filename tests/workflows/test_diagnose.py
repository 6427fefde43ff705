"""The workflow: bundles, layouts, advice, and how long it takes."""

import runpy
import sys
from pathlib import Path

import pytest

from atoll.doctor.facts import Load
from atoll.errors import InputError
from atoll.inventory.catalog import make_box
from atoll.layout.layout import Layout, Replica
from atoll.render.bundle import Bundle
from atoll.workflows.advise import advise
from atoll.workflows.diagnose import ask, diagnose, diagnose_bundle, diagnose_folder, diagnose_layout

ROOT = Path(__file__).parents[2]
TOPO = """        GPU0 GPU1 GPU2 GPU3
GPU0    X    NV12 SYS  SYS
GPU1    NV12 X    SYS  SYS
GPU2    SYS  SYS  X    NV12
GPU3    SYS  SYS  NV12 X
"""
COMPOSE = """services:
  vllm:
    image: vllm/vllm-openai:v0.32.0
    command: [Qwen/Qwen2.5-32B-Instruct, -tp, "{tp}", --max-num-seqs, "32", --max-model-len, "16384"]
    shm_size: 16gb
    gpus: all
"""


@pytest.fixture
def one_over_four(tmp_path) -> Path:
    """The whole box for one instance, although a pair would hold the model."""
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(tp=4))
    (tmp_path / "topo.txt").write_text(TOPO)
    return tmp_path


def test_a_path_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="There is no file or folder nowhere"):
        diagnose(ask(["nowhere"]))


def test_a_bundle_is_examined_while_it_is_still_text():
    bundle = Bundle(name="b", files={"compose.yaml": COMPOSE.format(tp=2).replace("    shm_size: 16gb\n", "")})
    assert "DC004" in [finding.rule for finding in diagnose_bundle(bundle)]


def test_a_folder_is_examined_before_it_is_started(one_over_four):
    assert "TP001" in [finding.rule for finding in diagnose_folder(one_over_four)]


def test_a_layout_by_itself_is_held_against_its_box():
    box = make_box("H100-NVL-94GB", 4)
    wide = Layout(
        name="wide",
        model="Qwen/Qwen2.5-32B-Instruct",
        box=box,
        replicas=(Replica(gpus=(0, 1, 2, 3), tensor_parallel=4),),
    )
    pairs = wide.replace(
        name="pairs",
        replicas=(Replica(gpus=(0, 1), tensor_parallel=2), Replica(gpus=(2, 3), tensor_parallel=2)),
    )
    assert [finding.rule for finding in diagnose_layout(wide)] == ["TP001", "TP006"]
    assert diagnose_layout(pairs) == ()


def test_a_better_layout_is_proposed_with_its_gain(one_over_four):
    question = ask(
        [str(one_over_four)], gpu="H100-NVL-94GB", load=Load(users=30, prompt_tokens=1000, output_tokens=100)
    )
    (advice,) = advise(diagnose(question).facts, gpu="H100-NVL-94GB")
    assert [replica.gpus for replica in advice.better.replicas] == [(0, 1), (2, 3)]
    assert advice.better_predicted.ttft_s.p95 < advice.yours_predicted.ttft_s.p95
    assert "1xTP4 on GPUs 0,1,2,3, predicted TTFT p95 " in advice.sentence
    assert "2xTP2 on GPUs 0,1 and 2,3, " in advice.sentence


def test_no_advice_without_knowing_the_cards(one_over_four):
    assert advise(diagnose(ask([str(one_over_four)])).facts) == ()


def calls_of(work):
    """How many calls of Python it takes: a measure of the work that no machine is too slow for."""
    calls = 0

    def count(frame, event, _):
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def test_twice_the_files_are_twice_the_work(tmp_path):
    """What fifty files of two hundred lines take in seconds, benchmarks/doctor/speed.py measures."""
    speed = runpy.run_path(str(ROOT / "benchmarks" / "doctor" / "speed.py"))
    for number in (1, 2, 4):
        speed["write_stacks"](tmp_path / str(number), number)
    assert len(diagnose(ask([str(tmp_path / "4")])).findings) > 1000
    one, two, four = (calls_of(lambda n=n: diagnose(ask([str(tmp_path / str(n))]))) for n in (1, 2, 4))
    assert four - two < 1.2 * 2 * (two - one)


@pytest.mark.parametrize("second", ['"1", "2"], capabilities: [gpu]', '"2", "3"], capabilities: [gpu], x-share: 2'])
def test_files_that_make_no_layout_get_no_advice_and_no_traceback(tmp_path, second):
    share = "--gpu-memory-utilization 2" if "x-share" in second else ""
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        '  a: {image: "vllm/vllm-openai:v0.32.0", command: "Qwen/Qwen2.5-32B-Instruct -tp 2 '
        + share
        + '", gpus: [{device_ids: ["0", "1"], capabilities: [gpu]}]}\n'
        '  b: {image: "vllm/vllm-openai:v0.32.0", command: "Qwen/Qwen2.5-32B-Instruct -tp 2", '
        f"gpus: [{{device_ids: [{second}}}]}}\n"
    )
    facts = diagnose(ask([str(tmp_path)], gpu="H100-NVL-94GB")).facts
    assert len(facts.engines) == 2
    assert advise(facts, gpu="H100-NVL-94GB") == ()
