"""Charts: valid Vega-Lite, drawn without a network, small whatever the run."""

import json
from dataclasses import replace
from importlib import resources

import jsonschema
import numpy as np
import pytest

from atoll.analyse.summary import summarise
from atoll.report.charts import (
    draw_charts,
    draw_slide,
    latency_panels,
    wait_panels,
)
from atoll.report.differences import difference_panels
from atoll.report.telemetry import MOST_RUNS, never_waited, telemetry_panels
from atoll.report.vega import BAD, FAINT, PALETTE, chart_pdf, chart_png, chart_svg, colours_of
from atoll.report.view import RunView
from atoll.report.words import tell_verdict, words_in
from atoll.traffic.record import Record, RecordTable
from atoll.traffic.slo import SLO


@pytest.fixture(scope="module")
def check():
    text = resources.files("altair").joinpath("vegalite/v6/schema/vega-lite-schema.json").read_text(encoding="utf-8")
    validator = jsonschema.Draft7Validator(json.loads(text))

    def check(spec: dict) -> None:
        fault = jsonschema.exceptions.best_match(validator.iter_errors(spec))
        assert fault is None, f"{fault.json_path}: {fault.message[:300]}"

    return check


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_every_chart_is_valid_vega_lite(view, check, lang):
    charts = draw_charts(view, lang=lang)
    assert list(charts) == ["differences", "ttft-over-run", "latencies", "throughput", "replica-balance"]
    for spec in charts.values():
        check(spec)


def test_every_panel_is_valid_on_its_own(view, check):
    for panel in (*wait_panels(view, words_in("en")), *latency_panels(view, words_in("en"))):
        check(panel)


def test_all_panels_of_the_wait_share_their_scales(view):
    first, *panels = wait_panels(view, words_in("en"))
    assert len(first["layer"]) == len(panels) == 2  # the p95 of both over each other, then each by itself
    for axis in "xy":
        domains = {tuple(layer["encoding"][axis]["scale"]["domain"]) for panel in panels for layer in panel["layer"]}
        assert len(domains) == 1


def test_a_run_whose_waits_would_flatten_the_others_has_a_scale_of_its_own(make_view, make_records, make_layout):
    def panels(*waits: float) -> dict[str, tuple[float, str]]:
        runs = []
        for number, wait in enumerate(waits):
            table = make_records(wait_s=wait, step_s=0.01, replicas=1)
            runs.append(
                RunView(name=str(number), layout=make_layout("x", ((0,),)), table=table, summary=summarise(table))
            )
        drawn = wait_panels(make_view(runs=tuple(runs), ranking=()), words_in("en"))
        return {
            panel["title"]["text"]: (
                panel["layer"][-1]["encoding"]["y"]["scale"]["domain"][1],
                panel["title"].get("subtitle", ""),
                len(panel["layer"]),
            )
            for panel in drawn
        }

    close = panels(0.2, 1.0)
    assert close["0"][0] == close["1"][0]
    assert "own scale" not in close["0"][1] + close["1"][1]
    far = panels(0.2, 0.4, 20.0)
    assert far["0"][0] == far["1"][0] < far["2"][0] / 10
    assert far["2"][1].endswith("own scale")
    assert far["The p95 of those that are close"][2] == 2
    assert "The p95 of those that are close" not in panels(0.2, 20.0)


def test_a_chart_is_drawn_as_svg_and_as_png(view):
    spec = draw_charts(view)["latencies"]
    svg = chart_svg(spec)
    assert svg.startswith("<svg")
    assert "2xTP2" in svg
    assert chart_png(spec, scale=1.0).startswith(b"\x89PNG")


def test_a_hundred_times_the_requests_make_no_bigger_chart(make_view, make_records, make_layout):
    def size(count: int) -> int:
        table = make_records(wait_s=0.2, step_s=0.001, replicas=1, count=count)
        run = RunView(name="run", layout=make_layout("x", ((0,),)), table=table, summary=summarise(table))
        return len(json.dumps(draw_charts(make_view(runs=(run,), ranking=()))))

    assert size(20_000) < 1.1 * size(400)


def test_a_run_keeps_its_colour_whatever_its_place(view):
    assert colours_of(view) == dict(zip(["1xTP4", "2xTP2", "4xTP1"], PALETTE, strict=False))


def test_charts_without_data_are_left_out(make_view, view):
    assert draw_charts(make_view(runs=view.runs[2:], ranking=())) == {}
    single = draw_charts(make_view(runs=view.runs[:1], ranking=()))
    assert "replica-balance" not in single


def equal_waits(make_layout, *, gap_s: float, together: bool = False):
    """One run whose latencies are all the same, its requests one after the other or all at once."""
    records = [
        Record(number=n, user=n, sent_s=sent, token_s=[sent + 0.2, sent + 0.2 + gap_s], done_s=sent + 0.2 + gap_s,
               output_tokens=2, prompt_tokens=10, replica=str(n % 2))
        for n, sent in enumerate([0.0] * 8 if together else range(8))
    ]  # fmt: skip
    table = RecordTable.from_records(records)
    return RunView(name="only", layout=make_layout("only", ((0,), (1,))), table=table, summary=summarise(table))


