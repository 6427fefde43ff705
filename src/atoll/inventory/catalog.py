"""Known GPU kinds, from data/gpus.toml, and boxes made of them when there is no capture."""

import difflib
import re
import tomllib
from functools import cache
from importlib import resources
from typing import Any, Literal

from pydantic import Field

from atoll.documents import Document
from atoll.errors import InputError, UnknownGpu
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.units import MIB

Fabric = Literal["nvswitch", "mesh", "bridge", "none"]

# What a DGX-1 prints (capture 045-dgx1-v100-8gpu-nic-order-0213): the pairs that NVLink joins, and by how many on a
# V100. A P100 has one link on each of the same pairs (capture 072-dgx1-p100-8gpu-glued-header).
_CUBE_MESH = {
    (0, 1): 1, (0, 2): 1, (0, 3): 2, (0, 4): 2, (1, 2): 2, (1, 3): 1, (1, 5): 2, (2, 3): 2,
    (2, 6): 1, (3, 7): 1, (4, 5): 1, (4, 6): 1, (4, 7): 2, (5, 6): 2, (5, 7): 1, (6, 7): 2,
}  # fmt: skip
MOST_BOX_GPUS = 16
_RACK_GPUS, _RACK_KINDS = 72, ("GB200-", "GB300-")  # GB200 NVL72: 18 trays of 4 (NVIDIA)


class GpuKind(Document):
    """What a maker's data sheet says of a card. Rates are dense (no sparsity), in one direction where it matters."""

    name: str  # H100-NVL-94GB
    aliases: tuple[str, ...] = ()  # what nvidia-smi and people write, matched without case, blanks and dashes
    architecture: str  # volta, ampere, ada, hopper, blackwell, turing
    compute_capability: str  # "9.0"
    memory_bytes: int = Field(gt=0)  # as the driver reports it
    memory_bytes_per_s: float = Field(gt=0)
    bf16_flops: float = Field(gt=0)  # fp16 where a card has no bf16 (V100)
    fp8_flops: float | None = None
    int8_ops: float | None = None
    sm_count: int | None = None
    nvlink_generation: int | None = None
    nvlinks: int = 0  # links of one card
    nvlink_bytes_per_s: float = 0.0  # of one link, one direction
    fabric: Fabric = "none"  # how such cards are joined when no capture tells
    pcie_generation: int = 4
    pcie_lanes: int = 16
    pcie_peer_to_peer: bool = True  # False where the stock driver refuses P2P over PCIe (GeForce)
    power_watts: int | None = None
    timed: bool = True  # False: its memory is known, and nothing of how long a step takes on it
    source: str  # where these figures were read

    @property
    def has_bfloat16(self) -> bool:
        """From Ampere on (compute capability 8.0)."""
        return float(self.compute_capability) >= 8.0

    @property
    def is_slice(self) -> bool:
        """A MIG instance, which reaches no other (MIG User Guide, "Application Considerations")."""
        return "-MIG-" in self.name

    @property
    def has_fp8(self) -> bool:
        """From Ada on (compute capability 8.9)."""
        return float(self.compute_capability) >= 8.9


@cache
def all_gpus() -> tuple[GpuKind, ...]:
    """Every kind of the catalogue, in the order of data/gpus.toml."""
    text = resources.files("atoll").joinpath("data/gpus.toml").read_text(encoding="utf-8")
    return tuple(_read_kind(row) for row in tomllib.loads(text)["gpu"])


def find_gpu(name: str, *, memory_bytes: int | None = None) -> GpuKind:
    """The kind that a name means, whoever wrote it: the catalogue, nvidia-smi or a person.

    Case, blanks, dashes, maker's words (NVIDIA, Tesla, GeForce, RTX) and the numbers of SXM sockets do not matter.
    `H100 MIG 3g.40gb` is a slice of that card, as `nvidia-smi -L` calls it.
    A bare name means the variant that most boxes have where one is that common (`H100` is H100-SXM-80GB, `A100` is
    A100-SXM-80GB) and is refused where none is (`V100`). `memory_bytes`, when the driver tells it, decides between
    variants of one name.

    Raises:
        UnknownGpu: no such kind, or a name that several share; the sentence names the nearest ones.
    """
    part = _MIG.search(name)
    if part is not None:
        return _mig_slice(find_gpu(name[: part.start()]), int(part["slices"]), int(part["gb"]))
    key = _key(name)
    kind = _by_key().get(key)
    if kind is not None and (memory_bytes is None or _has_memory(kind, memory_bytes)):
        return kind
    variants = [other for other in all_gpus() if key and _is_variant(other, key)]
    if memory_bytes is not None:
        fitting = [other for other in variants if _has_memory(other, memory_bytes)]
        if len(fitting) == 1 or (fitting and kind is not None):
            return fitting[0]
    if kind is not None:
        return kind
    raise UnknownGpu(_sentence(name, variants))


