"""Seconds to reduce bytes over the links that a group of GPUs really crosses, by the path that vLLM really takes.

Which path: `vllm/distributed/device_communicators/{cuda_communicator,custom_all_reduce}.py`, read in 0.32.0. The custom
kernel needs two GPUs, or NVLink between every two of the group; multicast (NVLS, symmetric memory) needs NVSwitch;
everything else is an NCCL ring, as fast as the slowest hop in it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise, permutations
from math import exp, log

from packaging.version import Version

from atoll.cost.kernels import load_table
from atoll.cost.overheads import shipped_overheads
from atoll.engines.engine import Release
from atoll.engines.spec import EngineSpec
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
    HOST = "host"  # NCCL through the host's memory: NCCL_P2P_DISABLE=1, or a virtual machine that hides peer access


CUSTOM_LIMIT = 8 * 2**20  # bytes, custom_all_reduce.py max_size
PCIE_LANE_BYTES = {3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}  # PCI-SIG, one lane, one direction, after encoding
# Share of the PCIe rate that peer copies reach: 53-56 of 63 GB/s inside a node, 39-51 across (rtx6kpro,
# hardware/pcie-bandwidth.md, PCIe 5 x16); 4x RTX 4090 with P2P reach 25.8 of 31.5 GB/s in an all-reduce
# (tinygrad/open-gpu-kernel-modules#36).
PCIE_SHARE = {Hop.PCIE: 0.865, Hop.PCIE_FAR: 0.71}
HOST_REFERENCE = 27.3e9  # the L40S pair whose curve is taken has peer access: 0.865 of PCIe 4 x16
FLASHINFER_OVER_PCIE = 10.0  # times NCCL: ITL p50 259 ms against 25 ms, 4x H100 NVL, c = 32 (vllm#48075)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferCurve:
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
    full_nvlink: bool  # NVLink between every two
    ring: bool = False  # NVLink all the way round, though not between every two
    mixed: bool = False  # NVLink between some, PCIe between the others


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
    joined = [link for link in links if link.kind is LinkKind.NV]
    ring = len(joined) == len(links) or _has_ring(gpus, {(link.a, link.b) for link in joined})
    hop, rate = _nvlink(box, gpus, joined, kind) if ring else _slowest_pcie(links, kind)
    return Group(
        ranks=size,
        hop=hop,
        bytes_per_s=rate,
        full_nvlink=len(joined) == len(links),
        ring=ring,
        mixed=not ring and bool(joined),
    )


def _has_ring(gpus: Sequence[int], joined: set[tuple[int, int]]) -> bool:
    """Whether NCCL finds a ring over NVLink alone: the cube mesh of a DGX-1 has one, two bridged pairs have none."""
    if len(gpus) < 3 or len(gpus) > 8 or len(joined) < len(gpus):
        return False
    first, *others = sorted(gpus)
    for order in permutations(others):
        ring = (first, *order, first)
        if all((min(a, b), max(a, b)) in joined for a, b in pairwise(ring)):
            return True
    return False


def _group_of_kind(kind: GpuKind, ranks: int) -> Group:
    if has_nvswitch(kind):
        rate = kind.nvlinks * kind.nvlink_bytes_per_s
        return Group(ranks=ranks, hop=Hop.NVSWITCH, bytes_per_s=rate, full_nvlink=True, ring=True)
    hop, rate = _pcie(kind, LinkKind.NODE)
    return Group(ranks=ranks, hop=hop, bytes_per_s=rate, full_nvlink=False)


def has_nvswitch(kind: GpuKind) -> bool:
    """Whether boxes of this kind are built with NVSwitch."""
    return kind.nvlinks > 0 and kind.fabric == "nvswitch"


def _nvlink(box: Box, gpus: Sequence[int], joined: Sequence[Link], kind: GpuKind) -> tuple[Hop, float]:
    """Rings use all the links that a GPU has inside the group: 8 V100 with 6 links of 25 GB/s each reach 130 of 150."""
    one = kind.nvlink_bytes_per_s or 25e9
    # Every pair showing all of the card's links is only possible through a switch (or between two cards alone).
    if has_nvswitch(kind) or (len(box.gpus) > 2 and _all_links_everywhere(box, kind)):
        return Hop.NVSWITCH, max(1, joined[0].nvlinks) * one
    return Hop.NVLINK, one * min(sum(link.nvlinks or 1 for link in joined if gpu in {link.a, link.b}) for gpu in gpus)


def _slowest_pcie(links: Sequence[Link], kind: GpuKind) -> tuple[Hop, float]:
    return min((_pcie(kind, link.kind) for link in links if link.kind is not LinkKind.NV), key=lambda found: found[1])


def _all_links_everywhere(box: Box, kind: GpuKind) -> bool:
    return kind.nvlinks > 0 and all(link.nvlinks >= kind.nvlinks for link in box.links)


def _pcie(kind: GpuKind, path: LinkKind) -> tuple[Hop, float]:
    if not kind.pcie_peer_to_peer:
        return Hop.HOST, host_rate(kind)
    hop = Hop.PCIE_FAR if path is LinkKind.SYS else Hop.PCIE
    return hop, _pcie_rate(kind) * PCIE_SHARE[hop]


def _pcie_rate(kind: GpuKind) -> float:
    return PCIE_LANE_BYTES.get(kind.pcie_generation, PCIE_LANE_BYTES[4]) * kind.pcie_lanes


def host_rate(kind: GpuKind) -> float:
    """Bytes a second, one direction, between two cards of this kind by way of the host's memory."""
    return _pcie_rate(kind) * shipped_overheads().host_link_share


