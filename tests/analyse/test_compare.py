"""When two runs differ, and when nobody can say."""

import numpy as np
import pytest

from atoll.analyse import Verdict, compare_runs
from atoll.traffic import Outcome, Record, RecordTable


def run_of(ttfts, *, users=10):
    return RecordTable.from_records(
        Record(
            number=i, user=i % users, sent_s=float(i), token_s=[i + t, i + t + 0.1], done_s=i + t + 0.1, output_tokens=2
        )
        for i, t in enumerate(ttfts)
    )


def test_a_run_that_is_a_second_slower_is_called_slower_with_an_interval_around_one():
    rng = np.random.default_rng(3)
    base = rng.exponential(0.2, 400)
    found = compare_runs(run_of(base), run_of(base + 1.0), names=("a", "b")).difference("ttft_s", "p50")
    assert found.verdict is Verdict.SLOWER
    assert found.low < 1.0 < found.high
    assert found.difference == pytest.approx(1.0)


def test_two_draws_of_the_same_thing_are_not_told_apart():
    rng = np.random.default_rng(4)
    first, second = run_of(rng.exponential(0.2, 300)), run_of(rng.exponential(0.2, 300))
    assert compare_runs(first, second, names=("a", "b")).difference("ttft_s", "mean").verdict is Verdict.UNCLEAR


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """95 % intervals over 60 pairs of runs: fewer than 50 covering would happen once in 10,000 times by chance."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(60):
        first, second = run_of(rng.normal(1.0, 0.1, 150)), run_of(rng.normal(1.2, 0.1, 150))
        found = compare_runs(first, second, names=("a", "b"), draws=300).difference("ttft_s", "mean")
        covered += found.low <= 0.2 <= found.high
    assert covered >= 50


def test_users_that_differ_widen_the_interval():
    """Ten users with a pace of their own: 400 requests tell about ten users, not about 400."""
    rng = np.random.default_rng(6)
    pace = rng.normal(1.0, 0.3, 10)
    blocked = np.array([pace[i % 10] for i in range(400)]) + rng.normal(0, 0.01, 400)
    flat = np.random.default_rng(7).permutation(blocked)
    wide = compare_runs(run_of(blocked), run_of(blocked), names=("a", "b")).difference("ttft_s", "mean")
    narrow = compare_runs(run_of(flat), run_of(flat), names=("a", "b")).difference("ttft_s", "mean")
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(8)
    pair = run_of(rng.exponential(1, 50)), run_of(rng.exponential(1, 50))
    assert compare_runs(*pair, names=("a", "b")) == compare_runs(*pair, names=("a", "b"))


def test_a_run_without_answers_is_not_comparable():
    none = RecordTable.from_records([Record(number=0, user=0, sent_s=0.0, outcome=Outcome.FAILED, error="http_500")])
    found = compare_runs(run_of([0.1, 0.2]), none, names=("a", "b")).difference("ttft_s", "mean")
    assert found.verdict is Verdict.UNKNOWN
