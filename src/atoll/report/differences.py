"""How far every variant is from the baseline, with the interval of each difference drawn."""

from typing import Any

from atoll.analyse.band import Interval, spans_one
from atoll.analyse.compare import Comparison
from atoll.report.vega import BAD, FAINT, HEIGHT, INK, Spec, axis, panel
from atoll.report.view import StudyView
from atoll.report.words import Words

GOOD = "#1a7f37"
_PARTS = (("ttft_s", "p95", "ttft_p95"), ("e2e_s", "mean", "e2e_mean"), ("tpot_s", "mean", "tpot_mean"))
_FAR = 2.0  # a variant with three times the baseline's wait is drawn at the edge, and its figure told
_ROW = 26  # pixels


def difference_panels(view: StudyView, words: Words) -> list[Spec]:
    """A panel a measure, a row a variant: the change from the baseline and its 95 % interval.

    Green is better, red is worse, grey cannot be told apart. Tokens per second have an interval only between
    predictions, where it is the band of their ratio.
    """
    there = {run.name for run in view.runs}
    found = [place.against_baseline for place in view.ranking if place.name in there]
    against = [one for one in found if one is not None and one.first in there]
    if not against:
        return []
    panels = []
    for measure, statistic, label in _PARTS:
        rows = [row for one in against if (row := _seconds_row(one, measure, statistic)) is not None]
        if rows:
            panels.append(_panel(words[label], rows, words))
    rates = [row for one in against if (row := _rate_row(view, one)) is not None]
    return [*panels, _panel(words["rate_axis"], rates, words)] if rates else panels


def _seconds_row(comparison: Comparison, measure: str, statistic: str) -> dict[str, Any] | None:
    found = comparison.difference(measure, statistic)
    if found.first is None or found.second is None or not found.first:
        return None
    ends = None if found.low is None or found.high is None else (found.low / found.first, found.high / found.first)
    change = found.second / found.first - 1
    return _row(comparison.second, change, ends, clear=found.is_clear, better=change < 0)


def _rate_row(view: StudyView, comparison: Comparison) -> dict[str, Any] | None:
    before, after = view.run(comparison.first).summary, view.run(comparison.second).summary
    if before is None or after is None or not before.output_tokens_per_s:
        return None
    change = after.output_tokens_per_s / before.output_tokens_per_s - 1
    band: Interval | None = None if comparison.ratio is None else comparison.ratio.output_tokens_per_s
    ends = None if band is None else (band[0] - 1, band[1] - 1)
    return _row(comparison.second, change, ends, clear=band is not None and not spans_one(band), better=change > 0)


def _row(name: str, change: float, ends: Interval | None, *, clear: bool, better: bool) -> dict[str, Any]:
    colour = FAINT if not clear else GOOD if better else BAD
    row: dict[str, Any] = {
        "name": name, "t": min(change, _FAR), "colour": colour, "told": f"{change:+.0%}".replace("-", "\u2212"),
    }  # fmt: skip
    return row if ends is None else row | {"low": min(ends[0], _FAR), "high": min(ends[1], _FAR)}


def _panel(title: str, rows: list[dict[str, Any]], words: Words) -> Spec:
    edges = [value for row in rows for value in (row["t"], row.get("low", 0.0), row.get("high", 0.0))]
    low, high = min(0.0, *edges), max(0.0, *edges)
    room = max(0.02, high - low)
    x = axis("t", words["change_axis"], domain=[low - 0.08 * room, high + 0.3 * room], format_="+.0%")
    names = [row["name"] for row in rows]
    y = {"field": "name", "type": "nominal", "sort": names, "title": None, "axis": {"labelLimit": 150, "ticks": False}}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    data = {"values": rows}
    told = {"type": "text", "align": "left", "dx": 7, "fontSize": 11, "fontWeight": 600}
    where = x | {"field": "high" if all("high" in row for row in rows) else "t"}
    layers: list[Spec] = [
        {"data": {"values": [{"t": 0}]}, "mark": {"type": "rule", "color": INK}, "encoding": {"x": x}},
        {"data": data, "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
         "encoding": {"x": x, "y": y, "color": colour}},
        {"data": data, "mark": told,
         "encoding": {"x": where, "y": y, "color": colour, "text": {"field": "told", "type": "nominal"}}},
    ]  # fmt: skip
    known = [row for row in rows if "low" in row]
    if known:
        ends = {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y, "color": colour}
        layers.insert(1, {"data": {"values": known}, "mark": {"type": "rule", "strokeWidth": 2.5}, "encoding": ends})
    return panel(title, "", layers) | {"height": max(HEIGHT // 2, _ROW * len(rows))}
