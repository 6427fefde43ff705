"""How a box is shared out among models."""

from itertools import product
from pathlib import Path

from atoll.inventory.box import Box
from atoll.inventory.catalog import make_box
from atoll.inventory.parse import parse_box
from atoll.layout.layout import Layout, Replica
from atoll.plan.stack import Offer, Place, alike, share_box, share_out_memory

CAPTURE = Path(__file__).parents[2] / "examples" / "four-h100-nvl" / "topo.txt"
FOUR = make_box("H100-NVL-94GB", 4)


def offer_of(box: Box, place: Place, strain: float) -> Offer:
    replica = Replica(gpus=place.gpus, tensor_parallel=len(place.gpus))
    layout = Layout(name="x", model="m", box=box, replicas=(replica,))
    return Offer(layout=layout, strain=strain, seconds=strain)


def work(loads, box=FOUR):
    """Models that are the quicker the more cards they have."""

    def ask(model: int, place: Place) -> Offer | None:
        return offer_of(box, place, loads[model] / len(place.gpus) / place.time)

    return ask


def test_the_tightest_model_gets_what_the_others_can_spare():
    best = share_box(FOUR, [None, None], work([2.5, 0.9]))[0]
    assert [len(place.gpus) for place in best.places] == [3, 1]
    assert best.missed == ()


def test_as_few_targets_as_can_be_are_missed():
    best = share_box(FOUR, [None, None, None], work([9.0, 1.5, 0.5]))[0]
    assert [len(place.gpus) for place in best.places] == [1, 2, 1]
    assert best.missed == (0,)


def test_no_way_of_sharing_out_misses_fewer_targets_than_the_first():
    box, loads = make_box("H100-SXM-80GB", 8), [3.3, 1.1, 0.8, 2.0]
    best = share_box(box, [None] * 4, work(loads, box))[0]
    counts = [one for one in product(range(1, 6), repeat=4) if sum(one) <= 8]
    least = min(sum(load / count > 1 for load, count in zip(loads, one, strict=True)) for one in counts)
    assert len(best.missed) == least


def test_small_models_share_a_card_where_there_is_none_for_each():
    two = make_box("H100-SXM-80GB", 2)
    best = share_box(two, [None, 0.2, 0.1], work([0.9, 0.1, 0.1], two))[0]
    assert best.places[1].gpus == best.places[2].gpus != best.places[0].gpus
    assert (best.places[1].memory, best.places[2].memory) == (0.6, 0.3)
    assert best.places[0].memory is None
    assert abs(best.places[1].time + best.places[2].time - 1) < 1e-9


def test_models_whose_memory_is_more_than_a_card_do_not_share_it():
    assert share_box(make_box("H100-SXM-80GB", 1), [0.5, 0.5], work([1, 1])) == ()
    assert share_out_memory([0.3, 0.1]) == [0.65, 0.2]


def test_groups_are_told_apart_by_their_links():
    box = parse_box(CAPTURE.read_text(), origin="topo.txt")
    assert alike(box, (0, 1)) == alike(box, (2, 3)) != alike(box, (0, 2))
