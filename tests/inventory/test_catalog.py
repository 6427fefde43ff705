"""The catalogue: whoever wrote the name finds the card, and every figure has its source."""

import csv
from pathlib import Path

import pytest

from atoll.errors import InputError, UnknownGpu
from atoll.inventory.box import LinkKind
from atoll.inventory.catalog import all_gpus, find_gpu, make_box
from atoll.inventory.islands import islands

NAMES = {
    "NVIDIA H100 NVL": "H100-NVL-94GB",
    "h100-nvl-94gb": "H100-NVL-94GB",
    "NVIDIA H100 80GB HBM3": "H100-SXM-80GB",
    "H100 SXM 80GB": "H100-SXM-80GB",
    "H100 SXM5": "H100-SXM-80GB",
    "H100": "H100-SXM-80GB",
    "NVIDIA H100 PCIe": "H100-PCIe-80GB",
    "H100 PCIe 80GB": "H100-PCIe-80GB",
    "NVIDIA H200": "H200-SXM-141GB",
    "H200 SXM 141GB": "H200-SXM-141GB",
    "NVIDIA A100-SXM4-80GB": "A100-SXM-80GB",
    "A100 SXM 80GB": "A100-SXM-80GB",
    "NVIDIA A100-PCIE-40GB": "A100-PCIe-40GB",
    "NVIDIA A100 80GB PCIe": "A100-PCIe-80GB",
    "NVIDIA L40S": "L40S-48GB",
    "NVIDIA L4": "L4-24GB",
    "NVIDIA A10G": "A10G-24GB",
    "NVIDIA RTX A6000": "A6000-48GB",
    "NVIDIA GeForce RTX 4090": "RTX-4090-24GB",
    "4090": "RTX-4090-24GB",
    "rtx 5090 32 GB": "RTX-5090-32GB",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTX-PRO-6000-SERVER-96GB",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "RTX-PRO-6000-96GB",
    "RTX 6000 PRO": "RTX-PRO-6000-96GB",
    "NVIDIA RTX 6000 Ada Generation": "RTX-6000-ADA-48GB",
    "NVIDIA B200": "B200-180GB",
    "NVIDIA B300 SXM6 AC": "B300-288GB",
    "NVIDIA GH200 480GB": "GH200-96GB",
    "NVIDIA GH200 144G HBM3e": "GH200-144GB",
    "Tesla V100-SXM2-32GB": "V100-SXM-32GB",
    "Tesla V100-SXM2-16GB": "V100-SXM-16GB",
    "Tesla T4": "T4-16GB",
    "Tesla P100-SXM2-16GB": "P100-SXM-16GB",
    "DGX Spark GB10": "GB10-128GB",
}


@pytest.mark.parametrize(("written", "kind"), NAMES.items())
def test_a_card_is_found_by_what_tools_and_people_write(written, kind):
    assert find_gpu(written).name == kind


def test_every_kind_is_found_by_its_own_name_and_aliases_and_no_alias_means_two():
    for kind in all_gpus():
        for name in (kind.name, *kind.aliases):
            assert find_gpu(name) == kind


def test_every_kind_is_plausible_and_says_where_its_figures_are_from():
    for kind in all_gpus():
        assert len(kind.source) > 8
        assert 8 * 2**30 <= kind.memory_bytes <= 300 * 2**30
        assert 1e11 < kind.memory_bytes_per_s <= 8e12
        assert 1e13 < kind.bf16_flops <= 2.5e15
        assert kind.fp8_flops is None or 1.9 < kind.fp8_flops / kind.bf16_flops < 2.1
        assert (kind.nvlinks > 0) == (kind.nvlink_bytes_per_s > 0) == (kind.fabric != "none")
        named_gb = int(kind.name.rsplit("-", 1)[1].removesuffix("GB"))
        assert abs(kind.memory_bytes / 2**30 - named_gb) / named_gb < 0.08


def test_figures_of_the_nvl_card_are_the_data_sheets():
    nvl = find_gpu("H100-NVL-94GB")
    assert nvl.memory_bytes == 95830 * 2**20  # what nvidia-smi reports
    assert nvl.nvlinks * nvl.nvlink_bytes_per_s * 2 == 600e9  # 600 GB/s, both directions
    assert nvl.bf16_flops * 2 == 1671e12  # the sheet's figure is with sparsity


def test_an_unknown_card_is_answered_with_the_nearest_names():
    with pytest.raises(UnknownGpu, match="nearest names are H100-SXM-80GB, H100-NVL-94GB"):
        find_gpu("H100-NVL-80GB")


def test_a_name_that_several_share_is_answered_with_all_of_them():
    with pytest.raises(UnknownGpu, match="could be V100-SXM-16GB, V100-SXM-32GB, V100-PCIe-16GB"):
        find_gpu("V100")


def test_memory_decides_between_variants_of_a_name():
    assert find_gpu("NVIDIA H100", memory_bytes=95830 * 2**20).name == "H100-SXM-94GB"
    assert find_gpu("A100-SXM4", memory_bytes=40960 * 2**20).name == "A100-SXM-40GB"
    assert find_gpu("A100", memory_bytes=81920 * 2**20).name == "A100-SXM-80GB"


def test_a_laptop_card_is_not_taken_for_the_desktop_card():
    with pytest.raises(UnknownGpu):
        find_gpu("NVIDIA GeForce RTX 4090 Laptop GPU")


def test_sxm_cards_are_joined_all_to_all():
    box = make_box("H100-SXM-80GB", 8)
    assert {link.nvlinks for link in box.links} == {18}
    assert [gpu.numa_node for gpu in box.gpus] == [0] * 4 + [1] * 4
    assert "NVSwitch" in box.notes[0]


def test_nvl_cards_are_assumed_in_bridged_pairs_and_the_note_says_so():
    box = make_box("H100-NVL-94GB", 4)
    assert islands(box) == ((0, 1), (2, 3))
    assert "pairs 0-1, 2-3" in box.notes[0]


def test_cards_without_nvlink_stand_on_pcie_half_on_each_node():
    box = make_box("L40S-48GB", 4)
    assert box.link(0, 1).kind is LinkKind.NODE
    assert box.link(1, 2).kind is LinkKind.SYS
    assert {link.kind for link in make_box("RTX-4090-24GB", 2).links} == {LinkKind.PHB}


def test_v100_sxm_is_the_cube_mesh_up_to_eight():
    box = make_box("V100-SXM-16GB", 8)
    for index in box.indices:
        assert sum(box.link(index, other).nvlinks for other in box.indices if other != index) == 6
    p100 = make_box("P100-SXM-16GB", 8)
    for index in p100.indices:
        assert sum(p100.link(index, other).nvlinks for other in p100.indices if other != index) == 4


@pytest.mark.parametrize("n", [0, 17])
def test_a_box_has_one_to_sixteen_cards(n):
    with pytest.raises(InputError, match="1 to 16"):
        make_box("H100", n)


def test_every_gpu_kind_makes_boxes_of_every_size():
    for kind in all_gpus():
        for n in (1, 2, 3, 4, 8, 16):
            assert len(make_box(kind.name, n).gpus) == n


def test_cards_of_the_captures_are_known():
    index = Path(__file__).parents[1] / "data" / "topo" / "index.csv"
    rows = csv.DictReader(index.read_text(encoding="utf-8").splitlines())
    assert {find_gpu(row["gpu_model"]).name for row in rows if row["gpu_model"].startswith("Tesla V100-SXM2-16")} == {
        "V100-SXM-16GB"
    }
