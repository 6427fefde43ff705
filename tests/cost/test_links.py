"""Which path reduces, and how long it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.cost.links import AllReduce, Hop, ReducePath, TransferCurve, describe_group, wire_bytes
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.catalog import find_gpu, make_box

MIB = 2**20


def reduce_over(name, count, gpus, **rest):
    kind = find_gpu(name)
    return AllReduce(
        group=describe_group(make_box(kind.name, count), gpus, kind),
        architecture=kind.architecture,
        **{"engine_version": (0, 32, 0), **rest},
    )


def test_a_bridged_pair_takes_the_custom_kernel_and_nccl_from_8_mib_on():
    pair = reduce_over("H100 NVL", 4, (0, 1))
    assert pair.group.hop is Hop.NVLINK
    assert [pair.path(size) for size in (64 * 1024, 8 * MIB - 1, 8 * MIB)] == [
        ReducePath.CUSTOM,
        ReducePath.CUSTOM,
        ReducePath.NCCL,
    ]


def test_two_bridged_pairs_fall_back_to_nccl_over_pcie():
    # custom_all_reduce.py: more than two GPUs need NVLink between every two of them.
    four = reduce_over("H100 NVL", 4, (0, 1, 2, 3))
    assert four.group.mixed
    assert four.path(64 * 1024) is ReducePath.NCCL


def test_behind_a_switch_multicast_takes_over_from_the_custom_kernel():
    four = reduce_over("H100", 8, (0, 1, 2, 3))
    assert four.group.hop is Hop.NVSWITCH
    assert (four.path(MIB), four.path(16 * MIB)) == (ReducePath.CUSTOM, ReducePath.NVLS)
    assert reduce_over("A100", 8, range(4)).path(16 * MIB) is ReducePath.NCCL  # its switch cannot multicast


def test_cards_without_peer_access_go_through_host_memory():
    pair = reduce_over("RTX 4090", 2, (0, 1))
    assert (pair.group.hop, pair.path(1024)) == (Hop.HOST, ReducePath.NCCL)


def test_a_dgx1_mesh_has_a_ring_though_not_every_two_are_joined():
    mesh = describe_group(make_box("V100-SXM-32GB", 8), range(8), find_gpu("V100-SXM-32GB"))
    assert (mesh.hop, mesh.full_nvlink, mesh.ring, mesh.mixed) == (Hop.NVLINK, False, True, False)
    assert mesh.bytes_per_s == 6 * 25e9


@pytest.mark.parametrize(
    ("name", "count", "gpus", "microseconds", "tolerance"),
    [
        ("H100 NVL", 4, (0, 1), 352, 0.08),  # Vidur h100_pairwise_nvlink, one pair
        ("H100 NVL", 4, (0, 1, 2, 3), 2063, 0.15),  # Vidur h100_pairwise_nvlink, two pairs
        ("H100", 8, (0, 1, 2, 3), 318, 0.05),  # Vidur h100_dgx
        ("A100", 8, (0, 1, 2, 3), 603, 0.15),  # Vidur a100_dgx
        ("H100", 8, range(8), 322, 0.08),  # Vidur h100_dgx
    ],
)
def test_reduces_of_64_mib_take_what_others_measured(name, count, gpus, microseconds, tolerance):
    assert reduce_over(name, count, gpus).seconds(64 * MIB) == pytest.approx(microseconds * 1e-6, rel=tolerance)


def test_small_reduces_in_a_graph_take_what_the_tables_say():
    # H100 SXM, vLLM 0.31, 32 KiB: 3.3 / 3.5 / 3.8 µs on 2 / 4 / 8 GPUs.
    times = [reduce_over("H100", 8, range(n)).seconds(32 * 1024) * 1e6 for n in (2, 4, 8)]
    assert times == pytest.approx([3.3, 3.5, 3.8], abs=0.15)
    older = reduce_over("H100", 8, range(2), engine_version=(0, 12, 0)).seconds(32 * 1024) * 1e6
    assert older == pytest.approx(4.5, abs=0.2)


@given(size=st.floats(1e3, 1e9), more=st.floats(1.01, 10))
def test_more_bytes_never_take_less(size, more):
    for one in (reduce_over("H100 NVL", 4, range(4)), reduce_over("H100", 8, range(4))):
        assert one.seconds(size * more) >= 0.999 * one.seconds(size)


@given(size=st.floats(1e4, 1e8))
def test_slower_links_never_reduce_faster(size):
    switch, pairs = reduce_over("H100", 4, range(4)), reduce_over("H100 NVL", 4, range(4))
    assert switch.seconds(size) <= pairs.seconds(size)


def test_a_measured_curve_replaces_the_catalogue():
    curve = TransferCurve(points=((1024.0, 5e-6), (1024.0 * 1024, 50e-6)))
    measured = reduce_over("H100 NVL", 4, range(4), measured=curve)
    assert measured.seconds(1024) == 5e-6
    assert measured.seconds(2 * MIB) == pytest.approx(100e-6)  # beyond the last point at its rate
    assert measured.seconds(32 * 1024) == pytest.approx(15.8e-6, rel=0.01)  # log-log between


def test_flashinfer_forced_over_pcie_is_as_bad_as_reported():
    normal = reduce_over("H100 NVL", 4, range(4))
    forced = reduce_over("H100 NVL", 4, range(4), override=ReducePath.FLASHINFER)
    assert forced.seconds(300_000) == pytest.approx(10 * normal.seconds(300_000))


def test_without_peer_access_a_pair_of_any_card_takes_as_long_as_the_host():
    through_host = reduce_over("H100 PCIe", 2, (0, 1), override=ReducePath.HOST)
    assert through_host.seconds(64 * 1024) > 2 * reduce_over("H100 PCIe", 2, (0, 1)).seconds(64 * 1024)
    fast = reduce_over("H100 PCIe", 2, (0, 1), override=ReducePath.HOST, host_bytes_per_s=60e9)
    assert fast.seconds(16 * MIB) < through_host.seconds(16 * MIB)


def test_the_measured_release_nearest_to_the_engine_counts():
    # H100 SXM was measured under 0.14, 0.19, 0.24 and 0.31; 8 MiB over eight took 77 and 51 µs in the first two.
    eight = {v: reduce_over("H100", 8, range(8), engine_version=(0, v)).seconds(8 * MIB) for v in (12, 14, 16, 18, 19)}
    assert eight[12] == eight[14] == eight[16] == pytest.approx(77.26e-6)
    assert eight[18] == eight[19] == pytest.approx(50.71e-6)


def test_a_ring_moves_twice_n_minus_one_over_n_of_the_message():
    assert [wire_bytes(100, n) for n in (2, 4, 8)] == [100, 150, 175]


def test_one_gpu_reduces_nothing():
    assert reduce_over("H100", 8, (3,)).seconds(MIB) == 0


def test_across_numa_nodes_is_slower_than_inside():
    kind = find_gpu("L40S")

    def pair(link):
        box = Box(gpus=(Gpu(index=0), Gpu(index=1)), links=(Link(a=0, b=1, kind=link),))
        return AllReduce(
            group=describe_group(box, (0, 1), kind), architecture=kind.architecture, engine_version=(0, 32, 0)
        )

    assert pair(LinkKind.PIX).group.bytes_per_s > pair(LinkKind.SYS).group.bytes_per_s
