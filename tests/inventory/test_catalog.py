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
        assert 1e13 < kind.bf16_flops <= 2.6e15
        assert kind.fp8_flops is None or 1.9 < kind.fp8_flops / kind.bf16_flops < 2.1
        assert (kind.nvlinks > 0) == (kind.nvlink_bytes_per_s > 0) == (kind.fabric != "none")
        named_gb = int(kind.name.rsplit("-", 1)[1].removesuffix("GB"))
        assert abs(kind.memory_bytes / 2**30 - named_gb) / named_gb < 0.08


# Dense 16-bit operations of one SM in a clock, with FP32 accumulation, and the boost clocks that were sold, GHz (the
# white papers of each architecture).
OPS_AND_CLOCK = {
    "6.0": (256, 1.2, 1.5),
    "7.0": (1024, 1.3, 1.65),
    "7.5": (1024, 1.5, 1.85),
    "8.0": (2048, 1.35, 1.5),
    "8.6": (1024, 1.5, 1.9),
    "8.9": (1024, 1.9, 2.6),
    "9.0": (4096, 1.5, 2.0),
    "10.0": (8192, 1.8, 2.1),
    "10.3": (8192, 1.8, 2.1),
    "12.0": (1024, 2.2, 2.7),
    "12.1": (1024, 2.3, 2.7),
}
# GeForce cards accumulate in FP32 at half the rate, some small server cards too; export rules hold the H20 to a quarter.
SLOWER = {
    "A10G-24GB": 2, "L40-48GB": 2, "L20-48GB": 2, "RTX-2080-TI-11GB": 2, "RTX-3080-10GB": 2, "RTX-3090-24GB": 2,
    "RTX-3090-TI-24GB": 2, "RTX-4080-16GB": 2, "RTX-4090-24GB": 2, "RTX-4090D-24GB": 2, "RTX-5080-16GB": 2,
    "RTX-5090-32GB": 2, "RTX-5070-TI-16GB": 2, "RTX-4060-TI-16GB": 2, "RTX-4090-48GB": 2, "RTX-5090D-32GB": 2 * 3352 / 2375,
    "H20-SXM-96GB": 4, "H20-SXM-141GB": 4,
}  # fmt: skip


TIMED = [kind for kind in all_gpus() if kind.timed]


@pytest.mark.parametrize("kind", TIMED, ids=lambda kind: kind.name)
def test_a_rate_is_sms_times_clock_times_what_an_sm_does_in_a_clock(kind):
    ops, slowest, fastest = OPS_AND_CLOCK[kind.compute_capability]
    clock = kind.bf16_flops / kind.sm_count / ops * SLOWER.get(kind.name, 1)
    assert slowest * 1e9 <= clock <= fastest * 1e9


@pytest.mark.parametrize("kind", TIMED, ids=lambda kind: kind.name)
def test_eight_bit_rates_are_whole_multiples_of_the_sixteen_bit_rate(kind):
    has_fp8 = tuple(map(int, kind.compute_capability.split("."))) >= (8, 9)
    assert (kind.fp8_flops is not None) == has_fp8
    assert kind.fp8_flops is None or kind.fp8_flops / kind.bf16_flops == pytest.approx(2, rel=0.03)
    if kind.int8_ops is not None and kind.name != "B300-288GB":  # the B300 gave nearly all of its INT8 rate away
        int8 = 4 if SLOWER.get(kind.name, 1) >= 2 and kind.name.startswith("RTX-") else 2  # integers are not halved
        assert kind.int8_ops / kind.bf16_flops == pytest.approx(int8, rel=0.03)


# The slowest and fastest memory of each architecture's cards, GB/s: GDDR and LPDDR, HBM.
MEMORY = {
    "pascal": (700, 750),
    "volta": (890, 1140),
    "turing": (300, 680),
    "ampere": (200, 2040),
    "ada": (288, 1010),
    "hopper": (2000, 4900),
    "blackwell": (270, 8000),
}


@pytest.mark.parametrize("kind", TIMED, ids=lambda kind: kind.name)
def test_memory_is_read_as_fast_as_its_make_allows(kind):
    slowest, fastest = MEMORY[kind.architecture]
    assert slowest <= kind.memory_bytes_per_s / 1e9 <= fastest
    stacked = kind.memory_bytes_per_s > 1.8e12 or kind.architecture in ("pascal", "volta")  # HBM
    assert not stacked or 10 < kind.memory_bytes_per_s / kind.memory_bytes < 60  # whole reads of the memory in a second


NVLINK = {1: 20, 2: 25, 3: 25, 4: 25, 5: 50}  # GB/s of a link one way; GA102's links are slower: 14.0625


@pytest.mark.parametrize("kind", TIMED, ids=lambda kind: kind.name)
def test_nvlink_and_pcie_are_those_of_the_architecture(kind):
    generation = {"pascal": 1, "volta": 2, "turing": 2, "ampere": 3, "hopper": 4, "blackwell": 5}.get(kind.architecture)
    assert kind.nvlink_generation in (None, generation)
    if kind.nvlink_generation:
        slow = kind.compute_capability == "8.6"
        assert kind.nvlink_bytes_per_s == (14.0625e9 if slow else NVLINK[kind.nvlink_generation] * 1e9)
    pcie = {"pascal": 3, "volta": 3, "turing": 3, "ampere": 4, "ada": 4, "hopper": 5, "blackwell": 5}
    assert kind.pcie_generation == (6 if kind.compute_capability == "10.3" else pcie[kind.architecture])


def test_figures_that_are_often_quoted_wrong():
    assert find_gpu("RTX PRO 6000 Server").memory_bytes_per_s < find_gpu("RTX PRO 6000 WS").memory_bytes_per_s
    assert find_gpu("H100-SXM-94GB").memory_bytes_per_s < find_gpu("H100-SXM-80GB").memory_bytes_per_s  # HBM2e
    assert find_gpu("B200").memory_bytes_per_s == find_gpu("B300").memory_bytes_per_s == 7.7e12
    assert (find_gpu("B200").sm_count, find_gpu("GB200").sm_count) == (148, 152)
    assert find_gpu("A10G").bf16_flops < find_gpu("A10").bf16_flops
    assert find_gpu("RTX 5090").bf16_flops == 209.5e12  # FP32 accumulation; 419 is with FP16


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


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("RTX3090", "RTX-3090-24GB"),
        ("GeForce RTX4090", "RTX-4090-24GB"),
        ("RTXA6000", "A6000-48GB"),
        ("RTX6000Ada", "RTX-6000-ADA-48GB"),
        ("H100-80G", "H100-SXM-80GB"),
        ("A100 40G PCIE", "A100-PCIe-40GB"),
        ("A100 80GB SXM4", "A100-SXM-80GB"),
        ("H100 80GB PCIe", "H100-PCIe-80GB"),
    ],
)
def test_glued_words_short_units_and_the_size_anywhere(written, name):
    assert find_gpu(written).name == name
