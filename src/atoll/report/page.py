"""A study as one HTML file that needs nothing else: no network, no fonts, no scripts from anywhere."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from atoll.analyse.band import Interval
from atoll.analyse.compare import Verdict
from atoll.documents import write_table
from atoll.report.beside import kind_of, kind_of_rates, set_beside, tell_change
from atoll.report.charts import balance_panels, latency_panels, rate_of, throughput_panels, wait_panels
from atoll.report.differences import difference_panels
from atoll.report.drawing import draw_layout
from atoll.report.message import find_message
from atoll.report.series import POINTS
from atoll.report.telemetry import MOST_RUNS, never_waited, telemetry_panels
from atoll.report.vega import FAINT, GRID, INK, Spec, chart_svg, colours_of
from atoll.report.view import RunView, StudyView
from atoll.report.words import Words, tell_load, tell_place, tell_verdict, words_in
from atoll.traffic.record import Source
from atoll.units import show_seconds

__all__ = ["RunView", "StudyView", "render_report"]

_GEOMETRY = re.compile(r' (?:d|transform)="[^"]*"')
_NUMBER = re.compile(r"-?\d+\.\d{2,}")


def render_report(view: StudyView, *, lang: str = "en") -> str:
    """The page.

    Args:
        view: the runs, with what was made of them.
        lang: `en` or `ko`.

    Raises:
        InputError: no such language.
    """
    words = words_in(lang)
    message = find_message(view)
    rows = [_row(view, run, words) for run in _in_order(view)]
    page: str = _template().render(
        view=view,
        lang=lang,
        words=words,
        source_note=words.get(f"{_setting(view)}_note", words["external_note"]),
        title=view.title or view.name,
        verdict=tell_verdict(view, lang=lang),
        load=tell_load(view, lang=lang),
        beside=None if message is None else set_beside(message, words),
        rows=rows,
        alone=len(view.runs) == 1,
        table_csv=_csv(rows, words),
        against=words["against"].format(name=_baseline(view)),
        baseline=_baseline(view),
        predicted_word=words["plumbing" if view.source is Source.EMULATED else "predicted"],
        has_predictions=any(run.predicted is not None for run in view.runs),
        charts=_draw_panels(view, words),
        points=POINTS,
        telemetry_notes=_telemetry_notes(view, words),
        failures=[(run.name, run.summary.failures) for run in view.runs if run.summary and run.summary.failures],
        bad_column=len(view.runs) > 1 or any(_lost(run) for run in view.runs),
        colours=colours_of(view),
        drawings=_draw_layouts(view, words),
        method=[words[f"method_{name}"] for name in _methods(view)],
        seconds=show_seconds,
    )
    return page


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One line of the table of variants, as text."""

    name: str
    place: str
    gpus: str
    cells: Mapping[str, str]
    bands: Mapping[str, str]  # by the cell that one stands under
    changes: Mapping[str, tuple[str, str]]  # (text, colour), from the baseline, by the cell
    against: str
    against_interval: str
    against_kind: str  # "good", "bad", "" for the colour
    run: RunView


def _methods(view: StudyView) -> tuple[str, ...]:
    """What is explained at the end; bands only where something was predicted."""
    usual = ("ttft", "itl", "tpot", "e2e", "window", "interval", "rank")
    predicts = view.source is Source.SIMULATED or any(run.predicted is not None for run in view.runs)
    return (*usual, "band") if predicts else usual


def _setting(view: StudyView) -> str:
    """What the page says below its verdict: of measured runs, whether we brought the engines up ourselves."""
    return view.engine if view.source is Source.MEASURED else view.source


def _in_order(view: StudyView) -> list[RunView]:
    best_first = [run.name for run in view.measured_runs]
    return [*view.measured_runs, *(run for run in view.runs if run.name not in best_first)]


def _baseline(view: StudyView) -> str:
    return view.baseline or (view.runs[0].name if view.runs else "-")


def _row(view: StudyView, run: RunView, words: Words) -> _Row:
    against, interval, kind = _against(view, run, words)
    return _Row(
        name=run.name,
        place=tell_place(view.place(run.name)),
        gpus=_gpus(run),
        cells=_cells(run),
        bands=_bands(run),
        changes=_changes(view, run),
        against=against,
        against_interval=interval,
        against_kind=kind,
        run=run,
    )


def _gpus(run: RunView) -> str:
    if run.layout is None:
        return "-"
    sizes = [replica.tensor_parallel for replica in run.layout.replicas]
    groups = " + ".join(f"{sizes.count(size)} × TP{size}" for size in sorted(set(sizes), reverse=True))
    return f"{groups}" + (f" · {run.layout.router.policy}" if len(sizes) > 1 else "")


def _cells(run: RunView) -> dict[str, str]:
    summary = run.summary
    if summary is None:
        return {}
    counts = summary.requests
    return {
        "TTFT p50": show_seconds(summary.ttft_s.p50),
        "TTFT p95": show_seconds(summary.ttft_s.p95),
        "TTFT p99": show_seconds(summary.ttft_s.p99),
        "TPOT": show_seconds(summary.tpot_s.p50),
        "E2E p50": show_seconds(summary.e2e_s.p50),
        "tok/s": f"{rate_of(summary):,.0f}",
        "ok": f"{counts.ok:,}",
        "bad": " + ".join(f"{count:,}" for count in (counts.failed, counts.cancelled)),
    }


