"""Every published capture gives what its index says; no matrix comes out wrong."""

import csv
from itertools import combinations
from pathlib import Path

import pytest

from atoll.errors import BadTopology
from atoll.inventory.box import Box, LinkKind
from atoll.inventory.islands import best_split, is_fully_connected, islands
from atoll.inventory.parse import parse_box

CAPTURES = Path(__file__).parents[1] / "data" / "topo"
INDEX = list(csv.DictReader((CAPTURES / "index.csv").read_text(encoding="utf-8").splitlines()))


def read(row: dict[str, str]) -> Box | None:
    text = (CAPTURES / row["file"]).read_bytes().decode("utf-8", errors="replace")
    try:
        return parse_box(text, origin=row["file"])
    except BadTopology:
        return None


def faults(row: dict[str, str], box: Box) -> list[str]:
    """What differs from the index."""
    found = []
    if len(box.gpus) != int(row["n_gpus"]):
        found.append("gpus")
    shown = "|".join(",".join(map(str, island)) for island in islands(box))
    if shown != row["expected_nvlink_islands"]:
        found.append("islands")
    whole = {"yes" if is_fully_connected(box, island) else "no" for island in islands(box)}
    if whole != set(row["island_fully_connected"].split("|")):
        found.append("fully connected")
    widest = max((link.nvlinks for link in box.links), default=0)
    pairs = ";".join(f"{link.a}-{link.b}" for link in box.links if link.nvlinks == widest)
    expected = row["expected_best_pairs"]
    if (expected == "none") != (widest == 0) or (expected not in {"none", "all-equal"} and pairs != expected):
        found.append("best pairs")
    if expected == "all-equal" and len({link.nvlinks for link in box.links}) != 1:
        found.append("all equal")
    return found


@pytest.mark.parametrize("row", INDEX, ids=lambda row: row["file"][:-4])
def test_capture_gives_what_its_index_says(row):
    box = read(row)
    if row["expectation"] == "not_topo_m":
        assert box is None
        return
    if box is None:
        assert row["expectation"] == "parse_or_reject"
        return
    assert faults(row, box) == []
    assert box.pcie_only == (row["expectation"] == "parse_pcie_view_only")


@pytest.mark.parametrize(
    "row",
    [row for row in INDEX if row["best_disjoint_pairing_example"] and int(row["n_gpus"]) % 2 == 0],
    ids=lambda row: row["file"][:-4],
)
def test_best_pairs_are_the_ones_that_the_index_found(row):
    box = read(row)
    assert box is not None
    pairs = ";".join(f"{a}-{b}" for a, b in best_split(box, 2))
    assert pairs == row["best_disjoint_pairing_example"]


def test_count_of_right_refused_and_wrong():
    """The line to look at after a change of the parser: 63 right, 10 refused, 0 wrong."""
    count = {"right": 0, "refused": 0, "wrong": 0}
    for row in INDEX:
        box = read(row)
        good = box is not None and row["expectation"] != "not_topo_m" and not faults(row, box)
        count["refused" if box is None else "right" if good else "wrong"] += 1
    print(f"captures: {count}")
    assert count == {"right": 63, "refused": 10, "wrong": 0}


SENTENCES = {
    "015-p2p-r-l4-2gpu-cns": "peer-to-peer status",
    "046-nvlink-s-dgx1-v100-snip": "nvlink --status",
    "068-nvlink-s-a6000-3gpu-inactive": "nvlink --status",
    "079-rocm-showtoponuma-8gpu": "ROCm",
    "088-rocm-showtopo-4gpu-xgmi": "ROCm",
    "098-mxsmi-8gpu-marslink-lookalike": "the code HT",
    "129-k80-class-8gpu-pix-phb-sys-mlx4-cut": "GPU5, GPU6, GPU7",
}


@pytest.mark.parametrize(("name", "words"), SENTENCES.items())
def test_refusal_says_what_the_text_is(name, words):
    with pytest.raises(BadTopology, match=words) as caught:
        parse_box((CAPTURES / f"{name}.txt").read_text(encoding="utf-8"), origin="topo.txt")
    sentence = str(caught.value)
    assert sentence.startswith("topo.txt: ")
    assert "\n" not in sentence


PLACES = {  # (NUMA node, CPU affinity) of each GPU, None where the text leaves doubt
    "002-a100-sxm4-4gpu-uneven-numa": [(0, "0-31,64-95"), *[(1, "32-63,96-127")] * 3],
    "024-polaris-a100-4gpu-header-mixed": [(3, "24-31,56-63"), (2, "16-23,48-55"), (1, "8-15,40-47"), (0, "0-7,32-39")],
    "025-polaris-a100-4gpu-markdown-table": [
        (3, "24-31,56-63"),
        (2, "16-23,48-55"),
        (1, "8-15,40-47"),
        (0, "0-7,32-39"),
    ],
    "027-a100-4gpu-cgroup-affinity": [(None, "0,64")] * 4,
    "031-power9-v100-4gpu-nv3-pairs": [(0, "0-63"), (0, "0-63"), (8, "64-127"), (8, "64-127")],
    "097-a800-8gpu-glued-numa-digit": [(None, None)] * 4 + [(1, "32-63,96-127")] * 4,
    "111-rtx3090-2gpu-sys-numa-na-shifted": [(None, "0-7,16-23"), (1, "8-15,24-31")],
    "121-h200-8gpu-empty-affinity-spaces": [(0, None)] * 4 + [(1, "56")] * 4,
    "122-a100-8gpu-vm-phb-glued-affinity": [(None, None)] * 8,
    "123-1gpu-microsoft-hypervisor-blank-affinity": [(None, None)],
    "133-gb200-4gpu-nv18-nic8-numa-lists": [(0, "0-71"), (0, "0-71"), (1, "72-143"), (1, "72-143")],
}


@pytest.mark.parametrize("name", PLACES)
def test_numa_node_and_affinity_are_right_or_unknown(name):
    box = parse_box((CAPTURES / f"{name}.txt").read_bytes().decode(), origin=name)
    read_places = [(gpu.numa_node, gpu.cpu_affinity) for gpu in box.gpus]
    if name.startswith(("111", "121")):  # beside an unknown NUMA node the affinity may be left out as well
        read_places = [
            (numa, None if cpu is None else want[1])
            for (numa, cpu), want in zip(read_places, PLACES[name], strict=True)
        ]
        assert [numa for numa, _ in read_places] == [numa for numa, _ in PLACES[name]]
    else:
        assert read_places == PLACES[name]


def test_paths_of_the_dgx_1_are_read_cell_by_cell():
    box = parse_box((CAPTURES / "045-dgx1-v100-8gpu-nic-order-0213.txt").read_text(), origin="dgx1")
    double = {(0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)}
    single = {(0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)}
    assert {(a, b) for a, b in combinations(range(8), 2) if box.link(a, b).nvlinks == 2} == double
    assert {(a, b) for a, b in combinations(range(8), 2) if box.link(a, b).nvlinks == 1} == single
    assert {box.link(a, b).kind for a, b in combinations(range(8), 2) if not box.link(a, b).nvlinks} == {LinkKind.SYS}
