"""How far off a prediction may well be: half-widths taken from the validation rows of its family.

data/cost/bands.json is made by tools/make_validation.py; a band holds four of five rows. It says how far predicted and
measured figures lie apart. Two layouts of one model on one box are nearer to each other than that, because what the
model gets wrong it gets wrong for both.
"""

import json
from functools import cache
from importlib import resources

from pydantic import Field

from atoll.cost.kernels import MEASURED, is_geforce
from atoll.documents import Document
from atoll.inventory.catalog import GpuKind
from atoll.model.card import ModelCard


class Band(Document):
    """Relative half-widths: 0.08 means that four of five measurements lie within 8 % of the prediction."""

    ttft: float = Field(ge=0)
    tpot: float = Field(ge=0)
    throughput: float = Field(ge=0)
    rows: int = Field(default=0, ge=0)  # how many measurements stand behind it; 0: borrowed from a relative, doubled

    def widened(self, factor: float) -> "Band":
        """The same band so many times as wide."""
        return Band(
            ttft=self.ttft * factor, tpot=self.tpot * factor, throughput=self.throughput * factor, rows=self.rows
        )


def family_of(kind: GpuKind, card: ModelCard) -> str:
    """`hopper-measured dense`: the architecture, whether its kernels were measured, and the sort of model."""
    if is_geforce(kind):
        place = "geforce"
    else:
        place = f"{kind.architecture}-{'measured' if kind.name in MEASURED else 'scaled'}"
    return f"{place} {'dense' if card.experts is None else 'experts'}"


@cache
def shipped_bands() -> dict[str, Band]:
    text = resources.files("atoll").joinpath("data/cost/bands.json").read_text(encoding="utf-8")
    plain = json.loads(text)["bands"]
    return {name: Band.from_plain(band, origin="data/cost/bands.json") for name, band in plain.items()}


# Families without measurements borrow from these, twice as wide.
_RELATIVES = ("{architecture}-measured {sort}", "{architecture}-scaled {sort}", "hopper-measured {sort}")
NARROWEST = 0.05  # no band is narrower: clocks, drivers and versions differ by as much
MIXED_LINKS = 1.5  # a group over NVLink pairs and PCIe: no engine's rows were at hand, only all-reduce curves


def error_band(kind: GpuKind, card: ModelCard, *, mixed_links: bool = False) -> Band:
    """The band of a prediction for this model on this kind of card.

    Args:
        kind: the card.
        card: the model.
        mixed_links: whether a tensor-parallel group crosses PCIe between NVLink pairs.
    """
    bands = shipped_bands()
    family = family_of(kind, card)
    sort = family.split()[-1]
    band = bands.get(family)
    if band is None:
        names = (name.format(architecture=kind.architecture, sort=sort) for name in _RELATIVES)
        relative = next((bands[name] for name in names if name in bands), Band(ttft=0.5, tpot=0.25, throughput=0.25))
        band = relative.widened(2.0).replace(rows=0)
    return band.widened(MIXED_LINKS) if mixed_links else band