# `NVIDIA H100 80GB HBM3 MIG 3g.40gb`; nvidia-smi -L puts the profile alone under its card.
_MIG = re.compile(r"[\s-]*\bMIG[\s-]+(?P<slices>[1-7])g[.-](?P<gb>\d{1,3})gb.*", re.IGNORECASE)


def _mig_slice(whole: GpuKind, slices: int, gb: int) -> GpuKind:
    """A slice as a card of its own: sevenths of the SMs, eighths of the memory and of its bandwidth, no links.

    Source: NVIDIA Multi-Instance GPU User Guide, chapter on profiles: 3g.40gb of an H100-80GB is 3 of 7 compute slices
    and 4 of 8 memory slices.
    """
    eighths = max(1, min(8, round(8 * gb * 1e9 / whole.memory_bytes)))
    share = slices / 7
    return whole.replace(
        name=f"{whole.name}-MIG-{slices}g.{gb}gb",
        aliases=(),
        memory_bytes=whole.memory_bytes * eighths // 8,
        memory_bytes_per_s=whole.memory_bytes_per_s * eighths / 8,
        bf16_flops=whole.bf16_flops * share,
        fp8_flops=whole.fp8_flops and whole.fp8_flops * share,
        int8_ops=whole.int8_ops and whole.int8_ops * share,
        sm_count=whole.sm_count and int(whole.sm_count * share),
        nvlink_generation=None,
        nvlinks=0,
        nvlink_bytes_per_s=0.0,
        fabric="none",
        pcie_peer_to_peer=False,
        source=f"{whole.source}; profile {slices}g.{gb}gb of the MIG User Guide",
    )


def is_rack(name: str) -> bool:
    """Whether cards of this kind come as a rack that one NVSwitch joins; raises UnknownGpu."""
    return find_gpu(name).name.startswith(_RACK_KINDS)


def make_box(kind_name: str, n: int) -> Box:
    """A box of `n` cards of one kind as such boxes are usually built; its notes say what was assumed.

    All joined through NVSwitch for SXM kinds, the DGX-1 cube mesh for V100 and P100 SXM up to 8, bridged pairs
    0-1, 2-3 ... for the NVL cards, PCIe for the rest. From four cards on, each half hangs on a NUMA node of its own.

    Raises:
        UnknownGpu: no such kind.
        InputError: n is not 1 to 16, or 72 for the kinds of an NVL72 rack, whose NVSwitch joins all of them.
    """
    kind = find_gpu(kind_name)
    most = _RACK_GPUS if is_rack(kind_name) else MOST_BOX_GPUS
    if not 1 <= n <= most:
        raise InputError(
            f"A box of {kind.name} has 1 to {most} GPUs, not {n}; several boxes are a fleet: `atoll plan --boxes N`."
        )
    gpus = tuple(
        Gpu(index=index, name=kind.name, memory_bytes=kind.memory_bytes, numa_node=_half(index, n))
        for index in range(n)
    )
    links = tuple(_usual_link(kind, a, b, n) for a in range(n) for b in range(a + 1, n))
    return Box(gpus=gpus, links=links, notes=_assumptions(kind, n))


