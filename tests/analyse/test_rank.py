"""Who comes first."""

import numpy as np

from atoll.analyse import summarise
from atoll.analyse.band import Band
from atoll.analyse.compare import Verdict
from atoll.analyse.rank import Contender, rank_runs
from atoll.traffic import Outcome, Record, RecordTable


def contender(name, wait, *, pace=0.1, noise=0.01, seed=0, requests=120):
    rng = np.random.default_rng(seed)
    ttfts = rng.normal(wait, noise, requests)
    table = RecordTable.from_records(
        Record(number=i, user=i % 12, sent_s=float(i), token_s=[i + t, i + t + pace], done_s=i + t + pace,
               output_tokens=2)
        for i, t in enumerate(ttfts)
    )  # fmt: skip
    return Contender(name=name, table=table, summary=summarise(table))


def test_the_shortest_wait_comes_first():
    places = rank_runs([contender("slow", 2.0), contender("quick", 1.0), contender("middle", 1.5)])
    assert [(p.place, p.name, p.shared) for p in places] == [
        (1, "quick", False),
        (2, "middle", False),
        (3, "slow", False),
    ]
    assert places[0].against_best is None
    assert places[2].against_best.first == "quick"


def test_runs_that_cannot_be_told_apart_share_a_place():
    places = rank_runs([contender("a", 1.0, seed=1), contender("b", 1.0, seed=1), contender("slow", 3.0)])
    assert [(p.place, p.name, p.shared) for p in places] == [(1, "a", True), (1, "b", True), (3, "slow", False)]


def test_a_wait_that_nobody_feels_leaves_the_decision_to_the_pace():
    """40 ms more wait is clear but not felt; the answer that then comes twice as fast is."""
    prompt, brisk = contender("prompt", 0.20, pace=0.2), contender("brisk", 0.24, pace=0.1, seed=2)
    assert [(p.place, p.name) for p in rank_runs([prompt, brisk])] == [(1, "brisk"), (2, "prompt")]


def test_a_pace_that_three_digits_do_not_show_leaves_runs_on_one_place():
    """0.4 % slower, hour after hour the same: clear, and of no use to anybody."""
    even, other = contender("even", 1.0, pace=0.1000, noise=0.0), contender("other", 1.0, pace=0.1004, noise=0.0)
    assert [(p.place, p.shared) for p in rank_runs([even, other])] == [(1, True), (1, True)]


def test_a_wait_that_is_felt_outweighs_the_pace():
    prompt, brisk = contender("prompt", 0.20, pace=0.2), contender("brisk", 0.40, pace=0.1, seed=2)
    assert [p.name for p in rank_runs([prompt, brisk])] == ["prompt", "brisk"]


def test_the_baseline_is_what_others_are_held_against():
    places = {p.name: p for p in rank_runs([contender("a", 1.0), contender("b", 2.0)], baseline="b")}
    assert places["b"].against_baseline is None
    assert places["a"].against_baseline.first == "b"


def test_a_run_without_answers_comes_last():
    table = RecordTable.from_records([Record(number=0, user=0, sent_s=0.0, outcome=Outcome.FAILED, error="reset")])
    dead = Contender(name="dead", table=table, summary=summarise(table))
    assert [p.name for p in rank_runs([dead, contender("alive", 9.0)])] == ["alive", "dead"]


def test_no_runs_have_no_ranking():
    assert rank_runs([]) == ()


def within(width, *, family="hopper-measured dense"):
    """The band of a ratio, alike in all measures."""
    interval = (1 / (1 + width), 1 + width)
    return Band(ttft_s=interval, tpot_s=interval, e2e_s=interval, output_tokens_per_s=interval, family=family)


def test_predicted_runs_within_the_band_of_their_ratio_share_a_place():
    """8 % slower for certain: two places when the ratio is known to 5 %, one when it is known to 10 %."""
    best, other = contender("best", 1.0, pace=0.100, noise=0.0), contender("other", 1.0, pace=0.108, noise=0.0)
    narrow, wide = (rank_runs([best, other], ratio_of=lambda _one, _other, w=w: within(w)) for w in (0.05, 0.10))
    assert [(p.place, p.name, p.shared) for p in narrow] == [(1, "best", False), (2, "other", False)]
    assert [(p.place, p.name, p.shared) for p in wide] == [(1, "best", True), (1, "other", True)]
    found = wide[1].against_best
    assert found.difference("tpot_s", "mean").verdict is Verdict.WITHIN_BAND
    assert found.difference("tpot_s", "mean").low > 0
    assert found.ratio.tpot_s[0] < 1.08 < found.ratio.tpot_s[1]


def test_statistics_that_do_not_part_two_runs_are_not_outvoted_by_a_narrow_band():
    places = rank_runs([contender("a", 1.0, seed=1), contender("b", 1.0, seed=1)], ratio_of=lambda *_: within(0.0001))
    assert [p.place for p in places] == [1, 1]


def test_a_wait_within_the_band_of_its_ratio_leaves_the_decision_to_the_pace():
    prompt, brisk = contender("prompt", 1.0, pace=0.2), contender("brisk", 1.2, pace=0.1, seed=2)
    assert [p.name for p in rank_runs([prompt, brisk])] == ["prompt", "brisk"]
    assert [(p.place, p.name) for p in rank_runs([prompt, brisk], ratio_of=lambda *_: within(0.3))] == [
        (1, "brisk"),
        (2, "prompt"),
    ]


def test_whoever_cannot_be_told_from_the_best_shares_its_place_though_another_stands_between():
    """The band against a run on other links is wider: `far` is slower than `near` and may be as good as `best`."""
    best, near, far = (
        contender(name, 1.0, pace=pace, noise=0.0) for name, pace in (("best", 0.10), ("near", 0.11), ("far", 0.12))
    )
    places = rank_runs([best, near, far], ratio_of=lambda _one, other: within(0.3 if other == "far" else 0.05))
    assert {p.name: p.place for p in places} == {"best": 1, "far": 1, "near": 3}


def test_a_caution_counts_and_is_shown_nowhere():
    best, other = contender("best", 1.0, pace=0.100, noise=0.0), contender("other", 1.0, pace=0.108, noise=0.0)
    places = rank_runs([best, other], ratio_of=lambda *_: within(0.15, family=None))
    assert [p.place for p in places] == [1, 1]
    assert places[1].against_best.ratio is None
