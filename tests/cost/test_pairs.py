"""How pairs of measured rows make the band of a ratio."""

import importlib.util
import sys
from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from types import SimpleNamespace

import pytest

from atoll.cost.band import shipped_bands, shipped_pairs
from atoll.workflows.measured_rows import Measures
from atoll.workflows.validate import SAME, answer_s


def load(name):
    """A script of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "tools" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


source_bands, pair_bands = load("source_bands"), load("pair_bands")


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
        assert min(width for width in widths.by_measure.values() if width is not None) >= SAME
        assert widths.rows >= pair_bands.FEW


def errors(*groups):
    """(source, set-up, sizes) each."""
    return [
        source_bands.Error(source=source, set_up=(source, name), size=size)
        for source, name, sizes in groups
        for size in sizes
    ]


def test_a_set_up_counts_once_however_many_rows_it_has():
    """Of four set-ups all four are held, for 0.8 of a fifth's: the hundred near rows of one do not outvote the far one."""
    near = [("a", name, [0.01]) for name in "xy"]
    far = ("b", "z", [0.2])
    assert source_bands.width(errors(*near, ("a", "w", [0.01] * 100), far)) == pytest.approx(exp(0.2) - 1)
    many = [("a", name, [0.01]) for name in range(30)]
    assert source_bands.width(errors(*many, far)) == pytest.approx(exp(0.01) - 1)


def test_the_fewer_sources_the_wider_is_the_band_and_few_rows_make_none():
    groups = [(source, source, [0.1, 0.1, 0.1]) for source in "abc"]
    for sources, stretch in ((1, 1.5), (2, 1.25), (3, 1.0)):
        found = source_bands.stated(errors(*groups[:sources]))
        assert found == pytest.approx((exp(0.1) - 1) * stretch, abs=1e-3)
    assert source_bands.stated(errors(("a", "x", [0.1, 0.1]))) is None


def test_a_source_is_held_against_what_would_be_stated_without_it():
    """0.1 from two others becomes 0.13."""
    held = source_bands.left_out(errors(("a", "x", [0.1] * 3), ("b", "y", [0.1] * 3), ("c", "z", [0.5, 0.05, 0.12])))
    by_source = {source: [inside for name, _, inside in held if name == source] for source in "abc"}
    assert by_source == {"a": [True] * 3, "b": [True] * 3, "c": [False, True, True]}
    assert source_bands.share(held) == pytest.approx((1 + 1 + 2 / 3) / 3)
