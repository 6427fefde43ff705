"""How pairs of measured rows make the band of a ratio."""

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from atoll.cost.band import shipped_bands, shipped_pairs
from atoll.workflows.measured_rows import Measures
from atoll.workflows.validate import SAME, answer_s

SCRIPT = Path(__file__).parents[2] / "tools" / "pair_bands.py"
spec = importlib.util.spec_from_file_location("pair_bands", SCRIPT)
pair_bands = importlib.util.module_from_spec(spec)
sys.modules["pair_bands"] = pair_bands
spec.loader.exec_module(pair_bands)


def whole_answer(row, measures):
    return answer_s(row.case, measures)


@dataclass
class Row:
    """Stands for a measured row with its prediction."""

    gpus: int
    users: int
    measured: float = 1.0
    predicted: Measures = field(default_factory=lambda: Measures(ttft_s=1.0, tpot_s=0.0))

    @property
    def case(self):
        replica = SimpleNamespace(gpus=tuple(range(self.gpus)))
        measured = Measures(ttft_s=self.measured, tpot_s=0.0)
        layout = SimpleNamespace(replicas=(replica,))
        return SimpleNamespace(users=self.users, layout=layout, measured=measured, output_tokens=1)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (Row(2, 16), Row(4, 32), True),  # 2 x TP 2 and 1 x TP 4 under 32 users
        (Row(2, 32), Row(4, 32), True),  # 1 x TP 2 and 1 x TP 4 under 32
        (Row(2, 8), Row(2, 16), True),  # 2 x TP 2 and 1 x TP 2 under 16
        (Row(8, 16), Row(4, 32), False),  # 2 x TP 8 would need 16 GPUs
        (Row(2, 8), Row(2, 8), False),  # the same layout twice
    ],
)
def test_which_rows_are_layouts_of_one_box_under_one_load(one, other, alike):
    assert pair_bands.share_a_box(one, other) is alike
    assert pair_bands.share_a_box(other, one) is alike


def test_the_error_of_a_ratio_is_the_same_either_way_about():
    """Both are predicted alike; measured, one takes 1.25 times as long."""
    slow, fast = Row(2, 16, measured=1.25), Row(4, 32)
    for pair in ((slow, fast), (fast, slow)):
        assert pair_bands.error_of_ratio(*pair, whole_answer) == pytest.approx(0.25)


def test_an_error_that_both_share_cancels_out():
    one, other = Row(2, 16, measured=2.0), Row(4, 32, measured=2.0)
    assert pair_bands.error_of_ratio(one, other, whole_answer) == 0


def test_shipped_bands_are_of_known_families_and_none_is_too_sure_of_itself():
    assert set(shipped_pairs()) <= set(shipped_bands())
    for widths in shipped_pairs().values():
        assert min(widths.by_measure.values()) >= SAME
        assert widths.rows >= pair_bands.FEW