@pytest.mark.parametrize(("gap_s", "together"), [(0.1, False), (0.0, False), (0.0, True)])
def test_latencies_that_are_all_equal_are_drawn(view, make_layout, gap_s, together):
    one = replace(view, runs=(equal_waits(make_layout, gap_s=gap_s, together=together),), ranking=())
    for spec in draw_charts(one).values():
        assert "<svg" in chart_svg(spec)
    for panel in latency_panels(one, words_in("en")):
        low, top = panel["layer"][0]["encoding"]["x"]["scale"]["domain"]
        assert 0 < low < top
        assert panel["layer"][0]["encoding"]["x"]["axis"]["values"]  # the axis has figures


def test_a_long_name_does_not_run_into_the_next_panel(view):
    long = replace(view.runs[0], name="2xTP2-with-a-name-that-is-far-longer-than-its-panel-is-wide")
    panels = wait_panels(replace(view, runs=(long, *view.runs[1:]), ranking=()), words_in("en"))
    (title,) = [panel["title"]["text"] for panel in panels if isinstance(panel["title"]["text"], list)]
    assert "".join(title) == long.name
    assert max(map(len, title)) <= 42


def _sampled(*, waiting: float, seconds: int = 300) -> dict:
    """Two replicas of two cards each, sampled each second."""
    rows = []
    for second in range(seconds):
        for replica in (0, 1):
            rows.append((second, f"replica {replica}", "kv_usage", 0.9 if second == 7 and replica else 0.25))
            rows.append((second, f"replica {replica}", "waiting", waiting))
        rows += [(second, f"gpu {gpu}", "power_w", 100.0 * (gpu + 1)) for gpu in range(4)]
    columns = zip(*rows, strict=True)
    return {
        name: np.array(list(column))
        for name, column in zip(("time_s", "source", "name", "value"), columns, strict=True)
    }


def test_what_was_sampled_is_drawn_by_the_replica_and_peaks_are_kept(view, check):
    run = replace(view.runs[1], telemetry=_sampled(waiting=0))
    alone = replace(view, runs=(run,), ranking=())
    panels = telemetry_panels(alone, words_in("en"))
    for panel in panels:
        check(panel)
    assert [panel["title"]["text"] for panel in panels] == ["KV cache in use", "Power"]  # no queue, no use of cards
    assert panels[0]["title"]["subtitle"] == "at most 90%, 25% in the mean"
    cards = [[row["n"] for row in layer["data"]["values"]] for layer in panels[1]["layer"]]
    assert [set(values) for values in cards] == [{300.0}, {700.0}]  # 100 + 200 W, 300 + 400 W
    assert panels[1]["title"]["subtitle"] == "1,000 W in the mean, all together"
    assert never_waited(alone)
    assert (
        len(telemetry_panels(replace(alone, runs=(replace(run, telemetry=_sampled(waiting=3)),)), words_in("en"))) == 3
    )


def test_counters_of_many_runs_are_those_of_the_best(view):
    runs = tuple(replace(view.runs[1], name=f"run {number}", telemetry=_sampled(waiting=1)) for number in range(7))
    panels = telemetry_panels(replace(view, runs=runs, ranking=()), words_in("ko"))
    assert len(panels) == 3 * MOST_RUNS
    assert telemetry_panels(view, words_in("en")) == []


def test_differences_are_drawn_with_their_intervals_and_coloured_where_they_are_clear(view, check):
    panels = {panel["title"]["text"]: panel for panel in difference_panels(view, words_in("en"))}
    for panel in panels.values():
        check(panel)
    (wait,) = panels["First token, p95"]["layer"][1]["data"]["values"]
    assert wait["name"] == "2xTP2"
    assert wait["low"] < wait["t"] < wait["high"] < 0
    assert wait["colour"] not in {BAD, FAINT}
    assert wait["told"] == "\u221290%"
    (rate,) = panels["output tokens/s"]["layer"][1]["data"]["values"]
    assert rate["colour"] == FAINT  # measured rates have no interval
    assert "low" not in rate


def test_a_target_is_a_line_where_it_is_not_far_above_all_waits(view, make_layout):
    def lines(ttft: float) -> tuple[int, str]:
        layout = make_layout("2xTP2", ((0, 1), (2, 3))).replace(slo=SLO(ttft_s=ttft))
        alone = replace(view, runs=(replace(view.runs[1], layout=layout),), ranking=())
        (panel,) = wait_panels(alone, words_in("en"))
        return sum(layer["mark"]["type"] == "rule" for layer in panel["layer"]), panel["title"]["subtitle"]

    assert lines(0.25)[0] == lines(0.5)[0] == 1
    count, said = lines(9.0)
    assert count == 0
    assert said.endswith("target 9 s")


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_a_slide_is_one_page_with_the_message_on_it(view, check, lang):
    spec = draw_slide(view, lang=lang)
    check(spec)
    assert " ".join(spec["title"]["text"]) == tell_verdict(view, lang=lang)[0]
    assert spec["title"]["subtitle"].startswith({"en": "emulated · Qwen", "ko": "에뮬레이션 · Qwen"}[lang])
    alone = draw_slide(replace(view, runs=view.runs[1:2], ranking=()), lang=lang)
    assert len(alone["concat"]) == 5  # two distributions, waits, two of tokens


def test_every_chart_of_its_own_says_the_message_and_a_slide_is_a_pdf(view):
    message = tell_verdict(view)[0]
    for spec in draw_charts(view).values():
        assert " ".join(spec["title"]["text"]) == message
    pdf = chart_pdf(draw_slide(view))
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") <= 1
