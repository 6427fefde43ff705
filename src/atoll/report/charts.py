"""Charts as Vega-Lite specifications (plain dicts), drawn without a browser or a network by vl_convert.

Every chart is a handful of panels. The page lays panels out itself, so that they reflow on a phone; `draw_charts` joins
them into one picture each, for slides.
"""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np

from atoll.analyse.summary import Summary, latencies
from atoll.report.series import TtftSeries, in_flight, quantiles, tokens_over_run, waits_over_run
from atoll.report.view import RunView, StudyView
from atoll.report.words import Words, words_in
from atoll.traffic.record import Floats
from atoll.units import show_seconds

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_VERSION = "6.4"
INK, FAINT, GRID = "#24292f", "#6e7781", "#d8dee4"  # the page swaps these for its own, light or dark
BAD = "#d1242f"
# Okabe and Ito's colours, which colour-blind readers can tell apart, without the yellow, then darker ones.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f4fc9", "#8c6d31", "#1b7f79", "#a33a3a")

WIDTH, HEIGHT = 300, 150
_LETTERS = 42  # of a panel's title that stand side by side over its width
_SHORTEST_S = 1e-6  # an axis of no length cannot be drawn
_FINE = (1, 1.5, 2, 3, 4, 5, 7)
_FLATTENS = 12.0  # a panel whose waits are a twelfth of the scale shows a line on the floor


def colours_of(view: StudyView) -> dict[str, str]:
    """Every run keeps its colour in all charts."""
    return {run.name: PALETTE[place % len(PALETTE)] for place, run in enumerate(view.runs)}


def draw_charts(view: StudyView, *, lang: str = "en") -> dict[str, Spec]:
    """Every chart of a study by name, each one picture; charts without data are left out."""
    words = words_in(lang)
    charts = {
        "ttft-over-run": (words["ttft_over_run"], wait_panels(view, words), 3),
        "latencies": (words["distributions"], latency_panels(view, words), 2),
        "throughput": (words["throughput"], throughput_panels(view, words), 2),
        "replica-balance": (words["in_flight"], balance_panels(view, words), 3),
    }
    legends = {"latencies", "throughput"}
    return {
        name: _joined(title, panels, columns, legend=colours_of(view) if name in legends else None)
        for name, (title, panels, columns) in charts.items()
        if panels
    }


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


def wait_panels(view: StudyView, words: Words) -> list[Spec]:
    """TTFT over the run: the p95 of the contenders over each other, then a panel a run.

    All on one scale, but for a run that would press the others to the floor: it is left out of the first panel, and has
    a scale of its own, which its panel says.
    """
    runs = view.measured_runs
    series = {run.name: waits for run in runs if len((waits := waits_over_run(run)).ttft_s)}
    if not series:
        return []
    tops = {name: max(float(np.quantile(w.ttft_s, 0.99)), float(w.p95_s.max())) for name, w in series.items()}
    contenders = {name for name, top in tops.items() if top <= _FLATTENS * min(tops.values())}
    shared = max(top for name, top in tops.items() if name in contenders)
    x = _axis("t", words["time_axis"], domain=[0, max(_SHORTEST_S, *(float(w.sent_s.max()) for w in series.values()))])
    colours = colours_of(view)
    panels = []
    if len(contenders) > 1:
        y = _axis(
            "s", words["ttft_axis"], domain=[0, 1.1 * max(float(series[name].p95_s.max()) for name in contenders)]
        )
        lines = [
            _layer({"t": _short(w.middle_s), "s": _short(w.p95_s)}, _line(colours[name]), x=x, y=y)
            for name, w in series.items()
            if name in contenders
        ]
        panels.append(_panel(words["waits_overlaid"], "", lines))
    for run in runs:
        if run.name in series:
            own = run.name not in contenders
            y = _axis("s", words["ttft_axis"], domain=[0, 1.1 * (tops[run.name] if own else shared)])
            panels.append(
                _wait_panel(run, series[run.name], (x, y), colours[run.name], words["own_scale"] if own else "")
            )
    return panels


def _unmeasured_band(run: RunView, x: Spec, y: Spec) -> list[Spec]:
    """A grey band over the time that the percentiles leave out."""
    start = run.summary.measured_from_s if run.summary is not None else 0.0
    if not start:
        return []
    low, top = y["scale"]["domain"]
    band = {"values": [{"t": 0, "end": min(start, x["scale"]["domain"][1]), "s": low, "top": top}]}
    encoding = {"x": x, "x2": {"field": "end"}, "y": y, "y2": {"field": "top"}}
    return [{"data": band, "mark": {"type": "rect", "color": GRID, "opacity": 0.5}, "encoding": encoding}]


