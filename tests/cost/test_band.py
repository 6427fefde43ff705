"""Bands come from validation rows, are wider where they are borrowed, and unknown where nothing like it was measured."""

import pytest

from atoll.analyse.band import tell_bands
from atoll.analyse.summary import Distribution, RequestCounts, Summary
from atoll.cost.band import (
    BORROWED,
    NARROWEST,
    band_of,
    caution,
    family_of,
    relative_band,
    relative_ratio,
    shipped_bands,
    shipped_pairs,
)
from atoll.cost.overheads import shipped_overheads
from atoll.inventory.catalog import find_gpu, make_box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.read import read_model

DENSE, MIXTURE = read_model("Qwen/Qwen2.5-32B-Instruct"), read_model("openai/gpt-oss-120b")


def layout(kind="H100-NVL-94GB", groups=((0, 1), (2, 3)), name="a", **fields):
    box = make_box(kind, 4)
    replicas = tuple(Replica(gpus=group, tensor_parallel=len(group)) for group in groups)
    return Layout(**{"name": name, "model": DENSE.name, "box": box, "replicas": replicas} | fields)


def summary(**means):
    counts = RequestCounts(sent=1, ok=1, failed=0, cancelled=0)
    found = {name: Distribution(mean=means.get(name)) for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s")}
    rates = {"output_tokens_per_s": means.get("rate", 0.0), "total_tokens_per_s": 0.0, "requests_per_s": 0.0}
    return Summary(requests=counts, duration_s=1.0, **found, **rates)


def test_families_tell_generations_and_measured_cards_from_scaled_ones():
    assert family_of(find_gpu("H200"), DENSE) == "hopper-measured dense"
    assert family_of(find_gpu("H100 NVL"), MIXTURE) == "hopper-scaled experts"
    assert family_of(find_gpu("RTX 4090"), DENSE) == "ada-geforce dense"
    assert family_of(find_gpu("RTX 3090"), DENSE) == "ampere-geforce dense"


def test_no_figure_is_too_sure_of_itself():
    known = [width for widths in shipped_bands().values() for width in widths.by_measure.values() if width is not None]
    assert min(known) >= NARROWEST


def test_a_band_lies_around_each_mean_as_far_down_as_up():
    """In factors: 0.25 holds what was measured to be between 1 / 1.25 and 1.25 of the prediction."""
    widths = shipped_bands()["hopper-scaled dense"]
    found = band_of(summary(tpot_s=0.015, rate=2000.0), layout(), DENSE)
    assert found.tpot_s == pytest.approx((0.015 / (1 + widths.tpot), 0.015 * (1 + widths.tpot)))
    assert found.output_tokens_per_s[0] == pytest.approx(2000 / (1 + widths.throughput))
    assert (found.ttft_s, found.coverage, found.family) == (None, 0.8, "hopper-scaled dense")


def test_a_family_that_one_source_alone_measured_says_so():
    """H100 PCIe was measured by one author; H100 SXM by five."""
    assert relative_band(layout(), DENSE).one_source
    assert "one source alone" in tell_bands({"a": relative_band(layout(), DENSE)})[0]
    assert not relative_band(layout("H100-SXM-80GB"), DENSE).one_source
    assert shipped_bands()["hopper-measured dense"].sources >= 3


def test_loads_that_come_all_at_once_have_a_band_of_their_own():
    steady, burst = (relative_band(layout("H100-SXM-80GB"), DENSE, at_once=at_once) for at_once in (False, True))
    assert (steady.family, burst.family) == ("hopper-measured dense", "hopper-measured dense, all at once")
    assert burst.output_tokens_per_s[1] > steady.output_tokens_per_s[1]
    assert relative_band(layout(), DENSE, at_once=True) == relative_band(layout(), DENSE)


def test_the_time_per_token_of_dense_models_on_hopper_is_known_to_8_percent():
    assert shipped_bands()["hopper-measured dense"].tpot <= 0.08


def test_a_family_without_rows_borrows_twice_the_width_of_its_own_generation():
    assert "hopper-scaled experts" not in shipped_bands()
    band = relative_band(layout(), MIXTURE)
    assert band.tpot_s[0] == pytest.approx(1 / (1 + BORROWED * shipped_bands()["hopper-measured experts"].tpot))
    assert band.borrowed


@pytest.mark.parametrize("kind", ["L40S-48GB", "B200-180GB", "RTX 5090", "RTX 3090", "V100-SXM2-32GB"])
def test_across_generations_nothing_is_borrowed(kind):
    """H100 rows say nothing of an L40S, nor those of an RTX 4090 of an RTX 5090."""
    assert relative_band(layout(find_gpu(kind).name), DENSE) is None
    assert band_of(summary(tpot_s=0.01), layout(find_gpu(kind).name), DENSE) is None
    assert relative_ratio(layout(find_gpu(kind).name), layout(find_gpu(kind).name), DENSE) is None


def test_one_replica_of_which_nothing_is_known_leaves_the_layout_without_a_band():
    box = make_box("H100-NVL-94GB", 4)
    mixed = box.replace(gpus=(*box.gpus[:2], *(gpu.replace(name="L40S-48GB") for gpu in box.gpus[2:])))
    assert relative_band(layout(box=mixed), DENSE) is None
    assert relative_band(layout(box=mixed, groups=((0, 1),)), DENSE) is not None


def test_cards_without_a_name_or_a_model_that_is_gone_have_no_band():
    box = make_box("H100-NVL-94GB", 4)
    nameless = box.replace(gpus=tuple(gpu.replace(name=None) for gpu in box.gpus))
    assert relative_band(layout(box=nameless), DENSE) is None
    assert relative_band(layout(), None) is None


def test_mixed_links_widen_the_band():
    plain, mixed = relative_band(layout(), DENSE), relative_band(layout(groups=((0, 1, 2, 3),)), DENSE)
    assert mixed.tpot_s[1] > plain.tpot_s[1]
    assert mixed.tpot_s[0] < plain.tpot_s[0]


def test_a_measure_with_too_few_rows_has_no_band():
    """E2E of an A100 PCIe: its rows' source makes TTFT doubtful."""
    b200 = relative_band(layout("B200-180GB", groups=((0,),)), MIXTURE)
    assert (b200.family, b200.borrowed) == ("blackwell-measured experts", False)
    a100 = relative_band(layout("A100-PCIE-80GB", groups=((0,),)), DENSE)
    assert a100.e2e_s is None
    assert a100.tpot_s is not None


def test_a_ratio_of_like_layouts_is_surer_than_their_figures():
    one, other = layout("H100-SXM-80GB", name="a"), layout("H100-SXM-80GB", groups=((0, 1, 2, 3),), name="b")
    ratio = relative_ratio(one, other, DENSE)
    width = shipped_pairs()["hopper-measured dense"].e2e
    assert ratio.e2e_s == pytest.approx((1 / (1 + width), 1 + width))
    assert ratio.e2e_s[1] < relative_band(one, DENSE).e2e_s[1]


@pytest.mark.parametrize(
    "changes", [{"engine_version": "0.7.3"}, {"flags": EngineFlags(kv_cache_dtype="fp8")}], ids=["version", "format"]
)
def test_between_versions_and_formats_nothing_is_sure_to_cancel(changes):
    """No row has two versions of one engine under one load, so both figures may be off on their own."""
    one, other = layout("H100-SXM-80GB"), layout("H100-SXM-80GB", **changes)
    own = relative_band(one, DENSE).e2e_s
    assert relative_ratio(one, other, DENSE).e2e_s == pytest.approx((own[0] / own[1], own[1] / own[0]))
    assert relative_ratio(one, one, DENSE, same_load=False) == relative_ratio(one, other, DENSE)


def test_the_caution_is_no_band_and_wider_than_any_that_is_known():
    assert caution().family is None
    assert all(caution().e2e_s[1] > 1 + widths.e2e for widths in shipped_pairs().values())


def test_overheads_name_the_rows_that_they_were_fitted_on():
    assert len(shipped_overheads().fitted_on) > 20
