"""atoll inspect, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAPTURES = Path(__file__).parents[1] / "data" / "topo"
PAIRS = CAPTURES / "035-blog-4gpu-nv4-pairs-comma-affinity.txt"


def atoll(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atoll", "inspect", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env={"COLUMNS": "80", "PATH": "/nonexistent", "PYTHONIOENCODING": "utf-8"},
        check=False,
    )


PICTURE = """\
4 x A100-PCIe-80GB, 80.0 GiB each

NUMA 0
┌───────┐      ┌───────┐
│ GPU 0 │ NV4  │ GPU 1 │
│80 GiB ╞══════╡80 GiB │
└───────┘      └───────┘
NUMA 1
┌───────┐      ┌───────┐
│ GPU 2 │ NV4  │ GPU 3 │
│80 GiB ╞══════╡80 GiB │
└───────┘      └───────┘

          0    1    2    3
GPU 0     x  NV4  SYS  SYS
GPU 1   NV4    x  SYS  SYS
GPU 2   SYS  SYS    x  NV4
GPU 3   SYS  SYS  NV4    x

NV4   NVLink, 4 links (100 GB/s each way): 0-1, 2-3
SYS   across CPU sockets: 0-2, 0-3, 1-2, 1-3
Islands {0,1} {2,3}

Best split into groups of
  2  {0,1}  {2,3}   NVLink within every group (NV4 or wider)
  4  {0-3}   slowest hop SYS (across CPU sockets)
"""


def test_the_picture_shows_pairs_paths_and_splits():
    done = atoll(str(PAIRS), "--gpu", "A100-PCIe-80GB")
    assert done.returncode == 0
    assert done.stdout == PICTURE


def test_the_json_has_the_fields_that_others_rely_on():
    done = atoll("-", "--json", "--gpu", "NVIDIA A100 80GB PCIe", stdin=PAIRS.read_text())
    document = json.loads(done.stdout)
    assert done.stderr == ""
    assert [set(gpu) >= {"index", "name", "memory_bytes", "numa_node"} for gpu in document["gpus"]] == [True] * 4
    assert document["gpus"][2]["name"] == "A100-PCIe-80GB"
    assert document["gpus"][2]["numa_node"] == 1
    assert document["links"][0] == {"a": 0, "b": 1, "kind": "NV", "nvlinks": 4}
    assert len(document["links"]) == 6
    assert document["islands"] == [[0, 1], [2, 3]]
    assert document["groups"] == {"1": [[0], [1], [2], [3]], "2": [[0, 1], [2, 3]], "4": [[0, 1, 2, 3]]}


def test_what_is_not_known_is_null_not_left_out():
    document = json.loads(atoll(str(CAPTURES / "081-a5500-4gpu-crossed-pairs.txt"), "--json").stdout)
    assert document["gpus"][0] == document["gpus"][0] | {"name": None, "memory_bytes": None, "numa_node": None}
    assert document["groups"]["2"] == [[0, 3], [1, 2]]


def test_a_box_of_the_catalogue_needs_no_capture():
    document = json.loads(atoll("--gpu", "H100-SXM-80GB", "--gpus", "8", "--json").stdout)
    assert len(document["gpus"]) == 8
    assert document["islands"] == [list(range(8))]
    assert "NVSwitch" in document["notes"][0]


REFUSED = {
    "no file": (("/no/such/topo.txt",), "", "There is no file"),
    "no matrix": (("-",), "hello", "standard input: there is no GPU topology matrix in this text"),
    "a cut matrix": (("-",), PAIRS.read_text()[:170], "cannot be read with certainty"),
    "an unknown card": ((str(PAIRS), "--gpu", "Voodoo 5"), "", "There is no GPU 'Voodoo 5'"),
    "a contradiction": ((str(PAIRS), "--gpus", "8"), "", "shows 4 GPUs"),
    "no driver": ((), "", "no NVIDIA driver on this machine"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_sentence_and_exit_code_two(case):
    arguments, stdin, words = REFUSED[case]
    done = atoll(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.txt"))[::6], ids=lambda path: path.stem[:3])
def test_every_picture_fits_in_eighty_columns(capture):
    done = atoll(str(capture))
    assert done.returncode in {0, 2}
    assert max(map(len, done.stdout.splitlines()), default=0) <= 80


@pytest.mark.parametrize("n", [1, 3, 8, 16])
@pytest.mark.parametrize("kind", ["H100", "V100-SXM-32GB", "L40S"])
def test_boxes_of_the_catalogue_fit_in_eighty_columns(kind, n):
    done = atoll("--gpu", kind, "--gpus", str(n))
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
