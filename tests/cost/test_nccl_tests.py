"""What all_reduce_perf prints becomes a curve."""

from pathlib import Path

import pytest

from atoll.cost.nccl_tests import parse_all_reduce
from atoll.errors import RunFailed
from atoll.workflows.links import TORCH_SCRIPT

CAPTURES = Path(__file__).parent.parent / "data/nccl_tests"


def points(name):
    return parse_all_reduce((CAPTURES / name).read_text()).points


def test_newer_columns_with_root_and_wrong():
    assert points("rtx4090-4gpu.txt") == (
        (268435456.0, pytest.approx(15654e-6)),
        (536870912.0, pytest.approx(31194e-6)),
        (1073741824.0, pytest.approx(62077e-6)),
    )


def test_older_columns_without_them():
    found = dict(points("rtx2080ti-2gpu.txt"))
    assert found[32768.0] == pytest.approx(13.39e-6)
    assert found[134217728.0] == pytest.approx(3298.6e-6)
    assert len(found) == 5


def test_rows_torn_apart_by_other_output_are_passed_over():
    assert points("h100-mixed-log.txt") == ((16384.0, pytest.approx(26.91e-6)),)


def test_without_rows_the_last_words_are_shown():
    with pytest.raises(RunFailed, match="internal error"):
        points("no-rows.txt")


def test_what_our_torch_script_prints_is_read_too():
    header = next(line for line in TORCH_SCRIPT.splitlines() if "print(" in line).split('"')[1]
    text = f"{header}\n4096 2048 bfloat16 sum -1 11.25 0 0\n8192 4096 bfloat16 sum -1 12.50 0 0\n"
    assert parse_all_reduce(text).points == ((4096.0, pytest.approx(11.25e-6)), (8192.0, pytest.approx(12.5e-6)))
