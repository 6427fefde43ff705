"""What people do to a capture before it reaches us, one accident a test."""

import pytest

from atoll.errors import BadTopology
from atoll.inventory.box import Box, LinkKind, cpu_ranges
from atoll.inventory.catalog import make_box
from atoll.inventory.parse import parse_box

PAIRS = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV12\tSYS\tSYS\tPXB\t0-31,64-95\t0\t\tN/A
GPU1\tNV12\t X \tSYS\tSYS\tPXB\t0-31,64-95\t0\t\tN/A
GPU2\tSYS\tSYS\t X \tNV12\tSYS\t32-63,96-127\t1\t\tN/A
GPU3\tSYS\tSYS\tNV12\t X \tSYS\t32-63,96-127\t1\t\tN/A
NIC0\tPXB\tPXB\tSYS\tSYS\t X \t\t\t\t
"""
LEGEND = """
Legend:

  X    = Self
  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)
  NV#  = Connection traversing a bonded set of # NVLinks
"""


def read(text: str) -> Box:
    return parse_box(text, origin="topo.txt")


def nvlinks(box: Box) -> dict[tuple[int, int], int]:
    return {(link.a, link.b): link.nvlinks for link in box.links if link.nvlinks}


@pytest.fixture(scope="module")
def pairs() -> Box:
    return read(PAIRS)


def test_a_capture_gives_cards_links_and_places(pairs):
    assert pairs.indices == (0, 1, 2, 3)
    assert nvlinks(pairs) == {(0, 1): 12, (2, 3): 12}
    assert pairs.link(1, 2).kind is LinkKind.SYS
    assert [(gpu.numa_node, gpu.cpu_affinity) for gpu in pairs.gpus] == [(0, "0-31,64-95")] * 2 + [
        (1, "32-63,96-127")
    ] * 2
    assert not pairs.pcie_only
    assert pairs.notes == ()


def same(text: str, box: Box) -> bool:
    return read(text).links == box.links


DRESSES = {
    "html table": "<table>"
    + "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in line.split("\t")) + "</tr>" for line in PAIRS.splitlines()
    )
    + "</table>",
    "one line": " ".join(PAIRS.split()),
    "comma separated": "\n".join(",".join(line.split("\t")[:6]) for line in PAIRS.splitlines()),
    "python list": "\n".join(str([cell.strip() for cell in line.split("\t")]) for line in PAIRS.splitlines()),
    "box drawing": PAIRS.replace("\t", " │ "),
    "bold cells": PAIRS.replace("NV12", "**NV12**"),
    "ansi without escape": PAIRS.replace("\tGPU0\tGPU1", "\t[4mGPU0\tGPU1", 1).replace("NUMA ID\n", "NUMA ID[0m\n", 1),
    "colon after label": PAIRS.replace("\nGPU", "\nGPU").replace("\t X ", ":\t X ", 1),
    "glued header": PAIRS.replace("GPU0\tGPU1\tGPU2\tGPU3\tNIC0", "GPU0GPU1GPU2GPU3NIC0", 1),
    "glued cells": PAIRS.replace("SYS\tSYS\t X ", "SYSSYSX"),
    "rows in another order": "\n".join([PAIRS.splitlines()[0], *reversed(PAIRS.splitlines()[1:])]),
    "wrapped header": PAIRS.replace("\tGPU2\tGPU3\tNIC0", "\n\tGPU2\tGPU3\tNIC0", 1),
    "wrapped rows": PAIRS.replace("\tPXB\t0-31", "\nPXB\t0-31"),
    "printed twice": PAIRS * 2,
    "no header": "\n".join(PAIRS.splitlines()[1:]),
    "host named like a card": "".join(f"gpu01: {line}" for line in (PAIRS + LEGEND).splitlines(keepends=True)),
    "service before a bar": "".join(f"gpu0-1  | {line}" for line in (PAIRS + LEGEND).splitlines(keepends=True)),
    "numbered lines": "".join(
        f"{n:6d}\t{line}" for n, line in enumerate((PAIRS + LEGEND).splitlines(keepends=True), 1)
    ),
    "numbers and a bar": "".join(
        f"{n:3d} | {line}" for n, line in enumerate((PAIRS + LEGEND).splitlines(keepends=True))
    ),
    "cards and devices glued in a csv": PAIRS.replace("\tNIC0\tCPU Affinity\tNUMA", ",NIC0,CPU Affinity,NUMA", 1),
    "line separators of a word processor": PAIRS.replace("\n", "\u2028"),
    "cut at the width of a terminal": "\n".join(
        line[start : start + 43] for line in PAIRS.expandtabs(8).splitlines() for start in range(0, len(line), 43)
    ),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_the_same_matrix_in_another_dress(dress, pairs):
    assert same(DRESSES[dress], pairs)


def test_a_missing_header_is_said(pairs):
    assert "header" in read(DRESSES["no header"]).notes[0]


SLICED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-74b00f22-1f0c-ef1a-3f7c-d4a8a0b1c2d3)
  MIG 3g.40gb     Device  0: (UUID: MIG-2b3ca0f7-5e10-5f3d-9c52-5c0d8e2a7b11)
  MIG 3g.40gb     Device  1: (UUID: MIG-8d1d2f6a-0a51-5a53-8a0f-7a8c9e3b4c22)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-91c5a0de-77aa-4b19-b6b0-0c6a5d4e3f21)
  MIG 1g.10gb     Device  0: (UUID: MIG-c5a0de91-aa77-5b19-b0b6-6a0c5d4e3f33)
"""

