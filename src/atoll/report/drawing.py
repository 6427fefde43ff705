"""A layout drawn on its box: cards by NUMA node, NVLink bonds, replicas in colour, the router before them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from atoll.inventory.box import Box
from atoll.inventory.islands import is_fully_connected, islands
from atoll.layout.layout import Layout
from atoll.report.vega import replica_colour

_CARD_W, _CARD_H, _GAP, _NODE_GAP = 78, 46, 22, 40
_MARGIN, _ROUTER_Y, _CARDS_Y, _ROW = 14, 10, 96, 116
_MOST_IN_A_ROW = 8
_LEAST_WIDTH = 290  # the router's longest label


@dataclass(frozen=True)
class _Spot:
    """Where a card stands."""

    x: float
    y: float

    @property
    def middle(self) -> float:
        return self.x + _CARD_W / 2


def draw_layout(
    layout: Layout, *, router_word: str = "router", idle_word: str = "idle", marks: Mapping[int, str] | None = None
) -> Markup:
    """The picture as SVG text; colours of lines and words are the page's (`currentColor`).

    Args:
        layout: what is drawn.
        router_word: for the router.
        idle_word: for cards without a replica.
        marks: a sign behind the name of a replica, by its place.
    """
    spots = _place_cards(layout.box)
    width = max(_LEAST_WIDTH, max(spot.x for spot in spots.values()) + _CARD_W + _MARGIN)
    height = max(spot.y for spot in spots.values()) + _CARD_H + 34
    parts = [
        *_draw_router(layout, spots, width, router_word, marks or {}),
        *_draw_bonds(layout.box, spots),
        *_draw_nodes(layout.box, spots),
        *_draw_cards(layout.box, spots, _owners(layout), idle_word=idle_word),
    ]
    return _picture(parts, width, height, title=layout.name)


def draw_box(box: Box, *, title: str = "") -> Markup:
    """A box without a layout on it: its cards in the colours of their islands, and what joins them."""
    spots = _place_cards(box, top=_ROUTER_Y)
    width = max(_LEAST_WIDTH, max(spot.x for spot in spots.values()) + _CARD_W + _MARGIN)
    height = max(spot.y for spot in spots.values()) + _CARD_H + 34
    joined = [island for island in islands(box) if len(island) > 1]
    owner = {gpu: place for place, island in enumerate(joined) for gpu in island}
    parts = [*_draw_bonds(box, spots), *_draw_nodes(box, spots), *_draw_cards(box, spots, owner)]
    return _picture(parts, width, height, title=title)


def _picture(parts: Iterable[Markup], width: float, height: float, *, title: str) -> Markup:
    head = Markup('<svg xmlns="http://www.w3.org/2000/svg" class="layout" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}"')
    named = Markup(' role="img"><title>{}</title>').format(title)
    return head.format(width, height, width * 1.15) + named + Markup("").join(parts) + Markup("</svg>")


def _place_cards(box: Box, *, top: float = _CARDS_Y) -> dict[int, _Spot]:
    """Islands stay together, NUMA nodes apart, up to eight cards in a row."""
    spots: dict[int, _Spot] = {}
    x, row, count, last = float(_MARGIN), 0, 0, None
    for gpu in _in_order(box):
        node = box.gpu(gpu).numa_node
        if count == _MOST_IN_A_ROW:
            x, row, count = float(_MARGIN), row + 1, 0
        elif count:
            x += _NODE_GAP if node != last else _GAP
        spots[gpu] = _Spot(x, top + row * _ROW)
        x, count, last = x + _CARD_W, count + 1, node
    return spots


def _in_order(box: Box) -> list[int]:
    def node_of(island: tuple[int, ...]) -> int:
        known = [node for gpu in island if (node := box.gpu(gpu).numa_node) is not None]
        return min(known, default=0)

    return [gpu for island in sorted(islands(box), key=lambda one: (node_of(one), one)) for gpu in island]


def _draw_router(
    layout: Layout, spots: dict[int, _Spot], width: float, word: str, marks: Mapping[int, str]
) -> Iterable[Markup]:
    middle = width / 2
    for place, replica in enumerate(layout.replicas):
        tops = [spots[gpu] for gpu in replica.gpus]
        x, y = sum(spot.middle for spot in tops) / len(tops), min(spot.y for spot in tops)
        colour = replica_colour(place)
        yield Markup(
            '<path d="M{:.1f} {} C{:.1f} {},{:.1f} {},{:.1f} {:.1f}" fill="none" stroke="{}" stroke-width="1.6"/>'
        ).format(middle, _ROUTER_Y + 26, middle, _ROUTER_Y + 48, x, y - 44, x, y - 26, colour)
        yield from _draw_span(tops, colour, f"{place}: TP {replica.tensor_parallel} {marks.get(place, '')}".rstrip())
    label = f"nginx {word}" + (f" · {layout.router.policy}" if len(layout.replicas) > 1 else "")
    half = 3.6 * len(label) + 22
    yield _text(middle, _ROUTER_Y + 17, label, size=12, weight=600)
    yield Markup(
        '<rect x="{:.1f}" y="{}" width="{:.1f}" height="26" rx="13" fill="none" stroke="currentColor" opacity="0.55"/>'
    ).format(middle - half, _ROUTER_Y, 2 * half)


def _draw_span(tops: list[_Spot], colour: str, label: str) -> Iterable[Markup]:
    """The bracket over a replica's cards, with its number and size."""
    y = min(spot.y for spot in tops)
    left, right = min(spot.x for spot in tops), max(spot.x for spot in tops) + _CARD_W
    yield Markup('<path d="M{:.1f} {:.1f} v-6 H{:.1f} v6" fill="none" stroke="{}" stroke-width="2"/>').format(
        left + 4, y - 4, right - 4, colour
    )
    yield _text((left + right) / 2, y - 14, label, size=11, weight=600, colour=colour)


