"""Which layouts are looked at, on which GPUs."""

import pytest

from atoll.engines import find_engine
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.catalog import find_gpu, make_box
from atoll.model.catalog import find_card
from atoll.plan.enumerate import Split, Wanted, list_candidates, list_splits, pipeline_splits

QWEN = find_card("Qwen2.5-32B-Instruct")


def splits(*sizes):
    return tuple(Split(tensor_parallel=size) for size in sizes)


def box_with_bridges(count, *bridges):
    """So many cards on one host bridge, some pairs of them with an NVLink bridge."""
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    return Box(
        gpus=tuple(Gpu(index=index, name="A6000-48GB") for index in range(count)),
        links=tuple(
            Link(a=a, b=b, kind=LinkKind.NV, nvlinks=4) if (a, b) in bridges else Link(a=a, b=b, kind=LinkKind.PHB)
            for a, b in pairs
        ),
    )


def shapes(box, *sizes):
    return {one.name: [replica.gpus for replica in one.replicas] for one in list_candidates(box, splits(*sizes))}


def test_two_bridged_pairs_give_every_number_of_replicas_on_their_pairs():
    assert shapes(make_box("H100-NVL-94GB", 4), 1, 2, 4) == {
        "1xTP1": [(0,)],
        "2xTP1": [(0,), (1,)],
        "3xTP1": [(0,), (1,), (2,)],
        "4xTP1": [(0,), (1,), (2,), (3,)],
        "1xTP2": [(0, 1)],
        "2xTP2": [(0, 1), (2, 3)],
        "1xTP4": [(0, 1, 2, 3)],
    }


def test_crossed_bridges_are_followed():
    assert shapes(box_with_bridges(4, (0, 3), (1, 2)), 2)["2xTP2"] == [(0, 3), (1, 2)]


def test_one_bridge_among_three_cards_gets_the_pair_and_the_third_is_put_to_use():
    found = shapes(box_with_bridges(3, (1, 2)), 1, 2)
    assert found["1xTP2"] == [(1, 2)]
    assert found["1xTP2-1xTP1"] == [(1, 2), (0,)]


@pytest.mark.parametrize(
    ("count", "uneven"),
    [(3, {"1xTP2-1xTP1"}), (5, {"1xTP4-1xTP1", "2xTP2-1xTP1"}), (6, {"1xTP4-1xTP2"}), (8, set())],
)
def test_cards_left_over_by_equal_replicas_are_put_to_use(count, uneven):
    found = shapes(make_box("RTX-4090-24GB", count), 1, 2, 4, 8)
    assert {name for name in found if "-" in name} == uneven


def test_islands_of_different_sizes_are_filled_one_by_one():
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    found = shapes(box_with_bridges(8, *pairs, (4, 5), (6, 7)), 1, 2, 4)
    assert found["1xTP4-2xTP2"] == [(0, 1, 2, 3), (4, 5), (6, 7)]


def test_no_shape_twice_and_no_card_twice():
    for count in (2, 3, 4, 5, 6, 7, 8, 16):
        found = list(list_candidates(make_box("RTX-4090-24GB", count), splits(1, 2, 4, 8)))
        assert len({one.name for one in found}) == len(found)
        for one in found:
            used = [gpu for replica in one.replicas for gpu in replica.gpus]
            assert len(set(used)) == len(used) == one.gpus <= count


def test_wanted_sizes_and_counts_leave_the_rest_out():
    box = make_box("H100-NVL-94GB", 4)
    kinds = dict.fromkeys(range(4), find_gpu("H100-NVL-94GB"))
    only, rejected = list_splits(QWEN, kinds, find_engine("vllm"), wanted=Wanted(tensor_parallel=2))
    assert (only, rejected) == (splits(2), ())
    assert [one.name for one in list_candidates(box, splits(1, 2), wanted=Wanted(replicas=2))] == ["2xTP1", "2xTP2"]


def test_illegal_sizes_are_rejected_with_the_legal_ones():
    kinds = dict.fromkeys(range(4), find_gpu("H100-NVL-94GB"))
    legal, rejected = list_splits(QWEN, kinds, find_engine("vllm"))
    assert legal == splits(1, 2, 4)
    assert [one.name for one in rejected] == ["TP3"]
    assert rejected[0].why == (
        "Qwen/Qwen2.5-32B-Instruct cannot be split over 3 GPUs: its 40 attention heads do not divide by 3;"
        " legal sizes are 1, 2, 4 and 8."
    )


def test_more_cards_than_there_are_cannot_be_asked_for():
    kinds = dict.fromkeys(range(4), find_gpu("H100-NVL-94GB"))
    _, rejected = list_splits(QWEN, kinds, find_engine("vllm"), wanted=Wanted(tensor_parallel=8))
    assert [one.why for one in rejected] == ["Tensor parallel 8 needs 8 GPUs; this box has 4."]


def test_stages_are_tensor_parallel_groups_of_their_own():
    staged = tuple(pipeline_splits(splits(1, 2), most=4, layers=64))
    assert [split.name for split in staged] == ["TP1PP2", "TP1PP3", "TP1PP4", "TP2PP2"]
    found = {one.name: one.replicas for one in list_candidates(make_box("H100-NVL-94GB", 4), staged)}
    assert found["1xTP2PP2"][0].gpus == (0, 1, 2, 3)
    assert found["1xTP2PP2"][0].pipeline_parallel == 2