REFUSED = {
    "one cell changed": (PAIRS.replace("NV12\tSYS\tSYS", "NV4\tSYS\tSYS", 1), "GPU0 to GPU1 reads NV4 in one row and NV12"),
    "one cell lost": (PAIRS.replace("NV12\t X \tSYS", "NV12\t X ", 1), "cells|GPU"),
    "one row lost": ("\n".join(line for line in PAIRS.splitlines() if not line.startswith("GPU2")), "the row of GPU2 is missing"),
    "cut": (PAIRS[: PAIRS.index("GPU3\tSYS")], "the row of GPU3 is missing"),
    "rows of two boxes": (PAIRS + "GPU0\t X \tSYS\tSYS\tSYS\tSYS\t0-31\t0\n", "cannot be read with certainty"),
    "a column of the header lost": (PAIRS.replace("\tGPU3\tNIC0", "\tNIC0", 1), "cells where 4 are expected|does not list"),
    "elided": ("GPU0 GPU1 ... GPU7\nGPU0 X NV12 ... NV12\nGPU1 NV12 X ... NV12\nGPU7 NV12 NV12 ... X", "left out"),
    "no header and a row lost": ("\n".join(PAIRS.splitlines()[1:4]), "expected|cells"),
    "impossible NVLinks": (PAIRS.replace("NV12", "NV99"), "NV99"),
    "only one row": ("GPU0\t X \t0-11\t0\t\tN/A", "stands alone"),
    "not a matrix": ("total 12\ndrwxr-xr-x 2 root root", "no GPU topology matrix"),
    "empty": ("  \n", "this is empty"),
    "a list of cards": ("GPU 0: NVIDIA L40S (UUID: GPU-00000000-0000-0000-0000-000000000000)\n", "nvidia-smi -L"),
    "a list of MIG slices without their card": (
        "  MIG 3g.40gb     Device  0: (UUID: MIG-0)\n",
        "--gpu 'H100 MIG 3g.40gb' --gpus 2",
    ),
    "slices and a whole card": (SLICED + "GPU 9: NVIDIA H100 80GB HBM3\n", "1 of these cards are whole"),
    "compute instances": (SLICED.replace("MIG 3g", "MIG 1c.3g"), "share the memory of their slice"),
    "the plain table": ("| NVIDIA-SMI 550.54  Driver Version: 550.54  CUDA Version: 12.4 |", "plain `nvidia-smi`"),
    "an error": ("bash: nvidia-smi: command not found", "not installed"),
    "no driver": ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "no working driver"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case):
    text, reason = REFUSED[case]
    with pytest.raises(BadTopology, match=reason):
        read(text)


def test_two_different_matrices_are_refused():
    other = PAIRS.replace("NV12", "NV18")
    with pytest.raises(BadTopology, match="different topology matrices"):
        read(PAIRS + "\n$ nvidia-smi topo -m\n" + other)


def test_the_pcie_view_beside_the_whole_one_is_passed_over(pairs):
    pcie = PAIRS.replace("NV12", "NODE")
    box = read(f"$ nvidia-smi topo -mp\n{pcie}\n$ nvidia-smi topo -m\n{PAIRS}")
    assert box.links == pairs.links
    assert not box.pcie_only


def test_the_pcie_view_alone_says_that_it_hides_nvlink():
    box = read("$ nvidia-smi topo -mp\n" + PAIRS.replace("NV12", "NODE"))
    assert box.pcie_only
    assert "cannot show NVLink" in box.notes[0]


def test_cards_are_named_by_the_list_in_the_same_paste():
    listed = "".join(f"GPU {i}: NVIDIA H100 NVL (UUID: GPU-0000000{i}-1111-2222-3333-444444444444)\n" for i in range(4))
    box = read(listed + PAIRS)
    assert {gpu.name for gpu in box.gpus} == {"H100-NVL-94GB"}
    assert box.gpus[2].uuid == "GPU-00000002-1111-2222-3333-444444444444"


def test_cards_are_named_by_a_csv_query_with_their_memory():
    rows = "".join(f"{i}, NVIDIA A100-SXM4-40GB, 40960 MiB\n" for i in range(4))
    box = read(PAIRS + "\nindex, name, memory.total [MiB]\n" + rows)
    assert [gpu.name for gpu in box.gpus] == ["A100-SXM-40GB"] * 4
    assert box.gpus[0].memory_bytes == 40960 * 2**20


