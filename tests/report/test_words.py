"""The finding in sentences."""

import tomllib
from dataclasses import replace
from importlib import resources
from string import Formatter

import pytest

from atoll.analyse.band import Band
from atoll.analyse.rank import Contender, rank_runs
from atoll.analyse.summary import summarise
from atoll.errors import InputError
from atoll.layout.layout import Policy, Router
from atoll.report.view import RunView
from atoll.report.words import tell_load, tell_place, tell_verdict, words_in
from atoll.traffic.record import Source
from atoll.traffic.workload import Workload
from atoll.units import show_seconds
from report.conftest import build_layout, build_records


def test_a_measurement_is_held_against_its_prediction(make_view):
    told = tell_verdict(make_view(engine="vllm", source=Source.MEASURED))
    assert any("the simulator had predicted" in sentence for sentence in told)


def test_the_verdict_names_the_winner_the_margin_and_what_went_wrong(view):
    told = tell_verdict(view)
    assert told[0].startswith(
        "With two replicas of two cards each (2xTP2), the first token comes sooner than with one replica over all four"
        " cards (1xTP4): within "
    )
    against = next(
        sentence for sentence in told if sentence.startswith("Against 1xTP4, the 95th percentile of the wait")
    )
    assert "95 % interval" in against
    assert "times as short" in against
    assert any("Next comes 1xTP4" in sentence for sentence in told)
    assert any("a check of the plumbing, not of the prediction" in sentence for sentence in told)
    assert "1xTP4: 3 of 120 requests failed." in told
    assert told[-1] == "4xTP1 did not run: the model does not fit"


def test_the_verdict_is_told_in_korean_with_the_same_numbers(view):
    english, korean = " ".join(tell_verdict(view)), " ".join(tell_verdict(view, lang="ko"))
    assert korean.startswith(
        "카드 2장짜리 레플리카 2개(2xTP2)의 첫 토큰이 카드 4장 전부에 걸친 레플리카 1개(1xTP4)보다 빠릅니다."
    )
    p95 = english.split("within ")[1].split(" instead")[0]
    assert p95 in korean


def test_runs_that_cannot_be_told_apart_share_the_place_and_the_words_say_so(make_view, make_records, make_layout):
    table = make_records(wait_s=0.2, step_s=0.02, replicas=2)
    runs = tuple(
        RunView(name=name, layout=make_layout(name, ((0, 1), (2, 3))), table=table, summary=summarise(table))
        for name in ("a", "b")
    )
    ranking = rank_runs([Contender(name=run.name, table=table, summary=run.summary) for run in runs])
    view = make_view(runs=runs, ranking=ranking, baseline="a")
    assert tell_verdict(view)[0].startswith("b share the first place with a: nothing that was measured")
    assert tell_place(view.place("a")) == "=1"


def test_ways_of_balancing_that_make_no_difference_are_one_sentence(make_view, make_records, make_layout):
    pairs = ((0, 1), (2, 3))
    good, slow = make_records(wait_s=0.2, step_s=0.02, replicas=2), make_records(wait_s=0.2, step_s=0.03, replicas=1)
    turns = make_layout("turns", pairs)
    made = [
        ("turns", turns, good),
        ("least", turns.replace(router=Router(policy=Policy.ROUND_ROBIN)), good),
        ("whole", make_layout("whole", ((0, 1, 2, 3),)), slow),
    ]
    runs = tuple(RunView(name=n, layout=layout, table=t, summary=summarise(t)) for n, layout, t in made)
    ranking = rank_runs([Contender(name=run.name, table=run.table, summary=run.summary) for run in runs])
    told = tell_verdict(make_view(runs=runs, ranking=ranking, baseline="turns"))
    assert told[0].startswith("With two replicas of two cards each (turns), an answer ends ")
    assert told[0].endswith(" in the mean instead of 771 ms.")
    assert told[1] == "How requests are balanced makes no difference here: least_conn, round_robin."


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (((0, 1, 2, 3),), "one replica over all four cards (x)"),
        (((0, 1),), "one replica over two cards (x)"),
        (((2,),), "one replica on one card (x)"),
        (((0,), (1,), (2,)), "three replicas of one card each (x)"),
        (((0, 1), (2,)), "the replicas of x"),
    ],
)
def test_an_arrangement_is_said_in_words(make_view, make_records, make_layout, groups, words):
    quick = make_records(wait_s=0.2, step_s=0.02, replicas=1)
    slow = make_records(wait_s=3.0, step_s=0.02, replicas=1)
    made = (("x", make_layout("x", groups), quick), ("y", make_layout("y", ((0, 1), (2, 3))), slow))
    runs = tuple(RunView(name=n, layout=layout, table=t, summary=summarise(t)) for n, layout, t in made)
    ranking = rank_runs([Contender(name=run.name, table=run.table, summary=run.summary) for run in runs])
    assert tell_verdict(make_view(runs=runs, ranking=ranking, baseline="y"))[0].startswith(f"With {words}, the first")