def _draw_bonds(box: Box, spots: dict[int, _Spot]) -> Iterable[Markup]:
    for island in islands(box):
        if len(island) == 2:
            yield from _draw_bridge(box, island, spots)
        elif len(island) > 2:
            yield from _draw_fabric(box, island, spots)


def _draw_bridge(box: Box, pair: tuple[int, ...], spots: dict[int, _Spot]) -> Iterable[Markup]:
    first, second = sorted((spots[gpu] for gpu in pair), key=lambda spot: (spot.y, spot.x))
    y = first.y + _CARD_H / 2
    for shift in (-2.5, 2.5):
        yield _bond(first.x + _CARD_W, y + shift, second.x, second.y + _CARD_H / 2 + shift)
    label_x = (first.x + _CARD_W + second.x) / 2
    yield _text(label_x, first.y + _CARD_H + 14, f"NV{box.link(*pair).nvlinks}", size=10, dim=True)


def _draw_fabric(box: Box, island: tuple[int, ...], spots: dict[int, _Spot]) -> Iterable[Markup]:
    """A bar under the cards of each row: solid where NVLink joins every two, broken in a mesh."""
    whole = is_fully_connected(box, island)
    widths = sorted({box.link(a, b).nvlinks for a in island for b in island if a < b and box.link(a, b).nvlinks})
    spread = f"NV{widths[0]}" if len(widths) == 1 else f"NV{widths[0]}-NV{widths[-1]}"
    for y in sorted({spots[gpu].y for gpu in island}):
        row = [spots[gpu] for gpu in island if spots[gpu].y == y]
        bar = y + _CARD_H + 10
        for spot in row:
            yield _bond(spot.middle, y + _CARD_H, spot.middle, bar)
        for shift in (0, 4):
            yield _bond(row[0].middle, bar + shift, row[-1].middle, bar + shift, broken=not whole)
        label = f"NVLink {spread}" + ("" if whole else " (mesh)")
        yield _text((row[0].middle + row[-1].middle) / 2, bar + 19, label, size=10, dim=True)


def _bond(x1: float, y1: float, x2: float, y2: float, *, broken: bool = False) -> Markup:
    dash = Markup(' stroke-dasharray="7 4"') if broken else Markup("")
    line = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="currentColor" stroke-width="1.8"{}/>')
    return line.format(x1, y1, x2, y2, dash)


def _draw_nodes(box: Box, spots: dict[int, _Spot]) -> Iterable[Markup]:
    """The NUMA node under the first card of each stretch."""
    last = None
    for gpu, spot in spots.items():
        node = box.gpu(gpu).numa_node
        if node is not None and (node, spot.y) != last:
            yield _text(spot.x, spot.y + _CARD_H + 29, f"NUMA {node}", size=10, dim=True, anchor="start")
        last = (node, spot.y)


def _owners(layout: Layout) -> dict[int, int]:
    """Which replica, by place, has a card."""
    return {gpu: place for place, replica in enumerate(layout.replicas) for gpu in replica.gpus}


def _draw_cards(
    box: Box, spots: dict[int, _Spot], owner: dict[int, int], *, idle_word: str | None = None
) -> Iterable[Markup]:
    """Cards in their owner's colour; those without one are grey, and called idle where there is a word for it."""
    for gpu, spot in spots.items():
        idle = gpu not in owner
        colour = "#8c959f" if idle else replica_colour(owner[gpu])
        style = (
            Markup('fill="none" stroke-dasharray="4 3"')
            if idle
            else Markup('fill="{}" fill-opacity="0.16"').format(colour)
        )
        yield Markup(
            '<rect x="{:.1f}" y="{:.1f}" width="{}" height="{}" rx="6" stroke="{}" stroke-width="1.6" {}/>'
        ).format(spot.x, spot.y, _CARD_W, _CARD_H, colour, style)
        below = idle_word if idle and idle_word is not None else _kind_of(box, gpu)
        yield _text(spot.middle, spot.y + 20, f"GPU {gpu}", size=12, weight=600)
        yield _text(spot.middle, spot.y + 35, below, size=9, dim=True)


def _kind_of(box: Box, gpu: int) -> str:
    name = box.gpu(gpu).name or ""
    return name if len(name) <= 14 else name[:13] + "…"


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int,
    weight: int = 400,
    dim: bool = False,
    anchor: str = "middle",
    colour: str = "currentColor",
) -> Markup:
    return Markup(
        '<text x="{:.1f}" y="{:.1f}" text-anchor="{}" font-size="{}" font-weight="{}" fill="{}" opacity="{}">{}</text>'
    ).format(x, y, anchor, size, weight, colour, 0.7 if dim else 1, words)