@dataclass(frozen=True, kw_only=True, slots=True)
class AllReduce:
    """Seconds of one all-reduce of a group. `measured` (from calibration) replaces the catalogue's curves."""

    group: Group
    architecture: str
    engine_version: Release
    override: ReducePath | None = None
    measured: TransferCurve | None = None
    host_bytes_per_s: float | None = None  # through host memory, where that is not the group's own hop

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
        return ReducePath.NVLS if group.hop is Hop.NVSWITCH and self.architecture in _NVLS else ReducePath.NCCL

    def seconds(self, size: float) -> float:
        """Seconds on the GPU for `size` bytes on every rank, launched inside a CUDA graph or far enough ahead."""
        if self.group.ranks == 1:
            return 0.0
        if self.measured is not None:
            return self.measured.seconds(size)
        path = self.path(size)
        if path is ReducePath.HOST:
            return _through_host(self.engine_version).seconds(size, self._over_host())
        slow = FLASHINFER_OVER_PCIE if path is ReducePath.FLASHINFER and not self.group.full_nvlink else 1.0
        reference = choose_reference(self.group, path, self.architecture, self.engine_version)
        return slow * reference.seconds(size, self.group)

    def _over_host(self) -> Group:
        rate = self.host_bytes_per_s or HOST_REFERENCE
        return Group(ranks=self.group.ranks, hop=Hop.HOST, bytes_per_s=rate, full_nvlink=False)


def tensor_groups(spec: EngineSpec) -> tuple[tuple[int, ...], ...]:
    """The GPUs of each tensor-parallel group of a replica: one a stage of its pipeline."""
    size = spec.tensor_parallel
    return tuple(spec.gpus[at : at + size] for at in range(0, len(spec.gpus), size)) or ((),)


def group_reduce(
    spec: EngineSpec,
    gpus: tuple[int, ...],
    *,
    override: ReducePath | None = None,
    measured: TransferCurve | None = None,
) -> AllReduce:
    """The all-reduce of one tensor-parallel group; () is a group of that kind with the best links that there are."""
    return AllReduce(
        group=describe_group(spec.box if gpus else None, gpus, spec.kind, ranks=spec.tensor_parallel),
        architecture=spec.kind.architecture,
        engine_version=spec.version,
        override=override,
        measured=measured,
        host_bytes_per_s=host_rate(spec.kind),
    )