def _wait_panel(run: RunView, waits: TtftSeries, axes: tuple[Spec, Spec], colour: str, remark: str) -> Spec:
    assert run.summary is not None
    x, y = axes
    low, top = y["scale"]["domain"]
    points = {"t": _short(waits.sent_s), "s": _short(np.clip(waits.ttft_s, low, top))}
    failed = {"t": _short(waits.failed_s), "s": [top] * len(waits.failed_s)}
    lines = {"p50": np.maximum(waits.p50_s, low), "p95": np.maximum(waits.p95_s, low)}
    layers = [
        *_unmeasured_band(run, x, y),
        _layer(points, {"type": "point", "filled": True, "size": 9, "opacity": 0.3, "color": colour}, x=x, y=y),
        _layer({"t": _short(waits.middle_s), "s": _short(lines["p50"])}, _line(colour, dash=[4, 2]), x=x, y=y),
        _layer({"t": _short(waits.middle_s), "s": _short(lines["p95"])}, _line(colour, width=2.2), x=x, y=y),
    ]
    if len(waits.failed_s):
        layers.append(_layer(failed, {"type": "point", "shape": "cross", "color": BAD, "size": 30}, x=x, y=y))
    wait = run.summary.ttft_s
    said = [f"p50 {show_seconds(wait.p50)}", f"p95 {show_seconds(wait.p95)}", *([remark] if remark else [])]
    return _panel(run.name, " · ".join(said), layers)


def latency_panels(view: StudyView, words: Words) -> list[Spec]:
    """The share of requests within a latency: TTFT, ITL, TPOT and E2E, a line a run."""
    runs = view.measured_runs
    colours = colours_of(view)
    panels = []
    for measure in ("ttft_s", "itl_s", "tpot_s", "e2e_s"):
        lines = [(colours[run.name], *_shares(run, measure)) for run in runs]
        lines = [line for line in lines if len(line[1])]
        if lines:
            panels.append(_share_panel(words[measure], lines, words))
    return panels


def _shares(run: RunView, measure: str) -> tuple[Floats, Floats]:
    assert run.table is not None
    if measure == "itl_s":
        return quantiles(*run.table.gaps(run.ok_rows))
    values = getattr(latencies(run.table), measure)[run.ok_rows]
    return quantiles(values[~np.isnan(values)])


def _share_panel(title: str, lines: Sequence[tuple[str, Floats, Floats]], words: Words) -> Spec:
    longest = max(_SHORTEST_S, *(float(values.max()) for _, values, _ in lines))
    shortest = max(min(float(values[values > 0].min(initial=longest)) for _, values, _ in lines), longest / 1e4)
    margin = 1.5 if longest < 1.2 * shortest else 1.0  # equal values are a step in the middle, not an empty panel
    x = _axis("s", words["seconds_axis"], domain=[shortest / margin, longest * margin], scale="log")
    y = _axis("share", words["share_axis"], domain=[0, 1], format_=".0%")
    layers = [
        _layer({"s": _short(np.maximum(values, shortest)), "share": _short(shares)}, _line(colour), x=x, y=y)
        for colour, values, shares in lines
    ]
    return _panel(title, "", layers)


def throughput_panels(view: StudyView, words: Words) -> list[Spec]:
    """Output tokens per second: a bar a run with the prediction as a mark, and over the run."""
    runs = view.measured_runs
    if not runs:
        return []
    colours = colours_of(view)
    bars = [
        {
            "name": run.name,
            "rate": round(rate_of(run.summary), 2),
            "colour": colours[run.name],
            **_predicted(run),
            **_band(run),
        }
        for run in runs
        if run.summary is not None
    ]
    return [_bar_panel(bars, words), *_rate_panel(runs, colours, words)]


def rate_of(summary: Summary) -> float:
    """Tokens per second while requests were being sent: the ramp-down at the end says nothing about a layout."""
    return summary.output_tokens_per_s


def _predicted(run: RunView) -> dict[str, float]:
    return {} if run.predicted is None else {"predicted": round(rate_of(run.predicted), 2)}


def _band(run: RunView) -> dict[str, float]:
    """The band of what was predicted: of the bar itself, or of the mark on it."""
    band = run.band or run.predicted_band
    if band is None or band.output_tokens_per_s is None:
        return {}
    low, high = band.output_tokens_per_s
    return {"low": round(low, 2), "high": round(high, 2)}


