"""Islands and splits on boxes that exist."""

from pathlib import Path

import pytest

from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.catalog import find_gpu, make_box
from atoll.inventory.islands import (
    all_best_splits,
    best_group,
    best_groups,
    best_split,
    crosses_numa,
    has_nvswitch,
    is_fully_connected,
    islands,
    slowest_hop,
)
from atoll.inventory.parse import parse_box

CAPTURES = Path(__file__).parents[1] / "data" / "topo"


def capture(start: str) -> Box:
    path = next(CAPTURES.glob(f"{start}*.txt"))
    return parse_box(path.read_bytes().decode(), origin=path.name)


def crossed(*pairs: tuple[int, int], n: int = 8, nvlinks: int = 4) -> Box:
    links = []
    for a in range(n):
        for b in range(a + 1, n):
            joined = (a, b) in pairs
            links.append(Link(a=a, b=b, kind=LinkKind.NV if joined else LinkKind.SYS, nvlinks=nvlinks if joined else 0))
    return Box(gpus=tuple(Gpu(index=index) for index in range(n)), links=tuple(links))


def test_crossed_bridges_are_followed_not_the_numbers():
    box = crossed((0, 5), (1, 2), (3, 4), (6, 7))
    assert islands(box) == ((0, 5), (1, 2), (3, 4), (6, 7))
    assert best_split(box, 2) == ((0, 5), (1, 2), (3, 4), (6, 7))


def test_a_dgx_1_is_split_into_its_double_links_and_its_quads():
    box = capture("045")
    assert islands(box) == (tuple(range(8)),)
    assert best_split(box, 2) == ((0, 3), (1, 2), (4, 7), (5, 6))
    assert best_split(box, 4) == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert is_fully_connected(box, (0, 1, 2, 3))
    assert not is_fully_connected(box, box.indices)
    assert slowest_hop(box, (0, 1, 2, 3)).nvlinks == 1
    assert slowest_hop(box, box.indices).kind is LinkKind.SYS


def test_sixteen_cards_with_crossed_bridges_are_split_exactly():
    pairs = tuple((index, 15 - index) for index in range(8))
    box = crossed(*pairs, n=16)
    assert best_split(box, 2) == pairs
    quads = best_split(box, 4)
    assert all(sum(box.link(a, b).nvlinks for a in quad for b in quad if a < b) == 8 for quad in quads)


def test_among_equal_pairs_those_on_one_numa_node_come_first():
    box = make_box("H100-SXM-80GB", 4)
    nodes = (0, 1, 0, 1)
    box = box.replace(gpus=tuple(gpu.replace(numa_node=node) for gpu, node in zip(box.gpus, nodes, strict=True)))
    assert best_split(box, 2) == ((0, 2), (1, 3))
    assert crosses_numa(box, (0, 1))
    assert not crosses_numa(box, (0, 2))


def test_without_numa_nodes_the_cpu_affinity_tells():
    box = make_box("L40S-48GB", 4)
    cpus = ("0-31", "32-63", "0-31", "32-63")
    gpus = tuple(gpu.replace(numa_node=None, cpu_affinity=cpu) for gpu, cpu in zip(box.gpus, cpus, strict=True))
    links = tuple(link.replace(kind=LinkKind.SYS) for link in box.links)
    assert best_split(box.replace(gpus=gpus, links=links), 2) == ((0, 2), (1, 3))


def test_among_equals_on_one_node_the_shorter_pcie_path_wins():
    assert best_split(capture("019"), 2) == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert best_split(capture("114"), 3) == ((0, 1, 2), (3, 4, 5))


def test_a_group_with_every_pair_joined_beats_one_with_a_gap_and_as_many_links():
    """Both splits keep eight links; one has a pair without any in each group."""
    widths = dict.fromkeys([(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)], 2) | {(0, 3): 4, (2, 4): 4}
    links = []
    for a in range(6):
        for b in range(a + 1, 6):
            nvlinks = widths.get((a, b), 0)
            links.append(Link(a=a, b=b, kind=LinkKind.NV if nvlinks else LinkKind.SYS, nvlinks=nvlinks))
    box = Box(gpus=tuple(Gpu(index=index) for index in range(6)), links=tuple(links))
    assert sum(widths.get(pair, 0) for pair in [(0, 1), (0, 3), (1, 3), (2, 4), (2, 5), (4, 5)]) == 12  # as many
    assert best_split(box, 3) == ((0, 1, 2), (3, 4, 5))


def test_every_divisor_has_its_split():
    assert list(all_best_splits(make_box("H100-SXM-80GB", 8))) == [1, 2, 4, 8]
    assert list(all_best_splits(capture("084"))) == [1, 2, 3, 6]
    assert all_best_splits(capture("140"))[1] == tuple((index,) for index in range(7))


def test_a_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="do not divide"):
        best_split(make_box("H100", 4), 3)
    with pytest.raises(ValueError, match="cannot be made"):
        best_groups(make_box("H100", 4), [3, 2])


def test_uneven_groups_keep_the_bridges_and_leave_the_rest_idle():
    box = capture("067")  # 0-1 bridged, 2 alone
    assert best_groups(box, [2]) == ((0, 1),)
    assert best_groups(box, [2, 1]) == ((0, 1), (2,))
    assert best_groups(capture("084"), [2, 2]) == ((1, 2), (4, 5))  # 0-3 has as many links, but crosses sockets


def test_a_group_is_found_among_the_cards_that_are_left():
    box = capture("084")
    assert best_group(box, 2) == (1, 2)
    assert best_group(box, 2, among=(0, 1, 3)) == (0, 3)
    assert best_group(box, 2, among=(1, 2, 4, 5)) == (1, 2)
    assert best_group(box, 2, among=(0, 4, 5)) == (4, 5)
    with pytest.raises(ValueError, match="cannot be made"):
        best_group(box, 3, among=(0, 1))


def test_a_single_card_is_taken_where_it_breaks_no_bridge():
    box = crossed((1, 2), n=3)
    assert best_group(box, 1) == (0,)


def test_nvswitch_is_told_by_every_pair_having_all_links():
    h100 = find_gpu("H100-SXM-80GB")
    assert has_nvswitch(make_box("H100-SXM-80GB", 8), range(8), h100)
    assert not has_nvswitch(make_box("H100-SXM-80GB", 8), (0, 1), h100)
    assert not has_nvswitch(capture("024"), range(4), find_gpu("A100-SXM-40GB"))  # four NV4 boards: direct links
    assert not has_nvswitch(make_box("L40S", 4), range(4), find_gpu("L40S"))
    assert not has_nvswitch(make_box("H100", 4), range(4), None)


def test_one_card_has_no_hop():
    with pytest.raises(ValueError, match="two GPUs"):
        slowest_hop(make_box("H100", 2), (0,))


def test_a_wide_box_beyond_the_exact_search_is_still_split_well():
    pairs = tuple((index, 23 - index) for index in range(12))
    box = crossed(*pairs, n=24)
    assert set(best_split(box, 2)) == set(pairs)