_NVLS = {"hopper", "blackwell"}  # NVSwitch that can multicast


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A measured all-reduce and the links it ran over; another group differs by the wire time of its slowest hop."""

    curve: TransferCurve
    ranks: int
    bytes_per_s: float
    floor_s: float = 0.0

    def seconds(self, size: float, group: Group) -> float:
        """The measured time, plus what `group`'s wire takes longer; never less than half of it.

        Two H100 on a 300 GB/s bridge, 64 MiB: 255 µs (H100 SXM, NCCL 2.29) + 67.1 MB / 300 GB/s - 67.1 MB / 450 GB/s
        = 329 µs; Vidur measured 352.
        """
        measured = self.curve.seconds(size)
        slower = wire_bytes(size, group.ranks) / group.bytes_per_s - wire_bytes(size, self.ranks) / self.bytes_per_s
        hops = max(0, group.ranks - self.ranks) * self.floor_s
        return max(0.5 * measured, measured + slower) + hops


def choose_reference(group: Group, path: ReducePath, architecture: str, version: tuple[int, ...]) -> Reference:
    """The measured all-reduce that is nearest to what this group does."""
    if group.hop is Hop.NVSWITCH or (group.hop is Hop.NVLINK and (group.full_nvlink or group.ring)):
        system = {"hopper": "h100_sxm", "blackwell": "b200_sxm"}.get(architecture, "a100_sxm")
        rate = {"h100_sxm": 450e9, "b200_sxm": 900e9, "a100_sxm": 300e9}[system]
        name = "nccl" if path is ReducePath.NCCL and system != "b200_sxm" else "vllm"
        return _from_table(system, name, group.ranks, version, rate, per_rank_s=1e-6)
    if group.mixed:
        points = load_table("links")["hopper-pairs-4"]["points"]
        # 48.8 GB/s of bus bandwidth at 64 MiB is the ring's PCIe hop: 2 * 3 / 4 * 67.1 MB / 2063 µs.
        return Reference(curve=_curve(points), ranks=4, bytes_per_s=48.8e9, floor_s=3e-6)
    if group.hop is Hop.HOST:
        return _through_host(version)
    name = "vllm" if path is ReducePath.CUSTOM else "nccl"
    if architecture == "ada":  # an L40S box, PCIe 4: 19 GB/s of bus bandwidth for two, 5 for four, 1.5 for eight
        return _from_table("l40s", name, group.ranks, version, group.bytes_per_s)
    # An RTX PRO 6000 box, PCIe 5: 37 GB/s of bus bandwidth for two, 25-29 for four, 23 for eight.
    return _from_table(
        "rtx_pro_6000_server", name, group.ranks, version, PCIE_LANE_BYTES[5] * 16 * PCIE_SHARE[Hop.PCIE]
    )


def _through_host(version: tuple[int, ...]) -> Reference:
    """Every byte crosses PCIe twice and the CPU's memory between; each rank adds a hop of some 45 µs."""
    floor = shipped_overheads().host_link_floor_s
    pair = _from_table("l40s", "nccl", 2, version, HOST_REFERENCE)
    raised = tuple((size, seconds + floor) for size, seconds in pair.curve.points)
    return Reference(curve=TransferCurve(points=raised), ranks=2, bytes_per_s=HOST_REFERENCE, floor_s=floor / 2)


def _from_table(
    system: str, name: str, ranks: int, version: tuple[int, ...], rate: float, *, per_rank_s: float = 3e-6
) -> Reference:
    """The curve of the nearest measured number of ranks, of the release nearest to the engine's."""
    curves: dict[str, list[tuple[float, float]]] = load_table(system)["reduce"]
    size = min((2, 4, 8), key=lambda known: (abs(known - ranks), -known))
    keys = [key for key in curves if key.startswith(f"{name}-") and key.endswith(f"-{size}")]
    pick = min(keys, key=lambda key: (_apart(_version_of(key), version) if name == "vllm" else 0, _version_of(key)))
    return Reference(curve=_curve(curves[pick]), ranks=size, bytes_per_s=rate, floor_s=per_rank_s)


def _version_of(key: str) -> tuple[int, ...]:
    return Version(key.split("-")[1]).release


def _apart(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Minor releases between two versions of vLLM."""
    return abs((*one, 0, 0)[1] - (*other, 0, 0)[1])


def _curve(points: Sequence[Sequence[float]]) -> TransferCurve:
    return TransferCurve(points=tuple((float(size), us * 1e-6) for size, us in points))


def wire_bytes(size: float, ranks: int) -> float:
    """Bytes that cross one GPU's link, one direction, in a ring: 2 (n - 1) / n of the message; for two, all of it."""
    return 2 * (ranks - 1) / ranks * size
