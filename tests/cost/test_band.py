"""Error bands come from validation rows, and are wider where there are none."""

from atoll.cost.band import NARROWEST, error_band, family_of, shipped_bands
from atoll.cost.overheads import shipped_overheads
from atoll.inventory.catalog import all_gpus, find_gpu
from atoll.model.read import read_model

DENSE, MIXTURE = read_model("Qwen/Qwen2.5-32B-Instruct"), read_model("openai/gpt-oss-120b")


def test_families_tell_measured_cards_from_scaled_ones():
    assert family_of(find_gpu("H200"), DENSE) == "hopper-measured dense"
    assert family_of(find_gpu("H100 NVL"), MIXTURE) == "hopper-scaled experts"
    assert family_of(find_gpu("RTX 4090"), DENSE) == "geforce dense"


def test_every_card_has_a_band_and_none_is_too_sure_of_itself():
    for kind in all_gpus():
        for card in (DENSE, MIXTURE):
            band = error_band(kind, card)
            assert min(band.ttft, band.tpot, band.throughput) >= NARROWEST


def test_a_family_without_rows_borrows_twice_the_band_of_its_relative():
    assert "hopper-scaled experts" not in shipped_bands()
    borrowed, known = error_band(find_gpu("H100 NVL"), MIXTURE), error_band(find_gpu("H100"), MIXTURE)
    assert (borrowed.tpot, borrowed.rows) == (2 * known.tpot, 0)


def test_mixed_links_widen_the_band():
    plain, mixed = (error_band(find_gpu("H100 NVL"), DENSE, mixed_links=mixed) for mixed in (False, True))
    assert mixed.tpot > plain.tpot


def test_overheads_name_the_rows_that_they_were_fitted_on():
    assert len(shipped_overheads().fitted_on) > 20
