"""Several boxes and what joins them: Fleet, a document that people write (fleet.yaml)."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field, model_validator

from atoll.documents import Document, Name, OneLine

MOST_BOXES = 4096  # of a fleet
_RATES = {50: "FDR", 100: "EDR", 200: "HDR", 400: "NDR", 800: "XDR"}  # InfiniBand's names, Gbit/s of one port


class NetworkKind(StrEnum):
    """How boxes talk: RDMA over InfiniBand or Ethernet, or plain TCP."""

    ETHERNET = "ethernet"  # TCP sockets
    ROCE = "roce"  # RDMA over converged Ethernet
    INFINIBAND = "infiniband"


class Network(Document):
    """What joins the boxes: `rails` network cards a box of `gbit` Gbit/s each."""

    kind: NetworkKind
    gbit: int = Field(ge=1, le=1600)
    rails: int = Field(default=1, ge=1, le=32)

    @property
    def is_rdma(self) -> bool:
        return self.kind is not NetworkKind.ETHERNET

    @property
    def words(self) -> str:
        """`8 x NDR InfiniBand (400 Gbit/s) a box`, `100 GbE`, `2 x 400 GbE with RoCE a box`."""
        if self.kind is NetworkKind.INFINIBAND:
            rate = _RATES.get(self.gbit)
            one = f"{rate} InfiniBand ({self.gbit} Gbit/s)" if rate else f"InfiniBand at {self.gbit} Gbit/s"
        else:
            one = f"{self.gbit} GbE" + (" with RoCE" if self.is_rdma else "")
        return f"{self.rails} x {one} a box" if self.rails > 1 else f"{one}, one port a box"


class FleetBoxes(Document):
    """Boxes that are alike: `box` is a capture's path, relative to the file; without one so many cards of a kind."""

    name: Name
    count: int = Field(default=1, ge=1, le=MOST_BOXES)
    gpu: OneLine | None = None  # the cards' kind
    gpus: int | None = Field(default=None, ge=1, le=1024)
    box: OneLine | None = None
    watts: float | None = Field(default=None, gt=0, le=10**6)  # of one box under load; None: what its cards may draw
    price_per_hour: float | None = Field(default=None, ge=0, le=10**6)  # of one box, in the fleet's currency

    @model_validator(mode="after")
    def _says_what_a_box_is(self) -> "FleetBoxes":
        if self.box is None and (self.gpu is None or self.gpus is None):
            raise ValueError("say what a box is: `gpu` and `gpus`, or `box` with a capture of `nvidia-smi topo -m`")
        if self.box is not None and self.gpus is not None:
            raise ValueError("`box` shows how many cards there are; leave `gpus` out")
        return self


class Fleet(Document):
    """Boxes by kind, and the network between them; None where nothing is known of it."""

    noun: ClassVar[str] = "a fleet"

    name: Name
    boxes: tuple[FleetBoxes, ...] = Field(min_length=1, max_length=64)
    network: Network | None = None
    currency: str | None = Field(default=None, pattern=r"^[^\x00-\x1f]{1,8}$")  # of price_per_hour

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "Fleet":
        names = [one.name for one in self.boxes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two entries have the name {name}; give each kind of box its own, with a `count`")
        if self.count > MOST_BOXES:
            raise ValueError(f"a fleet has {MOST_BOXES:,} boxes at most, these are {self.count:,}")
        return self

    @property
    def count(self) -> int:
        return sum(one.count for one in self.boxes)


def host_names(boxes: FleetBoxes) -> tuple[str, ...]:
    """`a-1`, `a-2`, ...; the name alone where there is one box."""
    if boxes.count == 1:
        return (boxes.name,)
    return tuple(f"{boxes.name}-{number}" for number in range(1, boxes.count + 1))
