"""This machine's box: through NVML when its library is here, else through the nvidia-smi program."""

from dataclasses import dataclass
from itertools import combinations
from types import ModuleType
from typing import Any

import pynvml

from atoll.errors import BadTopology, CommandFailed, MissingProgram
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.cards import name_card
from atoll.inventory.parse import parse_box
from atoll.outside.shell import Shell

_QUERY = ("nvidia-smi", "--query-gpu=index,name,memory.total,uuid,pci.bus_id", "--format=csv")
_WORDS_OF_64_CPUS = 64  # room for 4096 CPUs or NUMA nodes


def probe_box(shell: Shell, *, nvml: ModuleType | Any = pynvml) -> Box:
    """The GPUs of this machine.

    Args:
        shell: runs nvidia-smi where NVML does not answer.
        nvml: nvidia-ml-py's module, or a stand-in for it.

    Raises:
        MissingProgram: neither NVML nor nvidia-smi is here.
        CommandFailed: nvidia-smi is here and found no working driver.
        BadTopology: nvidia-smi's output cannot be read with certainty.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return _ask_nvidia_smi(shell)
    try:
        return _ask_nvml(nvml)
    except nvml.NVMLError:
        return _ask_nvidia_smi(shell)
    finally:
        nvml.nvmlShutdown()


def _ask_nvidia_smi(shell: Shell) -> Box:
    if shell.which("nvidia-smi") is None:
        raise MissingProgram(
            "There is no NVIDIA driver on this machine; give a capture of `nvidia-smi topo -m` from the box you mean,"
            " or --gpu NAME --gpus N."
        )
    try:
        topology = shell.run(["nvidia-smi", "topo", "-m"]).check().stdout
    except CommandFailed as error:
        raise CommandFailed(f"nvidia-smi cannot show the topology of this machine: {error}") from None
    cards = shell.run(list(_QUERY))
    return parse_box(f"{topology}\n\n{cards.stdout if cards.exit_code == 0 else ''}", origin="this machine")


def _ask_nvml(nvml: Any) -> Box:
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if not handles:
        raise BadTopology("this machine: the NVIDIA driver is here, but it sees no GPU.")
    gpus = tuple(_read_gpu(nvml, index, handle) for index, handle in enumerate(handles))
    cards = [_Card(handle, _bus_of(nvml, handle), _read_wires(nvml, handle)) for handle in handles]
    pairs = combinations(enumerate(cards), 2)
    return Box(gpus=gpus, links=tuple(_read_link(nvml, a, b, one, other) for (a, one), (b, other) in pairs))


@dataclass(frozen=True)
class _Card:
    """A card as NVML holds it: its handle, its PCI bus id, and the far end of each active NVLink."""

    handle: Any
    bus: str
    wires: list[str]


def _read_gpu(nvml: Any, index: int, handle: Any) -> Gpu:
    name, memory = name_card(_text(nvml.nvmlDeviceGetName(handle)), nvml.nvmlDeviceGetMemoryInfo(handle).total)
    return Gpu(
        index=index,
        name=name,
        memory_bytes=memory,
        numa_node=_read_numa(nvml, handle),
        cpu_affinity=_read_cpus(nvml, handle),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        pci_bus_id=_bus_of(nvml, handle),
    )


def _read_link(nvml: Any, a: int, b: int, one: _Card, other: _Card) -> Link:
    nvlinks = _count_nvlinks(nvml, one, other)
    if nvlinks:
        return Link(a=a, b=b, kind=LinkKind.NV, nvlinks=nvlinks)
    level = nvml.nvmlDeviceGetTopologyCommonAncestor(one.handle, other.handle)
    kinds = {
        nvml.NVML_TOPOLOGY_INTERNAL: LinkKind.PIX,  # two GPUs of one board
        nvml.NVML_TOPOLOGY_SINGLE: LinkKind.PIX,
        nvml.NVML_TOPOLOGY_MULTIPLE: LinkKind.PXB,
        nvml.NVML_TOPOLOGY_HOSTBRIDGE: LinkKind.PHB,
        nvml.NVML_TOPOLOGY_NODE: LinkKind.NODE,
        nvml.NVML_TOPOLOGY_SYSTEM: LinkKind.SYS,
    }
    return Link(a=a, b=b, kind=kinds.get(level, LinkKind.SYS))


def _read_wires(nvml: Any, handle: Any) -> list[str]:
    """The far end of each active NVLink of a card: the other card's PCI bus id, or `switch`."""
    wires = []
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        try:
            if nvml.nvmlDeviceGetNvLinkState(handle, link):
                wires.append(_far_end(nvml, handle, link))
        except nvml.NVMLError:
            continue  # this card has no link of that number
    return wires


def _far_end(nvml: Any, handle: Any, link: int) -> str:
    if nvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link) == nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
        return "switch"
    return _bus(_text(nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId))


def _count_nvlinks(nvml: Any, one: _Card, other: _Card) -> int:
    """NVLinks between two cards: those wired to each other, or as many as both have to a switch that joins them."""
    direct = one.wires.count(other.bus)
    through_switch = min(one.wires.count("switch"), other.wires.count("switch"))
    if direct or not through_switch:
        return direct
    status = nvml.nvmlDeviceGetP2PStatus(one.handle, other.handle, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
    return through_switch if status == nvml.NVML_P2P_STATUS_OK else 0


def _read_numa(nvml: Any, handle: Any) -> int | None:
    try:
        nodes = _numbers(nvml.nvmlDeviceGetMemoryAffinity(handle, _WORDS_OF_64_CPUS, nvml.NVML_AFFINITY_SCOPE_NODE))
    except nvml.NVMLError:
        return None
    return nodes[0] if len(nodes) == 1 else None


def _read_cpus(nvml: Any, handle: Any) -> str | None:
    try:
        return _ranges(_numbers(nvml.nvmlDeviceGetCpuAffinity(handle, _WORDS_OF_64_CPUS)))
    except nvml.NVMLError:
        return None


def _numbers(words: Any) -> list[int]:
    """The bits that are set in words of 64, lowest first."""
    return [64 * place + bit for place, word in enumerate(words) for bit in range(64) if word >> bit & 1]


def _ranges(numbers: list[int]) -> str | None:
    """`0-31,64-95`, as nvidia-smi writes it."""
    starts = [number for number in numbers if number - 1 not in numbers]
    stops = [number for number in numbers if number + 1 not in numbers]
    return ",".join(f"{a}-{b}" if a != b else str(a) for a, b in zip(starts, stops, strict=True)) or None


def _bus_of(nvml: Any, handle: Any) -> str:
    return _bus(_text(nvml.nvmlDeviceGetPciInfo(handle).busId))


def _bus(text: str) -> str:
    """PCI bus ids come with a domain of four or of eight digits."""
    domain, _, rest = text.strip("\0 ").lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
