"""What charts are made of: axes, layers, panels of Vega-Lite, drawn without a browser or a network by vl_convert."""

import math
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from atoll.report.view import StudyView
from atoll.traffic.record import Floats

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_VERSION = "6.4"
INK, FAINT, GRID = "#24292f", "#6e7781", "#d8dee4"  # the page swaps these for its own, light or dark
BAD = "#d1242f"
# Okabe and Ito's colours, which colour-blind readers can tell apart, without the yellow, then darker ones.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f4fc9", "#8c6d31", "#1b7f79", "#a33a3a")

WIDTH, HEIGHT = 300, 150
_LETTERS = 42  # of a panel's title that stand side by side over its width
_TITLE_LETTERS = 36  # of a picture's title over each of its columns
_FINE = (1, 1.5, 2, 3, 4, 5, 7)


def colours_of(view: StudyView) -> dict[str, str]:
    """Every run keeps its colour in all charts."""
    return {run.name: PALETTE[place % len(PALETTE)] for place, run in enumerate(view.runs)}


def replica_colour(place: int) -> str:
    """The colour of a replica, the same in the drawing of the layout."""
    return PALETTE[place % len(PALETTE)]


def chart_svg(spec: Spec) -> str:
    """The chart as SVG text."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=_VERSION)
    return svg


def chart_png(spec: Spec, *, scale: float = 2.0) -> bytes:
    """The chart as PNG, on white."""
    import vl_convert

    png: bytes = vl_convert.vegalite_to_png(spec | {"background": "white"}, vl_version=_VERSION, scale=scale)
    return png


def axis(
    field: str, title: str, *, domain: list[float], scale: str = "linear", format_: str | None = None
) -> dict[str, Any]:
    axis: dict[str, Any] = {"tickCount": 5} | ({"format": format_} if format_ else {})
    if scale == "log":
        axis = {"values": _log_ticks(*domain), "format": "~g"}
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "axis": axis,
        "scale": {"type": scale, "domain": domain, "nice": False},
    }


def _log_ticks(low: float, top: float) -> list[float]:
    """Decades, with steps between them where they are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(top)) + 1)
    span = math.log10(top / low)
    steps: tuple[float, ...] = (1,) if span >= 3 else (1, 3) if span >= 1.5 else (1, 2, 5) if span >= 0.8 else _FINE
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return [tick for tick in ticks if low <= tick <= top]


def layer(columns: Mapping[str, list[float]], mark: Spec, *, x: Spec, y: Spec) -> Spec:
    names = list(columns)
    values = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    encoding: Spec = {"x": x, "y": y}
    if mark["type"] == "line":
        encoding["order"] = {"field": "share" if "share" in names else "t", "type": "quantitative"}
    return {"data": {"values": values}, "mark": mark | {"clip": True}, "encoding": encoding}


def line(colour: str, *, width: float = 1.8, dash: list[int] | None = None, step: bool = False) -> Spec:
    mark: Spec = {"type": "line", "color": colour, "strokeWidth": width}
    if dash:
        mark["strokeDash"] = dash
    return mark | ({"interpolate": "step-after"} if step else {})


def short(values: Floats) -> list[float]:
    """Four digits are more than a chart can show, and keep the file small."""
    return [float(f"{value:.4g}") for value in values]


def chart_pdf(spec: Spec) -> bytes:
    """The chart as a PDF of one page, on white."""
    import vl_convert

    pdf: bytes = vl_convert.vegalite_to_pdf(spec | {"background": "white"}, vl_version=_VERSION)
    return pdf


def panel(title: str, said: str, layers: list[Spec]) -> Spec:
    lines = wrap(title, _LETTERS)
    heading: Spec = {"text": lines if len(lines) > 1 else title} | ({"subtitle": said} if said else {})
    return {
        "$schema": SCHEMA,
        "title": heading,
        "width": WIDTH,
        "height": HEIGHT,
        "layer": layers,
        "config": _config(),
    }


def joined(
    title: str, panels: list[Spec], columns: int, *, said: str = "", legend: Mapping[str, str] | None = None
) -> Spec:
    """One picture of several panels under a message, with the runs' colours named below them."""
    bare = [{key: value for key, value in panel.items() if key not in {"$schema", "config"}} for panel in panels]
    key = [{"name": name, "colour": colour} for name, colour in (legend or {}).items()]
    concat: Spec = {"concat": bare, "columns": columns}
    lines = wrap(title, _TITLE_LETTERS * min(columns, len(panels)))
    heading: Spec = {"text": lines, "fontSize": 16, "offset": 14} | (
        {"subtitle": said, "subtitleFontSize": 12, "subtitlePadding": 6} if said else {}
    )
    spec: Spec = {"$schema": SCHEMA, "title": heading, "config": _config()}
    return spec | ({"vconcat": [concat, _legend(key)]} if key else concat)


def _legend(key: list[dict[str, str]]) -> Spec:
    """Four names a line, each after a dot of its colour."""
    rows = [entry | {"x": place % 4, "y": place // 4} for place, entry in enumerate(key)]
    x = {"field": "x", "type": "quantitative", "axis": None, "scale": {"domain": [0, 4]}}
    y = {
        "field": "y",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [0, max(1, (len(key) - 1) // 4)], "reverse": True},
    }
    colour = {"field": "colour", "type": "nominal", "scale": None}
    dot = {"mark": {"type": "point", "filled": True, "size": 70, "opacity": 1}, "encoding": {"color": colour}}
    name = {
        "mark": {"type": "text", "align": "left", "dx": 8, "color": INK, "fontSize": 11},
        "encoding": {"text": {"field": "name", "type": "nominal"}},
    }
    return {
        "data": {"values": rows},
        "width": 2 * WIDTH + 60,
        "height": 18 * ((len(key) - 1) // 4 + 1),
        "encoding": {"x": x, "y": y},
        "layer": [dot, name],
    }


def _config() -> Spec:
    font = "system-ui, sans-serif"
    return {
        "aria": False,
        "background": "transparent",
        "font": font,
        "view": {"stroke": None},
        "title": {
            "anchor": "start",
            "color": INK,
            "subtitleColor": FAINT,
            "fontSize": 13,
            "subtitleFontSize": 11,
            "font": font,
        },
        "axis": {
            "labelColor": FAINT,
            "titleColor": FAINT,
            "gridColor": GRID,
            "domainColor": GRID,
            "tickColor": GRID,
            "titleFontWeight": "normal",
            "labelFontSize": 10,
            "titleFontSize": 10,
        },
        "axisX": {"grid": False},
    }
