# ruff: noqa: N802
"""This machine, with stand-ins for NVML and for the nvidia-smi program."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from atoll.errors import BadTopology, CommandFailed, MissingProgram
from atoll.inventory.box import LinkKind
from atoll.inventory.probe import probe_box
from atoll.outside.shell import Finished

CAPTURES = Path(__file__).parents[1] / "data" / "topo"


class NVMLError(Exception):
    pass


class StandInNvml:
    """NVML over a table: cards and who is wired to whom, as nvidia-ml-py gives it."""

    NVMLError = NVMLError
    NVML_NVLINK_MAX_LINKS = 18
    NVML_NVLINK_DEVICE_TYPE_GPU, NVML_NVLINK_DEVICE_TYPE_SWITCH = 0, 2
    NVML_TOPOLOGY_INTERNAL, NVML_TOPOLOGY_SINGLE, NVML_TOPOLOGY_MULTIPLE = 0, 10, 20
    NVML_TOPOLOGY_HOSTBRIDGE, NVML_TOPOLOGY_NODE, NVML_TOPOLOGY_SYSTEM = 30, 40, 50
    NVML_P2P_CAPS_INDEX_NVLINK, NVML_P2P_STATUS_OK, NVML_AFFINITY_SCOPE_NODE = 2, 0, 0

    def __init__(self, name: str, wires: dict[int, list[int | str]], *, mib: int, level=40, p2p=0, works=True):
        self.name, self.wires, self.mib, self.level, self.p2p, self.works = name, wires, mib, level, p2p, works
        self.open = 0

    def nvmlInit(self):
        if not self.works:
            raise NVMLError
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetCount(self):
        return len(self.wires)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, handle):
        return self.name

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=self.mib * 2**20)

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}"

    def nvmlDeviceGetPciInfo(self, handle):
        return SimpleNamespace(busId=f"00000000:{handle + 1}0:00.0".encode())

    def nvmlDeviceGetMemoryAffinity(self, handle, size, scope):
        return [1 << (handle // 2)] + [0] * (size - 1)

    def nvmlDeviceGetCpuAffinity(self, handle, size):
        return [0xFFFFFFFF, 0xFFFFFFFF] + [0] * (size - 2)

    def nvmlDeviceGetNvLinkState(self, handle, link):
        if link >= len(self.wires[handle]):
            raise NVMLError
        return 1

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle, link):
        return 2 if self.wires[handle][link] == "switch" else 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle, link):
        return SimpleNamespace(busId=f"0000:{self.wires[handle][link] + 1}0:00.0")

    def nvmlDeviceGetTopologyCommonAncestor(self, a, b):
        return self.level

    def nvmlDeviceGetP2PStatus(self, a, b, index):
        return self.p2p


class StandInShell:
    """Answers programs from a dict; what is not in it is not installed."""

    def __init__(self, answers: dict[str, Finished] | None = None):
        self.answers = answers or {}

    def which(self, program):
        return f"/usr/bin/{program}" if any(key.startswith(program) for key in self.answers) else None

    def run(self, argv, *, env=None, cwd=None, timeout_s=60.0, stdin=None):
        return next(answer for key, answer in self.answers.items() if " ".join(argv).startswith(key))


def said(text: str, code: int = 0) -> Finished:
    return Finished(argv=("nvidia-smi",), exit_code=code, stdout=text, stderr="")


NOTHING = StandInNvml("", {}, mib=1, works=False)


def test_bridged_pairs_are_read_from_their_wires():
    nvml = StandInNvml("NVIDIA H100 NVL", {0: [1] * 12, 1: [0] * 12, 2: [3] * 12, 3: [2] * 12}, mib=95830)
    box = probe_box(StandInShell(), nvml=nvml)
    assert {(link.a, link.b): link.nvlinks for link in box.links if link.nvlinks} == {(0, 1): 12, (2, 3): 12}
    assert box.link(0, 2).kind is LinkKind.NODE
    card = box.gpu(3)
    assert (card.name, card.memory_bytes, card.numa_node) == ("H100-NVL-94GB", 95830 * 2**20, 1)
    assert (card.cpu_affinity, card.uuid, card.pci_bus_id) == ("0-31,64-95", "GPU-3", "0000:40:00.0")
    assert nvml.open == 0


def test_cards_on_a_switch_reach_each_other_with_all_their_links():
    nvml = StandInNvml("NVIDIA H100 80GB HBM3", {index: ["switch"] * 18 for index in range(4)}, mib=81559)
    assert {link.nvlinks for link in probe_box(StandInShell(), nvml=nvml).links} == {18}


def test_cards_on_a_switch_that_is_not_up_are_joined_by_pcie():
    nvml = StandInNvml("NVIDIA H100 80GB HBM3", {0: ["switch"] * 18, 1: ["switch"] * 18}, mib=81559, p2p=5, level=50)
    assert probe_box(StandInShell(), nvml=nvml).link(0, 1).kind is LinkKind.SYS


def test_cards_without_nvlink_are_joined_by_their_pcie_path():
    nvml = StandInNvml("NVIDIA GeForce RTX 4090", {0: [], 1: []}, mib=24564, level=30)
    box = probe_box(StandInShell(), nvml=nvml)
    assert box.link(0, 1).kind is LinkKind.PHB
    assert box.gpu(0).name == "RTX-4090-24GB"


def test_without_nvml_the_program_is_asked():
    topology = (CAPTURES / "050-a100-4gpu-nv12-pairs-xeon-nvlinkp.txt").read_text()
    cards = "index, name, memory.total [MiB], uuid, pci.bus_id\n" + "".join(
        f"{i}, NVIDIA A100 80GB PCIe, 81920 MiB, GPU-{i}, 00000000:{i}1:00.0\n" for i in range(4)
    )
    shell = StandInShell({"nvidia-smi topo": said(topology), "nvidia-smi --query": said(cards)})
    box = probe_box(shell, nvml=NOTHING)
    assert [gpu.name for gpu in box.gpus] == ["A100-PCIe-80GB"] * 4
    assert box.link(2, 3).nvlinks == 12
    assert box.gpu(1).uuid == "GPU-1"


def test_a_program_without_a_driver_says_so():
    shell = StandInShell({"nvidia-smi": said("NVIDIA-SMI has failed because it couldn't communicate", 9)})
    with pytest.raises(CommandFailed, match="cannot show the topology of this machine"):
        probe_box(shell, nvml=NOTHING)


def test_a_machine_without_a_driver_is_told_what_to_give_instead():
    with pytest.raises(MissingProgram, match="give a capture of `nvidia-smi topo -m`"):
        probe_box(StandInShell(), nvml=NOTHING)


def test_a_driver_without_cards_is_no_box():
    with pytest.raises(BadTopology, match="sees no GPU"):
        probe_box(StandInShell(), nvml=StandInNvml("", {}, mib=1))


def test_when_nvml_stops_answering_the_program_is_asked():
    class Broken(StandInNvml):
        def nvmlDeviceGetMemoryInfo(self, handle):
            raise NVMLError

    nvml = Broken("NVIDIA L4", {0: []}, mib=1)
    with pytest.raises(MissingProgram):
        probe_box(StandInShell(), nvml=nvml)
    assert nvml.open == 0