def _bands(run: RunView) -> dict[str, str]:
    """The bands of a prediction's means, under the cells that they belong to."""
    band = run.band
    if band is None:
        return {}
    times = {"TTFT p50": band.ttft_s, "TPOT": band.tpot_s, "E2E p50": band.e2e_s}
    shown = {name: f"{show_seconds(low)} … {show_seconds(high)}" for name, (low, high) in _known(times)}
    rates = {"tok/s": band.output_tokens_per_s}
    return shown | {name: f"{low:,.0f} … {high:,.0f}" for name, (low, high) in _known(rates)}


def _known(intervals: Mapping[str, Interval | None]) -> list[tuple[str, Interval]]:
    return [(name, interval) for name, interval in intervals.items() if interval is not None]


def _against(view: StudyView, run: RunView, words: Words) -> tuple[str, str, str]:
    """(Difference of the wait from the baseline's, its interval, the colour)."""
    place = view.place(run.name)
    if place is None:
        return "-", "", ""
    if place.against_baseline is None:
        return words["baseline"], "", ""
    found = place.against_baseline.difference("ttft_s", "p95")
    if found.difference is None or found.low is None or found.high is None:
        return "-", "", ""
    interval = f"{_signed(found.low)} … {_signed(found.high)}"
    if not found.is_clear:
        return words["within_band" if found.verdict is Verdict.WITHIN_BAND else "unclear"], interval, ""
    return _signed(found.difference), interval, kind_of(found)


def _changes(view: StudyView, run: RunView) -> dict[str, tuple[str, str]]:
    """How far pace, answers and tokens are from the baseline's; coloured where that is told apart."""
    place = view.place(run.name)
    against = None if place is None else place.against_baseline
    if against is None or run.summary is None:
        return {}
    shown = {}
    for cell, measure in (("TPOT", "tpot_s"), ("E2E p50", "e2e_s")):
        found = against.difference(measure, "p50")
        if found.first is not None and found.second is not None:
            shown[cell] = (tell_change(found.first, found.second), kind_of(found))
    base = view.run(against.first).summary
    if base is not None:
        rates = base.output_tokens_per_s, run.summary.output_tokens_per_s
        shown["tok/s"] = (tell_change(*rates), kind_of_rates(against, *rates))
    return shown


_COLUMNS = (
    "place", "variant", "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "tpot_p50_s", "e2e_p50_s", "output_tokens_per_s",
    "ok", "failed", "cancelled",
)  # fmt: skip


def _csv(rows: Sequence[_Row], words: Words) -> str:
    """The table as an address that holds it, seconds with all their digits."""
    table: list[Sequence[object]] = [_COLUMNS]
    for row in rows:
        summary = row.run.summary
        if summary is None:
            table.append([row.place, row.name, row.run.failure or words["did_not_run"]])
            continue
        counts, ttft = summary.requests, summary.ttft_s
        figures = (ttft.p50, ttft.p95, ttft.p99, summary.tpot_s.p50, summary.e2e_s.p50, summary.output_tokens_per_s)
        table.append([row.place, row.name, *figures, counts.ok, counts.failed, counts.cancelled])
    text = write_table(table, line_end="\r\n")
    return f"data:text/csv;charset=utf-8,{quote(text)}"


def _signed(seconds: float) -> str:
    return ("+" if seconds > 0 else "−" if seconds < 0 else "") + show_seconds(abs(seconds))


def _draw_panels(view: StudyView, words: Words) -> dict[str, list[Markup]]:
    panels = {
        "differences": difference_panels(view, words),
        "ttft_over_run": wait_panels(view, words),
        "distributions": latency_panels(view, words),
        "throughput": throughput_panels(view, words),
        "in_flight": balance_panels(view, words),
        "telemetry": telemetry_panels(view, words),
    }
    return {name: [inline_chart(spec) for spec in specs] for name, specs in panels.items()}


def inline_chart(spec: Spec) -> Markup:
    """SVG for the page: its colours follow light and dark, its numbers are no longer than a pixel needs."""
    svg = chart_svg(spec)
    svg = svg[svg.index("<svg") :]
    svg = _GEOMETRY.sub(lambda shape: _NUMBER.sub(lambda number: f"{float(number[0]):.1f}", shape[0]), svg)
    for colour, role in ((INK, "currentColor"), (FAINT, "var(--faint)"), (GRID, "var(--grid)")):
        svg = svg.replace(colour, role)
    named = f'<svg role="img" aria-label="{escape(_heading(spec))}" '
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', lambda found: named + found[1], svg, count=1)
    return Markup(svg)  # noqa: S704 - made by Vega from our own specification, which escapes every text


def _heading(spec: Spec) -> str:
    """What a chart says above itself, for those who hear the page."""
    text, said = spec["title"]["text"], spec["title"].get("subtitle", "")
    return " ".join([*([text] if isinstance(text, str) else text), said]).strip()


def _telemetry_notes(view: StudyView, words: Words) -> str:
    told = [words["telemetry_note"]]
    if len(view.measured_runs) > MOST_RUNS:
        told.append(words["telemetry_of"].format(count=MOST_RUNS))
    return " ".join([*told, *([words["never_waited"]] if never_waited(view) else [])])


def _lost(run: RunView) -> int:
    return 0 if run.summary is None else run.summary.requests.failed + run.summary.requests.cancelled


def _draw_layouts(view: StudyView, words: Words) -> list[tuple[RunView, Markup]]:
    return [
        (run, draw_layout(run.layout, router_word=words["router"], idle_word=words["idle"]))
        for run in _in_order(view)
        if run.layout is not None
    ]


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("atoll.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")
