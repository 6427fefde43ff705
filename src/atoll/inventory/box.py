"""What is in this box: Gpu, Link, Box.

A Box is built from a topology capture, from this machine, or from the catalogue (`H100-SXM-80GB` x 8), and travels
inside a layout, so every later stage sees the same links.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from functools import cached_property
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from atoll.documents import Document, OneLine

MOST_GPUS = 1024  # of one machine; the largest there are have 72
MOST_CPUS = 65536  # Linux: NR_CPUS is 8192 at most today


def cpu_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """`0-3,8` is ((0, 3), (8, 8)), not counted out.

    Raises:
        ValueError: it is no such list, a range runs backwards, or no machine has such a processor.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,20})(?:\s*-\s*(\d{1,20}))?\s*", part)
        if match is None:
            raise ValueError(f"{text[:60]!r} is no list of processors, such as 0-31,64-95")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the processors {part.strip()} run backwards")
        if last >= MOST_CPUS:
            raise ValueError(f"no machine has a processor {last}")
        found.append((first, last))
    return tuple(found)


class LinkKind(StrEnum):
    """The path between two GPUs, in `nvidia-smi topo -m`'s words, nearest first."""

    NV = "NV"  # NVLink; how many stands in Link.nvlinks
    PIX = "PIX"  # one PCIe switch
    PXB = "PXB"  # several PCIe switches, no host bridge
    PHB = "PHB"  # a PCIe host bridge (the CPU)
    NODE = "NODE"  # between host bridges of one NUMA node
    SYS = "SYS"  # across NUMA nodes

    @property
    def distance(self) -> int:
        """0 for NVLink to 5 for across sockets; smaller is nearer."""
        return list(LinkKind).index(self)


class Gpu(Document):
    """One card. `name` is the catalogue's name when it is known (`H100-NVL-94GB`)."""

    index: int = Field(ge=0, lt=MOST_GPUS)
    name: OneLine | None = None
    memory_bytes: int | None = Field(default=None, gt=0, le=2**50)
    numa_node: int | None = None
    cpu_affinity: str | None = None  # as printed, "0-31,64-95"
    uuid: str | None = None
    pci_bus_id: str | None = None

    @field_validator("cpu_affinity")
    @classmethod
    def _names_processors(cls, value: str | None) -> str | None:
        if value is not None:
            cpu_ranges(value)
        return value


class Link(Document):
    """The path between GPUs `a` < `b`; `nvlinks` is how many NVLinks join them, 0 for a PCIe path."""

    a: int
    b: int
    kind: LinkKind
    nvlinks: int = Field(default=0, ge=0, le=1024)


class Box(Document):
    """The GPUs of one machine and the path between every two of them."""

    noun: ClassVar[str] = "a box"

    gpus: tuple[Gpu, ...] = Field(min_length=1, max_length=MOST_GPUS)
    links: tuple[Link, ...] = ()
    pcie_only: bool = False  # from `topo -mp`, which cannot show NVLink
    notes: tuple[str, ...] = ()  # what the reader of a capture should know about it

    @model_validator(mode="after")
    def _links_join_known_gpus(self) -> "Box":
        known = [gpu.index for gpu in self.gpus]
        if len(set(known)) != len(known):
            raise ValueError("two GPUs have the same index")
        pairs = [(link.a, link.b) for link in self.links]
        if len(set(pairs)) != len(pairs):
            raise ValueError("two links join the same GPUs")
        for a, b in pairs:
            if a >= b or a not in known or b not in known:
                raise ValueError(f"link {a}-{b} does not join two GPUs of this box, the lower index first")
        if len(pairs) != len(known) * (len(known) - 1) // 2:
            raise ValueError("a link is needed for every pair of GPUs")
        return self

    @cached_property
    def _by_pair(self) -> dict[tuple[int, int], Link]:
        return {(link.a, link.b): link for link in self.links}

    @property
    def indices(self) -> tuple[int, ...]:
        return tuple(gpu.index for gpu in self.gpus)

    def gpu(self, index: int) -> Gpu:
        return next(gpu for gpu in self.gpus if gpu.index == index)

    def device_ids(self, indices: Collection[int]) -> tuple[str, ...]:
        """How CUDA and container engines call these cards: nvidia-smi's numbers, and a MIG slice by its UUID."""
        uuids = {gpu.index: gpu.uuid for gpu in self.gpus if (gpu.uuid or "").startswith("MIG-")}
        return tuple(uuids.get(index) or str(index) for index in indices)

    def only(self, indices: Collection[int]) -> "Box":
        """The box with no other cards than these."""
        gpus = tuple(gpu for gpu in self.gpus if gpu.index in indices)
        links = tuple(link for link in self.links if link.a in indices and link.b in indices)
        return self.replace(gpus=gpus, links=links)

    def link(self, a: int, b: int) -> Link:
        """The path between two different GPUs, in either order."""
        return self._by_pair[(min(a, b), max(a, b))]