def test_an_unclear_difference_is_called_unclear(make_view, make_records, make_layout):
    fast = make_records(wait_s=0.2, step_s=0.01, replicas=1)
    slow = make_records(wait_s=0.201, step_s=0.03, replicas=1)
    runs = tuple(
        RunView(name=name, layout=make_layout(name, ((0,),)), table=table, summary=summarise(table))
        for name, table in (("slow", slow), ("fast", fast))
    )
    ranking = rank_runs(
        [Contender(name=run.name, table=run.table, summary=run.summary) for run in runs], baseline="slow"
    )
    told = tell_verdict(make_view(runs=runs, ranking=ranking, baseline="slow"))
    assert any("there is no clear difference in the wait" in sentence for sentence in told)
    assert any("its wait hardly differs" in sentence for sentence in told)


def test_one_run_is_told_without_a_contest(make_view, view):
    told = tell_verdict(make_view(runs=view.runs[1:2], ranking=()))
    assert told[0].startswith("2xTP2: the first token comes within")
    assert "tokens per second" in told[1]


def test_no_run_at_all_is_said(make_view, view):
    told = tell_verdict(make_view(runs=view.runs[2:], ranking=()))
    assert told == ("No variant gave a usable measurement.", "4xTP1 did not run: the model does not fit")


def test_the_load_is_told_in_a_line(view):
    assert tell_load(view) == "10 users back to back, prompts of 100 tokens, answers of 20, for 60 s, warm-up 5 s"
    assert tell_load(view, lang="ko").startswith("사용자 10명이")


@pytest.mark.parametrize(
    ("load", "told"),
    [
        ({"trace": "day.csv"}, "the trace day.csv replayed"),
        (
            {"trace": "day.csv", "users": 3, "duration": "60s"},
            "3 users back to back, lengths from the trace day.csv, for 60 s",
        ),
    ],
)
def test_a_load_from_a_trace_names_it_instead_of_lengths(view, load, told):
    traced = replace(view, workload=Workload.from_plain(load, origin="t"))
    assert tell_load(traced) == told
    assert "day.csv" in tell_load(traced, lang="ko")


def test_both_languages_have_the_same_words_with_the_same_blanks():
    tables = {}
    for lang in ("en", "ko"):
        text = resources.files("atoll.report").joinpath(f"templates/{lang}.toml").read_text(encoding="utf-8")
        tables[lang] = tomllib.loads(text)
    for part in ("labels", "sentences"):
        assert tables["en"][part].keys() == tables["ko"][part].keys()
        for name, sentence in tables["en"][part].items():
            assert blanks(sentence) == blanks(tables["ko"][part][name]), name


def blanks(sentence: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(sentence) if field}


def test_a_language_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="--lang fr"):
        words_in("fr")


def corner(name, groups, *, wait_s, step_s, version):
    """A variant of the four corners: a split under a version."""
    table = build_records(wait_s=wait_s, step_s=step_s, replicas=len(groups))
    layout = build_layout(name, groups).replace(engine_version=version)
    return RunView(name=name, layout=layout, table=table, summary=summarise(table))


def test_what_is_layout_and_what_is_version_are_two_steps_each_with_its_band(make_view):
    """1xTP4 of an old version is the baseline: the way to today's 2xTP2 goes over today's 1xTP4."""
    whole, pairs = ((0, 1, 2, 3),), ((0, 1), (2, 3))
    runs = (
        corner("1xTP4-plain", whole, wait_s=0.2, step_s=0.030, version="0.7.3"),
        corner("1xTP4", whole, wait_s=0.2, step_s=0.021, version="0.32.0"),
        corner("2xTP2", pairs, wait_s=0.2, step_s=0.020, version="0.32.0"),
    )
    contenders = [Contender(name=run.name, table=run.table, summary=run.summary) for run in runs]
    band = Band(ttft_s=(0.5, 2.0), tpot_s=(0.9, 1.1), e2e_s=(0.9, 1.1), output_tokens_per_s=(0.9, 1.1), family="f")
    ranking = rank_runs(contenders, baseline="1xTP4-plain", ratio_of=lambda _one, _other: band)
    view = make_view(runs=runs, ranking=ranking, baseline="1xTP4-plain", engine="simulated", source=Source.SIMULATED)
    told = tell_verdict(view)
    assert told[0].startswith("With two replicas of two cards each (2xTP2), an answer ends 25% sooner than with one")
    assert any(sentence.startswith("1xTP4 share the first place with 2xTP2: statistics and the") for sentence in told)
    total, engine, layout = (
        runs[a].summary.e2e_s.mean - runs[b].summary.e2e_s.mean for a, b in ((0, 2), (0, 1), (1, 2))
    )
    steps = next(sentence for sentence in told if sentence.startswith("Of that difference of"))
    assert steps.startswith(
        f"Of that difference of {show_seconds(total)}, {show_seconds(engine)} are the engine's version and flags"
        " (1xTP4-plain to 1xTP4: "
    )
    assert f"and {show_seconds(layout)} the layout (1xTP4 to 2xTP2: " in steps
    version_step, layout_step = steps.split(" the layout ")
    assert "so it may be no difference" not in version_step
    assert "so it may be no difference" in layout_step
    assert any("그 차이" in sentence for sentence in tell_verdict(view, lang="ko"))


def test_one_step_is_not_told_as_two(view):
    assert not any(sentence.startswith("Of that difference") for sentence in tell_verdict(view))
