"""An engine is measured over HTTP, the links of a box by the programs that are there."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from atoll.cost.calibrate import DecodePoint, PromptPoint
from atoll.cost.profile import MachineProfile, MeasuredReduce
from atoll.errors import BadDocument, CommandFailed, InputError, MissingProgram
from atoll.inventory.catalog import make_box
from atoll.layout.layout import Layout
from atoll.outside.shell import Finished
from atoll.traffic.record import Record, RecordTable
from atoll.traffic.workload import Workload
from atoll.workflows import calibrate as work
from atoll.workflows import links
from atoll.workflows.profiles import read_profile, write_profile
from atoll.workflows.simulate import simulate
from stand_ins.patience import PATIENCE_S, wait_until

CAPTURE = Path(__file__).parents[1] / "data/nccl_tests/rtx4090-4gpu.txt"


def answer(number, first, gap, tokens, prompt=100):
    times = [first + gap * i for i in range(tokens)]
    return Record(
        number=number,
        user=number,
        sent_s=0.0,
        token_s=times,
        done_s=times[-1],
        prompt_tokens=prompt,
        output_tokens=tokens,
    )


def test_several_users_give_one_decode_point_of_the_time_when_all_were_decoding():
    table = RecordTable.from_records([answer(n, 0.1 * n, 0.02, 100) for n in range(4)])
    (point,) = work.points_of(table, work.Probe(users=4, prompt=100, output=100))
    assert isinstance(point, DecodePoint)
    assert (point.sequences, point.seconds) == (4, pytest.approx(0.02))
    assert point.context == pytest.approx(4 * 150, rel=0.05)


def test_prompts_give_the_least_disturbed_first_token():
    table = RecordTable.from_records(
        [answer(n, wait, 0.01, 2, prompt=500) for n, wait in enumerate((0.03, 0.05, 0.09))]
    )
    (point,) = work.points_of(table, work.Probe(users=1, prompt=500, output=2, repeats=3))
    assert point == PromptPoint(tokens=500, seconds=pytest.approx(0.03))


def test_tokens_that_come_late_and_then_at_once_do_not_change_the_pace():
    rng = np.random.default_rng(1)
    times = np.sort(np.arange(200) * 0.01 + np.where(rng.random(200) < 0.1, 0.03, 0.0))
    assert work._typical_gap(times) == pytest.approx(0.01, rel=0.03)


def test_probes_stay_within_the_engines_context():
    asked = list(work.probes(quick=False, longest=2048))
    assert max(probe.prompt + probe.output for probe in asked) < 2048
    assert any(probe.users == 64 for probe in asked)


def test_a_gpu_without_a_model_is_refused():
    with pytest.raises(InputError, match="--model"):
        work.engine_of(layout=None, replica=0, gpu="H100", tensor_parallel=1, model=None, engine_version="0.32.0")


def test_a_bad_profile_names_its_field(tmp_path):
    (tmp_path / "machine.yaml").write_text("weights_time: fast\n")
    with pytest.raises(BadDocument, match="weights_time"):
        read_profile(tmp_path / "machine.yaml")


@pytest.fixture
def emulator():
    """A replica of Llama-3.1-8B on an H100, as the catalogue has it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "atoll", "emulate", "--gpu", "H100", "--port", str(port)]
    process = subprocess.Popen(
        [*argv, "--model", "meta-llama/Llama-3.1-8B-Instruct"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: answers(url))
    yield url
    process.terminate()
    process.wait(PATIENCE_S)


def answers(url):
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def engine():
    return work.engine_of(
        layout=None,
        replica=0,
        gpu="H100",
        tensor_parallel=1,
        model="meta-llama/Llama-3.1-8B-Instruct",
        engine_version="0.32.0",
    )


def test_the_constants_are_recovered_from_what_the_probes_measure(engine):
    """In virtual time, by the emulator's own timer: a busy machine has no part in it."""
    layout = Layout.from_plain(
        {
            "name": "one",
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "box": {"gpus": [{"index": 0, "name": "H100-SXM-80GB"}]},
            "replicas": [{"gpus": [0], "tensor_parallel": 1}],
            "flags": {"enable_prefix_caching": False},
        },
        origin="layout",
    )
    points = []
    for probe in work.probes(quick=True, longest=8192):
        load = Workload(
            users=probe.users, requests=probe.users * probe.repeats, prompt=probe.prompt, output=probe.output
        )
        points += work.points_of(simulate(layout, load), probe)
    fit = work._fit(points, engine, MachineProfile())
    assert fit.profile.weights_time == pytest.approx(1, rel=0.01)
    assert fit.profile.compute_time == pytest.approx(1, rel=0.15)


def test_an_engine_is_measured_over_http_and_its_profile_is_kept(emulator, engine, tmp_path):
    fit = work.calibrate(emulator, engine=engine, quick=True)
    assert fit.profile.weights_time > 0
    assert fit.profile.compute_time > 0
    write_profile(fit.profile, tmp_path / "machine.yaml")
    assert read_profile(tmp_path / "machine.yaml") == fit.profile


class Programs:
    """A shell that has these programs, and answers every run the same."""

    def __init__(self, *installed, answer=None, code=0):
        self.installed, self.answer, self.code, self.ran = installed, answer or CAPTURE.read_text(), code, []

    def which(self, program):
        return program if program in self.installed else None

    def run(self, argv, *, env=None, cwd=None, timeout_s=60.0, stdin=None):
        self.ran.append((tuple(argv), dict(env or {})))
        return Finished(argv=tuple(argv), exit_code=self.code, stdout=self.answer, stderr="no CUDA")


def test_groups_are_the_best_pairs_the_halves_and_the_whole():
    assert links.groups_to_measure(make_box("H100 NVL", 4)) == ((0, 1), (2, 3), (0, 1, 2, 3))
    assert links.groups_to_measure(make_box("H100 NVL", 1)) == ()


def test_nccl_tests_is_pinned_to_the_group_in_pci_order():
    shell = Programs("all_reduce_perf")
    curve = links.measure_group((2, 3), shell)
    ((argv, env),) = shell.ran
    assert env == {"CUDA_VISIBLE_DEVICES": "2,3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert argv[:7] == ("all_reduce_perf", "-b", "4K", "-e", "64M", "-f", "2")
    assert curve.source == "nccl-tests"


def test_torch_stands_in_for_nccl_tests():
    shell = Programs("torchrun", answer="# size count type redop root time\n4096 2048 bfloat16 sum -1 11.5 0 0\n")
    assert links.measure_group((0, 1), shell).points == ((4096.0, pytest.approx(11.5e-6)),)
    assert shell.ran[0][0][:3] == ("torchrun", "--standalone", "--nproc-per-node=2")


def test_without_either_the_user_is_told_what_to_install():
    with pytest.raises(MissingProgram, match="nccl-tests"):
        links.measure_group((0, 1), Programs())
    with pytest.raises(CommandFailed, match="no CUDA"):
        links.measure_group((0, 1), Programs("torchrun", code=1))


def test_new_curves_replace_old_ones_of_the_same_group(tmp_path):
    capture = tmp_path / "box.yaml"
    capture.write_text(make_box("H100 NVL", 2).to_yaml())
    old = (
        MeasuredReduce(gpus=(0, 1), points=((1.0, 1.0),)),
        MeasuredReduce(gpus=(4, 5), points=((1.0, 1.0),)),
    )
    found = links.measure_links(
        capture=str(capture), start=MachineProfile(reduces=old), shell=Programs("all_reduce_perf")
    )
    assert [(reduce.gpus, reduce.source) for reduce in found.reduces] == [((4, 5), ""), ((0, 1), "nccl-tests")]
