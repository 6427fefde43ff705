"""How far off a prediction may well be, read off the validation rows of its family.

A family is a generation of cards, whether their kernels were measured (GeForce cards, without peer access, are families
of their own), and the sort of model: `hopper-scaled dense`; loads that come all at once are apart where steady ones
were measured too. data/cost/bands.json holds, by family, what four of five set-ups stay within; data/cost/pairs.json
how far off predicted ratios were for measured layouts of one model and kind of card under the same load, in which most
of what the model gets wrong cancels out. tools/make_validation.py makes both, and tries each width on sources that had
no part in it; where a family has one source alone it is wider, and says so.

What counts as measured: rows of the family, or, twice as wide, of its relative, which is the same generation and sort
of model on cards whose kernels were measured (or were not). Across generations and sorts of model nothing is borrowed:
then no band is known.
"""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources

from pydantic import Field

from atoll.analyse.band import MEASURES, Band, Interval
from atoll.analyse.summary import Summary
from atoll.cost.kernels import MEASURED, is_geforce
from atoll.cost.links import describe_group
from atoll.documents import Document
from atoll.errors import InputError
from atoll.inventory.catalog import GpuKind, find_gpu
from atoll.layout.layout import Layout, Replica
from atoll.model.card import ModelCard

NARROWEST = 0.05  # no figure's band is narrower: clocks, drivers and versions differ by as much
BORROWED = 2.0  # times as wide, from a relative
MIXED_LINKS = 1.5  # a group over NVLink pairs and PCIe: no engine's rows were at hand, only all-reduce curves
AT_ONCE = ", all at once"
NO_BAND = "no band is known: nothing like it was measured"


class Widths(Document):
    """What four of five set-ups stay within: 0.25 lies between 1 / 1.25 and 1.25 of what was predicted.

    None: too few rows have this measure.
    """

    ttft: float | None = Field(default=None, ge=0)
    tpot: float | None = Field(default=None, ge=0)
    e2e: float | None = Field(default=None, ge=0)
    throughput: float | None = Field(default=None, ge=0)
    rows: int = Field(default=0, ge=0)  # how many measurements stand behind them; 0: borrowed from a relative
    sources: int = Field(default=1, ge=1)  # how many measured them, each for himself

    def widened(self, factor: float) -> "Widths":
        """The same so many times as wide."""
        widths = {name: getattr(self, name) for name in _WIDTHS}
        return self.replace(**{name: None if width is None else width * factor for name, width in widths.items()})

    @property
    def by_measure(self) -> dict[str, float | None]:
        return dict(zip(MEASURES, (self.ttft, self.tpot, self.e2e, self.throughput), strict=True))


_WIDTHS = ("ttft", "tpot", "e2e", "throughput")


def family_of(kind: GpuKind, card: ModelCard) -> str:
    """`hopper-measured dense`: the generation, whether its kernels were measured, and the sort of model."""
    place = "geforce" if is_geforce(kind) else "measured" if kind.name in MEASURED else "scaled"
    return f"{kind.architecture}-{place} {'dense' if card.experts is None else 'experts'}"


@cache
def shipped_bands() -> dict[str, Widths]:
    """Errors of figures, by family."""
    return _read_widths("bands")


@cache
def shipped_pairs() -> dict[str, Widths]:
    """Errors of ratios, by family."""
    return _read_widths("pairs")


def _read_widths(name: str) -> dict[str, Widths]:
    text = resources.files("atoll").joinpath(f"data/cost/{name}.json").read_text(encoding="utf-8")
    plain = json.loads(text)[name]
    return {family: Widths.from_plain(widths, origin=f"data/cost/{name}.json") for family, widths in plain.items()}


def band_of(summary: Summary, layout: Layout, card: ModelCard | None) -> Band | None:
    """The band of a simulated summary's means; None where nothing was measured that is like the layout.

    A TPOT of 15 ms in a family of 12.5 % was measured to be 13.3 to 16.9 ms by four of five.
    """
    relative = relative_band(layout, card)
    return None if relative is None else relative.around_means(summary)


def relative_band(layout: Layout, card: ModelCard | None, *, at_once: bool = False) -> Band | None:
    """The band of a layout's means, around 1: the widest among its replicas; None where none is known for one of them.

    Args:
        layout: with the names of its cards.
        card: the model; None: not known any more.
        at_once: whether all requests are sent at the same moment.
    """
    found = _widest(layout, card, shipped_bands(), at_once=at_once)
    if found is None:
        return None
    widths, family = found
    intervals = _around_one(widths.by_measure)
    return Band(**intervals, family=family, borrowed=not widths.rows, one_source=widths.sources < 2)


