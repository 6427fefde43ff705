"""Charts as Vega-Lite specifications (plain dicts); vega.py has what they are made of.

Every chart is a handful of panels. The page lays panels out itself, so that they reflow on a phone; `draw_charts` joins
them into one picture each, for slides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from atoll.analyse.summary import Summary, latencies
from atoll.report.differences import difference_panels
from atoll.report.series import TtftSeries, in_flight, quantiles, tokens_over_run, waits_over_run
from atoll.report.telemetry import telemetry_panels
from atoll.report.vega import (
    BAD,
    GRID,
    HEIGHT,
    INK,
    Spec,
    axis,
    colours_of,
    joined,
    layer,
    line,
    panel,
    replica_colour,
    short,
)
from atoll.report.view import RunView, StudyView
from atoll.report.words import Words, tell_load, tell_verdict, words_in
from atoll.traffic.record import Floats
from atoll.units import show_seconds

_SHORTEST_S = 1e-6  # an axis of no length cannot be drawn
_STILL_SHOWN = 3.0  # a target so many times above the slowest waits is told, not drawn
_FLATTENS = 12.0  # a panel whose waits are a twelfth of the scale shows a line on the floor


def draw_charts(view: StudyView, *, lang: str = "en") -> dict[str, Spec]:
    """Every chart of a study by name, each one picture; charts without data are left out."""
    words = words_in(lang)
    charts = {
        "differences": (words["differences"], difference_panels(view, words), 2),
        "ttft-over-run": (words["ttft_over_run"], wait_panels(view, words), 3),
        "latencies": (words["distributions"], latency_panels(view, words), 2),
        "throughput": (words["throughput"], throughput_panels(view, words), 2),
        "replica-balance": (words["in_flight"], balance_panels(view, words), 3),
        "telemetry": (words["telemetry"], telemetry_panels(view, words), 2),
    }
    legends = {"latencies", "throughput"}
    message = tell_verdict(view, lang=lang)[0]
    return {
        name: joined(message, panels, columns, said=title, legend=colours_of(view) if name in legends else None)
        for name, (title, panels, columns) in charts.items()
        if panels
    }


def draw_slide(view: StudyView, *, lang: str = "en") -> Spec:
    """One picture for a slide: the message, what was run and how, and the few panels that show it.

    Differences from the baseline where there are several runs, else how long tokens and answers take; then the waits
    over the run and tokens per second.
    """
    words = words_in(lang)
    panels = difference_panels(view, words)[:3] or latency_panels(view, words)[::3]  # TTFT and whole answers
    panels += wait_panels(view, words)[:1] + throughput_panels(view, words)[:2]
    parts = (words[view.source], view.model, tell_load(view, lang=lang), view.made_on)
    said = " · ".join(part for part in parts if part)
    message = tell_verdict(view, lang=lang)[0]
    return joined(message, panels, 3, said=said, legend=colours_of(view) if len(view.measured_runs) > 1 else None)


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
    target = view.target("ttft_s")
    if target is not None and shared < target <= _STILL_SHOWN * shared:
        shared = target  # so that one sees how far below it all stay
    x = axis("t", words["time_axis"], domain=[0, max(_SHORTEST_S, *(float(w.sent_s.max()) for w in series.values()))])
    colours = colours_of(view)
    panels = []
    if len(contenders) > 1:
        y = axis("s", words["ttft_axis"], domain=[0, 1.1 * max(float(series[name].p95_s.max()) for name in contenders)])
        lines = [
            layer({"t": short(w.middle_s), "s": short(w.p95_s)}, line(colours[name]), x=x, y=y)
            for name, w in series.items()
            if name in contenders
        ]
        panels.append(panel(words["waits_overlaid"], "", [*lines, *target_line(target, x, y)]))
    for run in runs:
        if run.name in series:
            own = run.name not in contenders
            y = axis("s", words["ttft_axis"], domain=[0, 1.1 * (tops[run.name] if own else shared)])
            panels.append(
                _wait_panel(run, series[run.name], (x, y), colours[run.name], _remarks(target, words, own_scale=own))
            )
    return panels


def _remarks(target: float | None, words: Words, *, own_scale: bool) -> list[str]:
    told = [] if target is None else [words["target"].format(target=show_seconds(target))]
    return [*told, *([words["own_scale"]] if own_scale else [])]


def target_line(target: float | None, x: Spec, y: Spec, *, upright: bool = False) -> list[Spec]:
    """A dashed line at a latency target that lies within the panel's scale."""
    along = x if upright else y
    low, top = along["scale"]["domain"]
    if target is None or not low <= target <= top:
        return []
    mark = {"type": "rule", "color": INK, "strokeDash": [6, 3], "strokeWidth": 1.2}
    name = along["field"]
    return [{"data": {"values": [{name: target}]}, "mark": mark, "encoding": {"x" if upright else "y": along}}]


def _unmeasured_band(run: RunView, x: Spec, y: Spec) -> list[Spec]:
    """A grey band over the time that the percentiles leave out."""
    start = run.summary.measured_from_s if run.summary is not None else 0.0
    if not start:
        return []
    low, top = y["scale"]["domain"]
    band = {"values": [{"t": 0, "end": min(start, x["scale"]["domain"][1]), "s": low, "top": top}]}
    encoding = {"x": x, "x2": {"field": "end"}, "y": y, "y2": {"field": "top"}}
    return [{"data": band, "mark": {"type": "rect", "color": GRID, "opacity": 0.5}, "encoding": encoding}]