def _half(index: int, n: int) -> int:
    return int(n >= 4 and index >= (n + 1) // 2)


def _usual_link(kind: GpuKind, a: int, b: int, n: int) -> Link:
    nvlinks = _usual_nvlinks(kind, a, b, n)
    if nvlinks:
        return Link(a=a, b=b, kind=LinkKind.NV, nvlinks=nvlinks)
    if _half(a, n) != _half(b, n):
        return Link(a=a, b=b, kind=LinkKind.SYS)
    return Link(a=a, b=b, kind=LinkKind.PHB if n < 4 else LinkKind.NODE)


def _usual_nvlinks(kind: GpuKind, a: int, b: int, n: int) -> int:
    if kind.fabric == "nvswitch" or (kind.fabric == "mesh" and n > 8):
        return kind.nvlinks
    if kind.fabric == "mesh":
        return min(_CUBE_MESH.get((a, b), 0), 1 if kind.architecture == "pascal" else 2)
    if _is_nvl(kind):
        return kind.nvlinks if a // 2 == b // 2 else 0
    return 0


def _is_nvl(kind: GpuKind) -> bool:
    return "-NVL-" in kind.name


def _assumptions(kind: GpuKind, n: int) -> tuple[str, ...]:
    if n == 1:
        return ()
    start = f"No capture was given: {n} x {kind.name} are assumed to be"
    if kind.fabric == "nvswitch" or (kind.fabric == "mesh" and n > 8):
        return (f"{start} joined all to all through NVSwitch (NV{kind.nvlinks}).",)
    if kind.fabric == "mesh":
        return (f"{start} the first {n} of a DGX-1 cube mesh.",)
    if _is_nvl(kind):
        pairs = ", ".join(f"{first}-{first + 1}" for first in range(0, n - 1, 2))
        return (f"{start} bridged in pairs {pairs}; `nvidia-smi topo -m` shows which cards carry the bridges.",)
    if kind.fabric == "bridge":
        return (f"{start} without NVLink bridges, which this kind can have; `nvidia-smi topo -m` shows them.",)
    return (f"{start} on PCIe, half of them on each NUMA node.",) if n >= 4 else (f"{start} on PCIe.",)


def _read_kind(row: dict[str, Any]) -> GpuKind:
    generation, links, gb_per_s = row.get("nvlink", (None, 0, 0.0))
    return GpuKind(
        name=row["name"],
        aliases=tuple(row.get("aliases", ())),
        architecture=row["architecture"],
        compute_capability=row["compute_capability"],
        memory_bytes=row["memory_mib"] * MIB,
        memory_bytes_per_s=row["memory_gb_per_s"] * 1e9,
        bf16_flops=row["bf16_tflops"] * 1e12,
        fp8_flops=_tera(row.get("fp8_tflops")),
        int8_ops=_tera(row.get("int8_tops")),
        sm_count=row.get("sm_count"),
        nvlink_generation=generation,
        nvlinks=links,
        nvlink_bytes_per_s=gb_per_s * 1e9,
        fabric=row["fabric"],
        pcie_generation=row["pcie_generation"],
        pcie_lanes=row.get("pcie_lanes", 16),
        pcie_peer_to_peer=row.get("peer_to_peer", True),
        power_watts=row.get("power_watts"),
        timed=row.get("timed", True),
        source=row["source"],
    )


def _tera(figure: float | None) -> float | None:
    return None if figure is None else figure * 1e12


def _key(name: str) -> str:
    """`NVIDIA H100 80GB HBM3`, `h100-80gb` and `H100 80 GiB` have one key."""
    text = name.lower().replace("gib", "gb").replace("graphics device", "")
    text = re.sub(r"\b(\d+)g\b", r"\1gb", re.sub(r"\brtx(?=a?\d)", "rtx ", text))
    text = re.sub(r"\b(nvidia|tesla|geforce|quadro|rtx)\b|\(r\)|\(tm\)|[®™]", " ", text.replace("_", "-"))
    text = re.sub(r"hbm\de?", "", re.sub(r"sxm\d", "sxm", text))
    text = re.sub(r"\b(\d+) ?gb\b(.*)", r"\2 \1gb", text)  # "80GB PCIe" is "PCIe 80GB"
    return re.sub(r"[^a-z0-9]", "", text)


@cache
def _by_key() -> dict[str, GpuKind]:
    return {_key(text): kind for kind in all_gpus() for text in (*kind.aliases, kind.name)}


def _is_variant(kind: GpuKind, key: str) -> bool:
    """Whether the key is the start of one of the kind's names, and not of a longer number (A1 is no A100)."""
    names = [_key(text) for text in (kind.name, *kind.aliases)]
    longer = r"(?!\d)" if key[-1].isdigit() else ""
    return any(re.match(re.escape(key) + longer, text) for text in names)


def _has_memory(kind: GpuKind, memory_bytes: int) -> bool:
    """Drivers report a few per cent less or more from release to release."""
    return abs(kind.memory_bytes - memory_bytes) <= 0.04 * kind.memory_bytes


def _sentence(name: str, variants: list[GpuKind]) -> str:
    if variants:
        return f"{name!r} could be {_any_of([kind.name for kind in variants])}; say which one."
    near = difflib.get_close_matches(_key(name), list(_by_key()), n=8, cutoff=0.5)
    names = list(dict.fromkeys(_by_key()[key].name for key in near))[:3]
    hint = f"the nearest names are {_any_of(names)}" if names else "names look like H100-SXM-80GB or RTX-4090-24GB"
    return f"There is no GPU {name!r} in the catalogue; {hint}."


def _any_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]