def relative_ratio(first: Layout, second: Layout, card: ModelCard | None, *, same_load: bool = True) -> Band | None:
    """The band of how the second layout compares with the first, around 1; None where none is known.

    Two layouts of one model, engine version and numeric format under one load have the band of measured pairs. Between
    others nothing is sure to cancel: there both figures' own bands are put together.
    """
    if same_load and _alike(first, second):
        both = [_widest(layout, card, shipped_pairs()) for layout in (first, second)]
        known = [one for one in both if one is not None]
        if len(known) == 2:
            family = _joined(family for _, family in known)
            by_measure = [widths.by_measure for widths, _ in known]
            widest = {measure: _widest_of(one[measure] for one in by_measure) for measure in MEASURES}
            borrowed = not all(widths.rows for widths, _ in known)
            one_source = any(widths.sources < 2 for widths, _ in known)
            return Band(**_around_one(widest), family=family, borrowed=borrowed, one_source=one_source)
    one, other = (relative_band(layout, card) for layout in (first, second))
    if one is None or other is None:
        return None
    return Band(
        **{name: _put_together(one.of(name), other.of(name)) for name in MEASURES},
        family=_joined(band.family or "" for band in (one, other)),
        borrowed=one.borrowed or other.borrowed,
        one_source=one.one_source or other.one_source,
    )


def caution() -> Band:
    """What stands in for an unknown band of a ratio when layouts are ranked: twice the widest that is known.

    It is no band, so it bears no family and is shown nowhere. It only keeps layouts of which nothing is known from
    being told apart more easily than those that were measured.
    """
    known = [widths.widened(BORROWED).by_measure for widths in shipped_pairs().values()]
    return Band(**_around_one({measure: max(one[measure] or 0.0 for one in known) for measure in MEASURES}))


def _alike(first: Layout, second: Layout) -> bool:
    """Whether the same things go wrong for both: the rows behind the pairs have these in common."""
    return _in_common(first) == _in_common(second)


def _in_common(layout: Layout) -> tuple[object, ...]:
    flags = layout.flags
    return layout.model, layout.engine_version, flags.quantization, flags.kv_cache_dtype, flags.enforce_eager


def _widest(
    layout: Layout, card: ModelCard | None, shipped: dict[str, Widths], *, at_once: bool = False
) -> tuple[Widths, str] | None:
    """The widest of all replicas' widths, measure by measure, with their families."""
    if card is None:
        return None
    found, families = [], []
    for replica in layout.replicas:
        for kind in _kinds(layout, replica):
            if kind is None:
                return None
            family = family_of(kind, card)
            if at_once and f"{family}{AT_ONCE}" in shipped:
                family += AT_ONCE
            widths = _own_or_borrowed(family, shipped)
            if widths is None:
                return None
            found.append(widths.widened(MIXED_LINKS) if _is_mixed(layout, replica, kind) else widths)
            families.append(family)
    widest = {name: _widest_of(getattr(one, name) for one in found) for name in _WIDTHS}
    rows, sources = min(one.rows for one in found), min(one.sources for one in found)
    return Widths(**widest, rows=rows, sources=sources), _joined(families)


def _widest_of(widths: Iterable[float | None]) -> float | None:
    """None, not known, where one of them is not."""
    every = list(widths)
    known = [width for width in every if width is not None]
    return max(known) if len(known) == len(every) else None


def _kinds(layout: Layout, replica: Replica) -> Iterator[GpuKind | None]:
    """The kinds of the replica's cards, each once; None for a card without a name or one that no catalogue has."""
    for name in dict.fromkeys(layout.box.gpu(index).name for index in replica.gpus):
        try:
            yield None if name is None else find_gpu(name)
        except InputError:
            yield None


def _is_mixed(layout: Layout, replica: Replica, kind: GpuKind) -> bool:
    """Whether a tensor-parallel group crosses PCIe between NVLink islands."""
    size = replica.tensor_parallel
    groups = (replica.gpus[at : at + size] for at in range(0, len(replica.gpus), size))
    return any(describe_group(layout.box, group, kind).mixed for group in groups)


_RELATIVE = {"measured": "scaled", "scaled": "measured"}


def _own_or_borrowed(family: str, shipped: dict[str, Widths]) -> Widths | None:
    if family in shipped:
        return shipped[family]
    generation_and_place, sort = family.split()
    generation, place = generation_and_place.rsplit("-", 1)
    relative = shipped.get(f"{generation}-{_RELATIVE.get(place, place)} {sort}")
    return None if relative is None else relative.widened(BORROWED).replace(rows=0)


def _around_one(widths: dict[str, float | None]) -> dict[str, Interval | None]:
    """Predictions are as often too large as too small: 0.25 lies between 1 / 1.25 and 1.25."""
    return {name: None if width is None else (1 / (1 + width), 1 + width) for name, width in widths.items()}


def _put_together(first: Interval | None, second: Interval | None) -> Interval | None:
    """The ratio second / first where each lies in its own interval."""
    return None if first is None or second is None else (second[0] / first[1], second[1] / first[0])


def _joined(families: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(families))