def _bar_panel(bars: list[dict[str, Any]], words: Words) -> Spec:
    names = [bar["name"] for bar in bars]
    y = {"field": "name", "type": "nominal", "sort": names, "title": None, "axis": {"labelLimit": 170, "ticks": False}}
    x = {"field": "rate", "type": "quantitative", "title": words["rate_axis"]}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    data = {"values": bars}
    layers: list[Spec] = [
        {"data": data, "mark": {"type": "bar"}, "encoding": {"x": x, "y": y, "color": colour}},
        {
            "data": data,
            "mark": {"type": "text", "align": "right", "dx": -4, "color": "white", "fontSize": 10},
            "encoding": {"x": x, "y": y, "text": {"field": "rate", "type": "quantitative", "format": ",.0f"}},
        },
    ]
    if any("predicted" in bar for bar in bars):
        mark = {"type": "tick", "color": INK, "thickness": 2}
        layers.append({"data": data, "mark": mark, "encoding": {"x": x | {"field": "predicted"}, "y": y}})
    known = [bar for bar in bars if "low" in bar]
    if known:
        ends = {"x": x | {"field": "low"}, "x2": {"field": "high"}, "y": y}
        rule = {"type": "rule", "color": INK, "strokeWidth": 1}
        layers.append({"data": {"values": known}, "mark": rule, "encoding": ends})
    panel = _panel(words["rate_by_run"], "", layers)
    return panel | {"height": max(HEIGHT, 22 * len(bars))}


def _rate_panel(runs: Sequence[RunView], colours: Mapping[str, str], words: Words) -> list[Spec]:
    lines = [(colours[run.name], *tokens_over_run(run.table)) for run in runs if run.table is not None]
    lines = [line for line in lines if len(line[1])]
    if not lines:
        return []
    end = max(float(middles[-1]) for _, middles, _ in lines)
    top = 1.05 * max(float(rates.max()) for _, _, rates in lines)
    x = _axis("t", words["time_axis"], domain=[0, end])
    y = _axis("rate", words["rate_axis"], domain=[0, top])
    layers = [
        _layer({"t": _short(middles), "rate": _short(rates)}, _line(colour), x=x, y=y)
        for colour, middles, rates in lines
    ]
    return [_panel(words["rate_over_run"], "", layers)]


def balance_panels(view: StudyView, words: Words) -> list[Spec]:
    """Requests that each replica had at a time, a panel a run with several replicas, all on one scale."""
    flights = {run.name: in_flight(run.table) for run in view.measured_runs if run.table is not None}
    shown = {name: lines for name, lines in flights.items() if len(lines) > 1}
    if not shown:
        return []
    top = max(float(counts.max()) for lines in shown.values() for _, counts in lines.values())
    end = max(_SHORTEST_S, *(float(times[-1]) for lines in shown.values() for times, _ in lines.values()))
    x = _axis("t", words["time_axis"], domain=[0, end])
    y = _axis("n", words["in_flight_axis"], domain=[0, top])
    return [_balance_panel(view.run(name), lines, x, y) for name, lines in shown.items()]


def _balance_panel(run: RunView, lines: Mapping[str, tuple[Floats, Floats]], x: Spec, y: Spec) -> Spec:
    layers = [
        _layer({"t": _short(times), "n": _short(counts)}, _line(replica_colour(place), width=1.4, step=True), x=x, y=y)
        for place, (times, counts) in enumerate(lines.values())
    ]
    tokens = {part.replica: part.output_tokens_per_s for part in run.summary.per_replica} if run.summary else {}
    total = sum(tokens.values())
    shares = " / ".join(f"{tokens[name] / total:.0%}" for name in lines if name in tokens and total)
    return _panel(run.name, shares, layers)


def replica_colour(place: int) -> str:
    """The colour of a replica, the same in the drawing of the layout."""
    return PALETTE[place % len(PALETTE)]


def _axis(
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


def _layer(columns: Mapping[str, list[float]], mark: Spec, *, x: Spec, y: Spec) -> Spec:
    names = list(columns)
    values = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    encoding: Spec = {"x": x, "y": y}
    if mark["type"] == "line":
        encoding["order"] = {"field": "share" if "share" in names else "t", "type": "quantitative"}
    return {"data": {"values": values}, "mark": mark | {"clip": True}, "encoding": encoding}


def _line(colour: str, *, width: float = 1.8, dash: list[int] | None = None, step: bool = False) -> Spec:
    mark: Spec = {"type": "line", "color": colour, "strokeWidth": width}
    if dash:
        mark["strokeDash"] = dash
    return mark | ({"interpolate": "step-after"} if step else {})


def _short(values: Floats) -> list[float]:
    """Four digits are more than a chart can show, and keep the file small."""
    return [float(f"{value:.4g}") for value in values]


def _panel(title: str, said: str, layers: list[Spec]) -> Spec:
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


def _joined(title: str, panels: list[Spec], columns: int, *, legend: Mapping[str, str] | None) -> Spec:
    """One picture of several panels, with the runs' colours named below its title."""
    bare = [{key: value for key, value in panel.items() if key not in {"$schema", "config"}} for panel in panels]
    key = [{"name": name, "colour": colour} for name, colour in (legend or {}).items()]
    concat: Spec = {"concat": bare, "columns": columns}
    spec: Spec = {"$schema": SCHEMA, "title": {"text": title, "fontSize": 16, "offset": 14}, "config": _config()}
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
