"""The page: one file, nothing fetched, everything said, nothing injected."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from atoll.analyse.band import Band
from atoll.analyse.summary import summarise
from atoll.inventory.catalog import make_box
from atoll.layout.layout import Layout, Replica
from atoll.report.charts import throughput_panels
from atoll.report.drawing import draw_layout
from atoll.report.page import render_report
from atoll.report.view import RunView
from atoll.report.words import tell_verdict, words_in
from atoll.traffic.record import Source


@pytest.fixture(scope="module")
def page(view) -> str:
    return render_report(view)


def test_the_page_fetches_nothing(page):
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r'(?:src|href|url\(|@import|srcset)\s*[=("]\s*["\']?(?:https?:)?//', without_names)
    assert "http://" not in without_names
    assert "https://" not in without_names
    assert "<link" not in page


def test_the_page_says_the_verdict_the_numbers_and_where_they_are_from(page, view):
    assert "With two replicas of two cards each (2xTP2), the first token comes sooner" in page
    assert '<span class="chip emulated">emulated</span>' in page
    assert "the engines that answered were emulated" in page
    assert "Three ways over four cards" in page
    assert "Made by atoll 0.1.0" in page
    assert "0123456789abcdef" in page
    assert "the model does not fit" in page
    assert "3 + 0" in page  # failed + cut off


def test_every_variant_has_its_wait_its_layout_and_its_files(page):
    assert page.count('"marks"') == 4 + 1 + 2 + 4 + 2 + 1  # differences, p95s, waits, latencies, throughput, balance
    assert page.count('class="layout"') == 3 + 2  # each variant's, and the two of the message
    assert "vllm serve m --tensor-parallel-size 2" in page
    assert "upstream replicas {}" in page
    assert "layout.yaml" in page  # of the variants without rendered files


def test_the_page_is_well_formed_and_small(page):
    body = page[page.index("<body>") : page.index("</body>") + len("</body>")]
    body = re.sub(r"<script>.*?</script>", "", body, flags=re.DOTALL)
    ET.fromstring(re.sub(r"<br>", "<br/>", body).replace("&nbsp;", " "))
    assert len(page.encode()) < 2_000_000


def test_the_korean_page_says_so_and_has_the_same_numbers(view, page):
    korean = render_report(view, lang="ko")
    assert '<html lang="ko">' in korean
    assert "의 첫 토큰이 카드 4장 전부에 걸친" in korean
    assert "에뮬레이션" in korean
    cells = re.compile(r"<td data-title=\"TTFT p50\">([^<]*)")
    assert cells.findall(korean) == cells.findall(page)


EVIL = "<script>alert(1)</script>\"'&"


def test_names_and_files_cannot_break_out_of_the_page(make_view, view):
    runs = tuple(
        replace(
            run,
            name=f"{EVIL}{place}",
            failure=run.failure and EVIL,
            files={EVIL: EVIL},
            commands=(EVIL,),
            notes=(EVIL,),
        )
        for place, run in enumerate(view.runs)
    )
    page = render_report(make_view(runs=runs, ranking=(), title=EVIL, model=EVIL, findings=(EVIL,), baseline=EVIL))
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


def test_a_study_of_one_run_and_one_without_any_still_make_a_page(make_view, view):
    assert "within" in render_report(make_view(runs=view.runs[:1], ranking=()))
    assert "No variant gave a usable measurement" in render_report(make_view(runs=view.runs[2:], ranking=()))


def test_a_server_that_somebody_else_runs_has_no_layout(make_view, view):
    run = replace(view.runs[1], layout=None, files={}, commands=())
    view = make_view(
        runs=(run,), ranking=(), box=None, workload=None, engine="external", source=Source.MEASURED, model=None
    )
    page = render_report(view)
    assert 'class="layout"' not in page
    assert "already running" in page


@pytest.mark.parametrize("engine", ["simulated", "emulated", "vllm", "external"])
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_badge_is_one_of_three_words(make_view, engine, lang):
    source = Source.of_engine(engine)
    page = render_report(make_view(engine=engine, source=source), lang=lang)
    word = {"en": str(source), "ko": {"simulated": "시뮬레이션", "emulated": "에뮬레이션", "measured": "실측"}[source]}[
        lang
    ]
    assert page.count(f'<span class="chip {source}">{word}</span>') == 2


def test_what_was_emulated_is_called_so_and_is_no_proof_of_a_prediction(make_view):
    """The server says that it is emulated, whatever was asked for: no word of a measurement or of a prediction."""
    verdict = tell_verdict(make_view(engine="vllm", source=Source.EMULATED))
    assert "a check of the plumbing, not of the prediction" in " ".join(verdict)
    page = render_report(make_view(engine="external", source=Source.EMULATED))
    assert "TTFT p95 simulated (check of the plumbing)" in page
    assert "TTFT p95 predicted" not in page
    measured = render_report(make_view(engine="vllm", source=Source.MEASURED))
    assert "TTFT p95 predicted" in measured


@pytest.mark.parametrize(
    ("kind", "n", "groups"),
    [
        ("H100-SXM-80GB", 8, ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("V100-SXM-16GB", 8, ((0, 3), (1, 2))),
        ("H100-SXM-80GB", 16, (tuple(range(16)),)),
        ("RTX-4090-24GB", 2, ((0,), (1,))),
        ("L4-24GB", 1, ((0,),)),
    ],
)
def test_any_layout_is_drawn_inside_its_frame(kind, n, groups):
    replicas = tuple(Replica(gpus=group, tensor_parallel=len(group)) for group in groups)
    svg = draw_layout(Layout(name="x", model="m", box=make_box(kind, n), replicas=replicas))
    root = ET.fromstring(str(svg))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0 <= float(rect.attrib["x"]) <= float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width
        assert 0 <= float(rect.attrib["y"]) <= height
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [f"GPU {index}" in texts for index in range(n)] == [True] * n


def test_every_picture_has_a_name_for_those_who_hear_the_page(view):
    pictures = re.findall(r"<svg [^>]*>(?:<title>)?", render_report(view))
    assert len(pictures) > 5
    assert all('aria-label="' in picture or picture.endswith("<title>") for picture in pictures)


def test_a_study_without_one_answer_has_a_page(make_view, make_records, make_layout):
    none = make_records(wait_s=0.2, step_s=0.02, replicas=2, failed=120)
    run = RunView(name="down", layout=make_layout("down", ((0,), (1,))), table=none, summary=summarise(none))
    page = render_report(make_view(runs=(run,), ranking=(), baseline="down"))
    assert "120" in page
    assert "nan" not in page.lower().replace("nanum", "")


BAND = Band(ttft_s=(0.15, 0.27), tpot_s=(0.018, 0.023), e2e_s=(0.5, 0.7), output_tokens_per_s=(80.0, 120.0), family="f")


def test_the_bands_of_predictions_stand_under_their_figures_and_on_the_bars(make_view, view):
    runs = (replace(view.runs[0], predicted=None), replace(view.runs[1], predicted=None, band=BAND))
    simulated = make_view(runs=runs, engine="simulated", source=Source.SIMULATED)
    page = render_report(simulated)
    assert "<br><small>mean 18 ms … 23 ms</small>" in page
    assert "<br><small>mean 80 … 120</small>" in page
    assert page.count("no band is known</small>") == 1  # the other run has none
    (bars, *_) = throughput_panels(simulated, words_in("en"))
    rule = bars["layer"][-1]
    assert rule["mark"]["type"] == "rule"
    assert [(bar["name"], bar["low"], bar["high"]) for bar in rule["data"]["values"]] == [("2xTP2", 80.0, 120.0)]


def test_measured_runs_show_no_band_of_their_own(make_view):
    page = render_report(make_view(engine="vllm", source=Source.MEASURED))
    assert "no band is known</small>" not in page


def test_failures_stand_in_a_table_with_what_was_said(page, make_view, view):
    assert "Failures and their reasons" in page
    assert '<td class="l bad" data-title="Failure">http_503</td>' in page
    fine = render_report(make_view(runs=(view.runs[1],), ranking=()))
    assert "Failures" not in fine
    assert "Cut off" not in fine  # one run and nothing lost: no column of zeros
    assert fine.count("<th>") == 8