def test_cards_are_named_by_the_plain_table():
    table = "\n".join(
        f"|   {i}  NVIDIA H100 80GB HBM3          On  |   00000000:{i + 1}9:00.0 Off |                    0 |\n"
        "| N/A   35C    P0             115W /  700W |   81079MiB /  81559MiB |      0%      Default |"
        for i in range(4)
    )
    box = read(table + "\n" + PAIRS)
    assert [gpu.name for gpu in box.gpus] == ["H100-SXM-80GB"] * 4
    assert box.gpus[0].memory_bytes == 81559 * 2**20
    assert box.gpus[3].pci_bus_id == "00000000:49:00.0"


def test_a_card_that_the_catalogue_lacks_keeps_its_printed_name():
    listed = "".join(f"GPU {i}: NVIDIA Quadro Something 9\n" for i in range(4))
    assert read(listed + PAIRS).gpus[0].name == "NVIDIA Quadro Something 9"


def test_names_of_another_number_of_cards_are_left_out_and_said():
    box = read("GPU 0: NVIDIA L40S\n" + PAIRS)
    assert box.gpus[0].name is None
    assert "names 1 cards and the matrix has 4" in box.notes[0]


def test_mig_is_noted():
    box = read("GPU 0: NVIDIA A100\n  MIG 1g.10gb     Device  0: (UUID: MIG-1)\n" + PAIRS)
    assert any("MIG" in note for note in box.notes)


def test_a_list_of_mig_slices_is_a_box_of_cards_that_nothing_joins():
    box = read("$ nvidia-smi -L\n" + SLICED)
    assert [gpu.name for gpu in box.gpus] == [*["H100-SXM-80GB-MIG-3g.40gb"] * 2, "H100-SXM-80GB-MIG-1g.10gb"]
    assert {link.kind.value for link in box.links} == {"SYS"}
    assert "an engine takes one" in box.notes[0]
    assert box.device_ids([2, 0]) == (
        "MIG-c5a0de91-aa77-5b19-b0b6-6a0c5d4e3f33",
        "MIG-2b3ca0f7-5e10-5f3d-9c52-5c0d8e2a7b11",
    )
    assert make_box("H100", 2).device_ids([1]) == ("1",)


def test_a_row_whose_label_was_cut_is_no_network_card():
    """`G` and `PU3 NV8 ...` on two lines: three cards remain, with a fourth column that no network card can have."""
    rows = ["GPU0 X NV8 NV8 NV8", "GPU1 NV8 X NV8 NV8", "GPU2 NV8 NV8 X NV8", "G", "PU3 NV8 NV8 NV8 X"]
    with pytest.raises(BadTopology):
        parse_box("\n".join(rows), origin="cut")


def test_line_numbers_are_no_numa_nodes():
    capture = "\tGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\nGPU0\t X \t\t\t\tN/A\n" + LEGEND
    numbered = "".join(f"{n:3d} | {line}" for n, line in enumerate(capture.splitlines(keepends=True)))
    assert read(numbered).gpus == read(capture).gpus
    assert read(capture).gpus[0].numa_node is None


def test_the_lines_of_two_hosts_that_came_in_turns_are_told_apart(pairs):
    lines = PAIRS.splitlines()
    other = PAIRS.replace("NV12", "NV4").splitlines()
    alike = "\n".join(f"gpu01: {line}\ngpu02: {line}" for line in lines)
    assert same(alike, pairs)
    with pytest.raises(BadTopology, match="different topology matrices"):
        read("\n".join(f"gpu01: {line}\ngpu02: {strange}" for line, strange in zip(lines, other, strict=True)))


def test_a_row_that_the_header_does_not_list_is_refused():
    capture = PAIRS.replace("GPU3\tNIC0", "GIC3\tNIC0").replace("NV12\t X \tSYS\t32", "NV12\tYS\tSYS\t32")
    with pytest.raises(BadTopology, match="row of GPU3, which the header does not list"):
        read(capture)


def test_one_card_with_blank_affinity_is_read():
    assert read("\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t\t\n").indices == (0,)


def test_a_legend_without_nvlink_may_be_the_pcie_view():
    capture = PAIRS.replace("NV12", "PIX")
    legend = "\nLegend:\n  X    = Self\n  PIX  = Connection traversing at most a single PCIe bridge\n"
    assert "topo -mp" in read(capture + legend).notes[0]
    assert read(capture + legend + "  NV#  = Connection traversing a bonded set of # NVLinks\n").notes == ()


def test_rows_as_wide_as_each_other_are_not_taken_for_wrapped_ones():
    rows = ("GPU0  X    NV4   <- pair A: GPU0 and GPU3", "GPU1  PHB  NODE  <- pair B: GPU1 and GPU2")
    with pytest.raises(BadTopology, match="row of GPU1, GPU2, which the header does not list"):
        read("\n".join(["      GPU0 GPU3", *rows, "GPU2  NODE PHB", "GPU3  NV4  X"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0-99999999999", "no machine has a processor"),
        ("9-3", "run backwards"),
        ("x", "no list"),
        ("0-" + "9" * 50, "no list"),
    ],
)
def test_processors_that_no_machine_has_are_refused_without_counting_them_out(text, said):
    with pytest.raises(ValueError, match=said):
        cpu_ranges(text)
    assert cpu_ranges("0-31, 64-95,7") == ((0, 31), (64, 95), (7, 7))
