"""Seconds to reduce bytes over the links that a group of GPUs really crosses, by the path that vLLM really takes.

Which path: `vllm/distributed/device_communicators/{cuda_communicator,custom_all_reduce}.py`, read in 0.32.0. The custom
kernel needs two GPUs, or NVLink between every two of the group; multicast (NVLS, symmetric memory) needs NVSwitch;
everything else is an NCCL ring, as fast as the slowest hop in it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from math import exp, log

from atoll.inventory.box import Box, Link, LinkKind
from atoll.inventory.catalog import GpuKind


class Hop(StrEnum):
    """The slowest thing between two GPUs of a group."""

    NONE = "none"  # a group of one
    NVSWITCH = "nvswitch"
    NVLINK = "nvlink"  # a bridge or a mesh
    PCIE = "pcie"  # peer to peer inside one NUMA node
    PCIE_FAR = "pcie_far"  # peer to peer across NUMA nodes
    HOST = "host"  # no peer access: through the host's memory


class ReducePath(StrEnum):
    """Who does the all-reduce."""

    NONE = "none"
    CUSTOM = "custom"  # vLLM's kernel, or FlashInfer's where that is the default; both are one- or two-shot pushes
    NVLS = "nvls"  # multicast in the switch, torch symmetric memory or NCCL
    NCCL = "nccl"
    FLASHINFER = "flashinfer"  # TRT-LLM's kernel forced over PCIe


CUSTOM_LIMIT = 8 * 2**20  # bytes, custom_all_reduce.py max_size
PCIE_LANE_BYTES = {3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}  # PCI-SIG, one lane, one direction, after encoding
# Share of the PCIe rate that peer copies reach: 53-56 of 63 GB/s inside a node, 39-51 across (rtx6kpro,
# hardware/pcie-bandwidth.md, PCIe 5 x16).
PCIE_SHARE = {Hop.PCIE: 0.865, Hop.PCIE_FAR: 0.71}
# Through host memory every byte crosses PCIe twice and the CPU's memory between: taken as half of the near rate.
HOST_SHARE = 0.43
FLASHINFER_OVER_PCIE = 10.0  # times NCCL: ITL p50 259 ms against 25 ms, 4x H100 NVL, c = 32 (vllm#48075)


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Measured points (bytes, seconds), sizes rising; between them log-log, beyond the last at its rate."""

    points: tuple[tuple[float, float], ...]
    source: str = ""

    def seconds(self, size: float) -> float:
        """Seconds for a message of `size` bytes; a smaller one than measured takes as long as the smallest."""
        points = self.points
        if size <= points[0][0]:
            return points[0][1]
        if size >= points[-1][0]:
            return points[-1][1] * size / points[-1][0]
        place = bisect_right(points, (size, float("inf"))) - 1
        (a, s), (b, t) = points[place], points[place + 1]
        return exp(log(s) + (log(t) - log(s)) * (log(size) - log(a)) / (log(b) - log(a)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """How a group of GPUs is joined: its size, its slowest hop, and that hop's rate in bytes/s, one direction."""

    ranks: int
    hop: Hop
    bytes_per_s: float
    full_nvlink: bool


def describe_group(box: Box | None, gpus: Sequence[int], kind: GpuKind, *, ranks: int | None = None) -> Group:
    """What the group crosses, from the box's own matrix; without a box, the best links that this kind can have.

    Args:
        box: the links; None when only the kind of card is known.
        gpus: indices in the box.
        kind: the card.
        ranks: size of the group when there is no box.
    """
    size = len(gpus) if box is not None else (ranks or 1)
    if size == 1:
        return Group(ranks=1, hop=Hop.NONE, bytes_per_s=float("inf"), full_nvlink=True)
    if box is None:
        return _group_of_kind(kind, size)
    links = [box.link(a, b) for a, b in combinations(gpus, 2)]
    hops = [_hop(link, box, kind) for link in links]
    slowest = min(hops, key=lambda pair: (pair[1], -list(Hop).index(pair[0])))
    return Group(
        ranks=size, hop=slowest[0], bytes_per_s=slowest[1], full_nvlink=all(link.nvlinks > 0 for link in links)
    )


def _group_of_kind(kind: GpuKind, ranks: int) -> Group:
    if has_nvswitch(kind):
        rate = kind.nvlinks * kind.nvlink_bytes_per_s
        return Group(ranks=ranks, hop=Hop.NVSWITCH, bytes_per_s=rate, full_nvlink=True)
    hop, rate = _pcie(kind, LinkKind.NODE)
    return Group(ranks=ranks, hop=hop, bytes_per_s=rate, full_nvlink=False)


def has_nvswitch(kind: GpuKind) -> bool:
    """SXM cards of Ampere and later sit on NVSwitch; their names say SXM (or are B200, GB200, H20)."""
    words = kind.name.upper()
    return kind.nvlinks > 0 and (
        ("SXM" in words and kind.architecture != "volta") or words.startswith(("B200", "B300", "GB", "H20-", "H20"))
    )


def _hop(link: Link, box: Box, kind: GpuKind) -> tuple[Hop, float]:
    if link.kind is LinkKind.NV:
        rate = max(1, link.nvlinks) * (kind.nvlink_bytes_per_s or 25e9)
        # Every pair showing all of the card's links is only possible through a switch (or between two cards alone).
        switched = has_nvswitch(kind) or (len(box.gpus) > 2 and 0 < kind.nvlinks <= link.nvlinks)
        return (Hop.NVSWITCH if switched else Hop.NVLINK), rate
    return _pcie(kind, link.kind)


def _pcie(kind: GpuKind, path: LinkKind) -> tuple[Hop, float]:
    rate = PCIE_LANE_BYTES.get(kind.pcie_generation, PCIE_LANE_BYTES[4]) * kind.pcie_lanes
    if not kind.pcie_peer_to_peer:
        return Hop.HOST, rate * HOST_SHARE
    hop = Hop.PCIE_FAR if path is LinkKind.SYS else Hop.PCIE
    return hop, rate * PCIE_SHARE[hop]


@dataclass(frozen=True, kw_only=True, slots=True)
class AllReduce:
    """Seconds of one all-reduce of a group. `measured` (from calibration) replaces the catalogue's curves."""

    group: Group
    architecture: str = "hopper"
    engine_version: str = "0.32.0"
    override: ReducePath | None = None
    measured: Curve | None = None

    def path(self, size: float) -> ReducePath:
        """Who reduces a message of `size` bytes."""
        group = self.group
        if group.ranks == 1:
            return ReducePath.NONE
        if self.override is not None:
            return self.override
        custom = (group.ranks == 2 or group.full_nvlink) and group.ranks in {2, 4, 6, 8, 16}
        if custom and group.hop is not Hop.HOST and size < CUSTOM_LIMIT:
            return ReducePath.CUSTOM
        return ReducePath.NVLS if group.hop is Hop.NVSWITCH else ReducePath.NCCL

    def seconds(self, size: float, *, graph: bool = True) -> float:
        """Seconds on the GPU for `size` bytes on every rank; `graph`: launched inside a CUDA graph."""
        if self.group.ranks == 1:
            return 0.0
        if self.measured is not None:
            return self.measured.seconds(size)
        path = self.path(size)
        floor = _FLOOR_S[path] if graph or path is ReducePath.NCCL else _EAGER_FLOOR_S
        slow = FLASHINFER_OVER_PCIE if path is ReducePath.FLASHINFER and not self.group.full_nvlink else 1.0
        return slow * (floor + wire_bytes(size, self.group.ranks, path) / (self.group.bytes_per_s * _RATE_SHARE[path]))


# First estimates: floors of 3.3 µs (custom, H100, CUDA graph), 11 µs (NCCL), 24 µs (eager) and the share of the wire
# that large messages reach, from the vLLM and NCCL tables of the aiconfigurator-core 0.12.0 wheel (Apache-2.0).
_FLOOR_S = {
    ReducePath.CUSTOM: 3.5e-6,
    ReducePath.NVLS: 6e-6,
    ReducePath.NCCL: 15e-6,
    ReducePath.FLASHINFER: 4e-6,
    ReducePath.NONE: 0.0,
}
_EAGER_FLOOR_S = 24e-6
_RATE_SHARE = {
    ReducePath.CUSTOM: 0.6,
    ReducePath.NVLS: 0.8,
    ReducePath.NCCL: 0.8,
    ReducePath.FLASHINFER: 0.7,
    ReducePath.NONE: 1.0,
}


def wire_bytes(size: float, ranks: int, path: ReducePath) -> float:
    """Bytes that cross one GPU's link, one direction: all of the message for two ranks, 2 (n - 1) / n for a ring."""
    if path is ReducePath.NVLS:
        return size  # the switch adds and multicasts
    return 2 * (ranks - 1) / ranks * size