def _wait_panel(run: RunView, waits: TtftSeries, axes: tuple[Spec, Spec], colour: str, remarks: list[str]) -> Spec:
    assert run.summary is not None
    x, y = axes
    low, top = y["scale"]["domain"]
    points = {"t": short(waits.sent_s), "s": short(np.clip(waits.ttft_s, low, top))}
    failed = {"t": short(waits.failed_s), "s": [top] * len(waits.failed_s)}
    lines = {"p50": np.maximum(waits.p50_s, low), "p95": np.maximum(waits.p95_s, low)}
    layers = [
        *_unmeasured_band(run, x, y),
        layer(points, {"type": "point", "filled": True, "size": 9, "opacity": 0.3, "color": colour}, x=x, y=y),
        layer({"t": short(waits.middle_s), "s": short(lines["p50"])}, line(colour, dash=[4, 2]), x=x, y=y),
        layer({"t": short(waits.middle_s), "s": short(lines["p95"])}, line(colour, width=2.2), x=x, y=y),
    ]
    if len(waits.failed_s):
        layers.append(layer(failed, {"type": "point", "shape": "cross", "color": BAD, "size": 30}, x=x, y=y))
    layers += target_line(run.target("ttft_s"), x, y)
    wait = run.summary.ttft_s
    said = [f"p50 {show_seconds(wait.p50)}", f"p95 {show_seconds(wait.p95)}", *remarks]
    return panel(run.name, " · ".join(said), layers)


def latency_panels(view: StudyView, words: Words) -> list[Spec]:
    """The share of requests within a latency: TTFT, ITL, TPOT and E2E, a line a run."""
    runs = view.measured_runs
    colours = colours_of(view)
    panels = []
    for measure in ("ttft_s", "itl_s", "tpot_s", "e2e_s"):
        lines = [(colours[run.name], *_shares(run, measure)) for run in runs]
        lines = [line for line in lines if len(line[1])]
        if lines:
            panels.append(_share_panel(words[measure], lines, words, view.target(measure)))
    return panels


def _shares(run: RunView, measure: str) -> tuple[Floats, Floats]:
    assert run.table is not None
    if measure == "itl_s":
        return quantiles(*run.table.gaps(run.ok_rows))
    values = getattr(latencies(run.table), measure)[run.ok_rows]
    return quantiles(values[~np.isnan(values)])


def _share_panel(title: str, lines: Sequence[tuple[str, Floats, Floats]], words: Words, target: float | None) -> Spec:
    longest = max(_SHORTEST_S, *(float(values.max()) for _, values, _ in lines))
    shortest = max(min(float(values[values > 0].min(initial=longest)) for _, values, _ in lines), longest / 1e4)
    margin = 1.5 if longest < 1.2 * shortest else 1.0  # equal values are a step in the middle, not an empty panel
    x = axis("s", words["seconds_axis"], domain=[shortest / margin, longest * margin], scale="log")
    y = axis("share", words["share_axis"], domain=[0, 1], format_=".0%")
    layers = [
        layer({"s": short(np.maximum(values, shortest)), "share": short(shares)}, line(colour), x=x, y=y)
        for colour, values, shares in lines
    ]
    said = "" if target is None else words["target"].format(target=show_seconds(target))
    return panel(title, said, [*layers, *target_line(target, x, y, upright=True)])


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
            "mark": {"type": "text", "align": "left", "dx": 6, "color": "white", "fontSize": 10},  # clear of the band
            "encoding": {
                "x": {"value": 0},
                "y": y,
                "text": {"field": "rate", "type": "quantitative", "format": ",.0f"},
            },
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
    return panel(words["rate_by_run"], "", layers) | {"height": max(HEIGHT, 22 * len(bars))}


def _rate_panel(runs: Sequence[RunView], colours: Mapping[str, str], words: Words) -> list[Spec]:
    lines = [(colours[run.name], *tokens_over_run(run.table)) for run in runs if run.table is not None]
    lines = [line for line in lines if len(line[1])]
    if not lines:
        return []
    end = max(float(middles[-1]) for _, middles, _ in lines)
    top = 1.05 * max(float(rates.max()) for _, _, rates in lines)
    x = axis("t", words["time_axis"], domain=[0, end])
    y = axis("rate", words["rate_axis"], domain=[0, top])
    layers = [
        layer({"t": short(middles), "rate": short(rates)}, line(colour), x=x, y=y) for colour, middles, rates in lines
    ]
    return [panel(words["rate_over_run"], "", layers)]


def balance_panels(view: StudyView, words: Words) -> list[Spec]:
    """Requests that each replica had at a time, a panel a run with several replicas, all on one scale."""
    flights = {run.name: in_flight(run.table) for run in view.measured_runs if run.table is not None}
    shown = {name: lines for name, lines in flights.items() if len(lines) > 1}
    if not shown:
        return []
    top = max(float(counts.max()) for lines in shown.values() for _, counts in lines.values())
    end = max(_SHORTEST_S, *(float(times[-1]) for lines in shown.values() for times, _ in lines.values()))
    x = axis("t", words["time_axis"], domain=[0, end])
    y = axis("n", words["in_flight_axis"], domain=[0, top])
    return [_balance_panel(view.run(name), lines, x, y) for name, lines in shown.items()]


def _balance_panel(run: RunView, lines: Mapping[str, tuple[Floats, Floats]], x: Spec, y: Spec) -> Spec:
    layers = [
        layer({"t": short(times), "n": short(counts)}, line(replica_colour(place), width=1.4, step=True), x=x, y=y)
        for place, (times, counts) in enumerate(lines.values())
    ]
    tokens = {part.replica: part.output_tokens_per_s for part in run.summary.per_replica} if run.summary else {}
    total = sum(tokens.values())
    shares = " / ".join(f"{tokens[name] / total:.0%}" for name in lines if name in tokens and total)
    return panel(run.name, shares, layers)
