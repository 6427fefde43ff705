"""How far off a plan's figures may be, and how far off the ratio of two layouts; both read off measured rows.

A figure of its own has the band of its family (cost/band.py). Whether one layout is better than another hangs on their
ratio, in which most of what the model gets wrong cancels out: data/cost/pairs.json holds how far off predicted ratios
were for measured layouts of one model and kind of card under the same load. tools/make_validation.py makes both.
"""

import json
from functools import cache
from importlib import resources

from pydantic import Field

from atoll.cost.band import MIXED_LINKS, Band, family_of
from atoll.cost.band import error_band as band_of_kind
from atoll.documents import Document
from atoll.inventory.catalog import GpuKind
from atoll.model.card import ModelCard
from atoll.plan.choice import Choice
from atoll.plan.goal import Favour, Goal
from atoll.plan.workbench import Workbench


class PairBand(Document):
    """Relative half-widths of a ratio: 0.04 means that four of five measured ratios lie within 4 % of the predicted."""

    answer: float = Field(ge=0)  # of the times of a whole answer
    first_token: float = Field(ge=0)
    pairs: int = Field(default=0, ge=0)  # measurements behind it; 0: borrowed from a relative, doubled

    def widened(self, factor: float) -> "PairBand":
        """The same band so many times as wide."""
        return self.replace(answer=self.answer * factor, first_token=self.first_token * factor)


@cache
def shipped_pairs() -> dict[str, PairBand]:
    text = resources.files("atoll").joinpath("data/cost/pairs.json").read_text(encoding="utf-8")
    plain = json.loads(text)["pairs"]
    return {name: PairBand.from_plain(band, origin="data/cost/pairs.json") for name, band in plain.items()}


def error_band(choice: Choice, workbench: Workbench) -> Band:
    """How far the choice's own figures may be from a measurement: the widest band among its replicas."""
    bands = [band_of_kind(kind, workbench.card, mixed_links=mixed) for kind, mixed in _parts(choice, workbench)]
    return max(bands, key=lambda band: (band.tpot, band.ttft))


def pair_band(one: Choice, other: Choice, workbench: Workbench, goal: Goal) -> float:
    """How far the ratio of the two choices may be from the measured one, in what the goal favours."""
    parts = [*_parts(one, workbench), *_parts(other, workbench)]
    widest = 0.0
    for kind, mixed in parts:
        band = _pair_of_kind(kind, workbench.card).widened(MIXED_LINKS if mixed else 1.0)
        widest = max(widest, band.first_token if goal.favour is Favour.FIRST_TOKEN else band.answer)
    return widest


def may_be_better(choice: Choice, best: Choice, workbench: Workbench, goal: Goal) -> bool:
    """Whether the choice may be better than the best for all we know: within their ratio's error, and the targets."""
    near = choice.predicted.times(best.predicted, goal) <= 1 + pair_band(best, choice, workbench, goal)
    return near and choice.predicted.meets(goal) >= best.predicted.meets(goal)


def _pair_of_kind(kind: GpuKind, card: ModelCard) -> PairBand:
    """A family without such pairs borrows, twice as wide, from the one with measured kernels."""
    known = shipped_pairs()
    family = family_of(kind, card)
    if family in known:
        return known[family]
    sort = family.split()[-1]
    names = (f"{kind.architecture}-measured {sort}", f"hopper-measured {sort}")
    relative = next((known[name] for name in names if name in known), PairBand(answer=0.25, first_token=0.5))
    return relative.widened(2.0).replace(pairs=0)


def _parts(choice: Choice, workbench: Workbench) -> list[tuple[GpuKind, bool]]:
    """The kind of each replica's cards, and whether its group crosses from one NVLink island to another."""
    return [
        (workbench.kind(replica), workbench.timer(replica, choice.layout.flags).reduce.group.mixed)
        for replica in choice.layout.replicas
    ]
