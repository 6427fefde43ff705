"""Layouts under rising load, side by side: who is ahead at how many users, and where the ranking flips."""

from collections.abc import Iterable, Sequence
from typing import Any

from atoll.plan.choice import Curve, Search
from atoll.plan.explain import leaders
from atoll.plan.goal import Goal
from atoll.report.vega import FAINT, GRID, HEIGHT, INK, PALETTE, SCHEMA, Spec
from atoll.units import show_count

_WIDTH = 340
_MEASURES = (
    ("ttft", "Time to first token, p95 (s)", "log"),
    ("answer", "Time of a whole answer, mean (s)", "linear"),
    ("tokens", "Output tokens per second", "linear"),
)


def crossover_chart(search: Search) -> Spec:
    """A Vega-Lite picture of three panels; a dashed line marks every load at which another layout takes the lead.

    Args:
        search: a search whose load was varied; loads at which a layout cannot keep up are left out of its line.
    """
    names = [curve.name for curve in search.curves]
    rows = [row for curve in search.curves for row in _rows(curve)]
    flips = [{"load": flip.load, "text": f"{_shown(flip.load, search.goal)}: {flip.after}"} for flip in search.flips]
    return {
        "$schema": SCHEMA,
        "title": {"text": _title(search), "subtitle": _subtitle(search), "anchor": "start", "offset": 14},
        "background": "white",
        "padding": 16,
        "spacing": 34,
        "data": {"values": rows},
        "hconcat": [
            _panel(measure, goal=search.goal, names=names, flips=flips if place == 0 else _bare(flips))
            for place, measure in enumerate(_MEASURES)
        ],
        "config": _config(),
    }


def _rows(curve: Curve) -> Iterable[dict[str, Any]]:
    for load, point in curve.points:
        if not point.saturated:
            yield {
                "layout": curve.name,
                "load": load,
                "ttft": _digits(point.summary.ttft_s.p95),
                "answer": _digits(point.summary.e2e_s.mean),
                "tokens": _digits(point.summary.output_tokens_per_s),
            }


def _panel(measure: tuple[str, str, str], *, goal: Goal, names: Sequence[str], flips: Sequence[dict[str, Any]]) -> Spec:
    field, title, scale = measure
    x = {
        "field": "load",
        "type": "quantitative",
        "title": "Users, back to back" if goal.users is not None else "Requests per second",
        "scale": {"type": "log", "nice": False},
        "axis": {"values": _ticks(goal), "format": "~s" if goal.users is not None else "~g", "labelFlush": False},
    }
    colours = {"domain": list(names), "range": [PALETTE[place % len(PALETTE)] for place in range(len(names))]}
    line = {
        "mark": {"type": "line", "point": {"size": 28}, "strokeWidth": 2},
        "encoding": {
            "x": x,
            "y": {"field": field, "type": "quantitative", "title": None, "scale": {"type": scale, "nice": True}},
            "color": {"field": "layout", "type": "nominal", "title": None, "scale": colours, "sort": list(names)},
        },
    }
    own = {
        "data": {"values": [{"load": goal.users if goal.users is not None else goal.rate}]},
        "mark": {"type": "rule", "color": FAINT, "strokeWidth": 1},
        "encoding": {"x": {"field": "load", "type": "quantitative"}},
    }
    return {
        "title": {"text": title, "anchor": "start", "fontSize": 12, "fontWeight": 600, "color": INK},
        "width": _WIDTH,
        "height": HEIGHT + 60,
        "layer": [own, *_flip_marks(flips), line],
    }


def _flip_marks(flips: Sequence[dict[str, Any]]) -> list[Spec]:
    if not flips:
        return []
    where = {"x": {"field": "load", "type": "quantitative"}}
    rule = {
        "data": {"values": list(flips)},
        "mark": {"type": "rule", "color": INK, "strokeDash": [5, 4], "strokeWidth": 1.2},
        "encoding": where,
    }
    if "text" not in flips[0]:
        return [rule]
    label = {
        "data": {"values": list(flips)},
        "mark": {"type": "text", "align": "left", "baseline": "top", "dx": 5, "dy": 2, "fontSize": 11, "color": INK},
        "encoding": {**where, "y": {"value": 0}, "text": {"field": "text", "type": "nominal"}},
    }
    return [rule, label]


def _bare(flips: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"load": flip["load"]} for flip in flips]


def _title(search: Search) -> str:
    """`1xTP4 up to about 22 users, then 2xTP2`."""
    if not search.flips:
        return f"{leaders(search)[0][2]} stays ahead"
    words = search.flips[0].before
    for flip in search.flips:
        words += f" up to about {_shown(flip.load, search.goal)} {_unit(search.goal)}, then {flip.after}"
    return words


def _subtitle(search: Search) -> str:
    goal = search.goal
    return f"{goal.prompt:g} prompt and {goal.output:g} answer tokens; the grey line is the load that was asked about"


def _unit(goal: Goal) -> str:
    return "users" if goal.users is not None else "requests/s"


def _shown(load: float, goal: Goal) -> str:
    return show_count(round(load)) if goal.users is not None else f"{load:.2g}"


def _ticks(goal: Goal) -> list[float]:
    if goal.users is not None:
        return [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    assert goal.rate is not None
    return [float(f"{goal.rate * 2.0**power:.3g}") for power in range(-6, 7)]  # those that the line reaches are drawn


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _config() -> Spec:
    return {
        "font": "Helvetica, Arial, sans-serif",
        "axis": {"gridColor": GRID, "domainColor": FAINT, "tickColor": FAINT, "labelColor": INK, "titleColor": INK},
        "legend": {"orient": "right", "labelFontSize": 12},
        "title": {"color": INK, "fontSize": 15, "subtitleColor": FAINT, "subtitleFontSize": 12},
        "view": {"stroke": None},
    }
