"""The load as people write it, and what is meant where they write nothing."""

import pytest

from atoll.errors import BadDocument
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Arrivals, Lengths, Start, Workload


def read(text):
    return Workload.parse(text, origin="load.yaml")


def test_nothing_said_is_thirty_users_for_ten_minutes():
    load = Workload()
    assert (load.users, load.prompt.mean, load.output.mean, load.duration_s) == (30, 1024, 512, 600)
    assert load.start is Start.SPREAD
    assert load.warmup_s is None


def test_a_rate_takes_the_place_of_users_and_requests_that_of_the_minutes():
    load = Workload(rate=2, requests=100)
    assert (load.users, load.arrivals, load.duration_s) == (None, Arrivals.POISSON, None)


def test_a_start_is_a_word_or_a_duration():
    assert read("start: at_once").start is Start.AT_ONCE
    assert read("start: 45s").start == 45
    assert read("start: 45").start == 45
    assert read("ramp: 45s").start == 45
    with pytest.raises(BadDocument, match=r"load\.yaml: start: 'soon' is not a duration"):
        read("start: soon")


def test_files_of_before_are_read_as_they_were_meant():
    assert read("{users: 3, ramp_s: 0.0, warmup_s: 0.0}") == Workload(users=3, start="at_once", warmup_s=0)
    assert read("{users: 3, ramp_s: 20.0, warmup_s: 60.0}") == Workload(users=3, start=20, warmup_s=60)
    with pytest.raises(BadDocument, match="one thing is said twice"):
        read("{start: 3s, ramp: 4s}")


def test_lengths_are_a_number_or_a_distribution():
    assert read("prompt: 1500").prompt == read("prompt: {kind: fixed, mean: 1500}").prompt == Lengths(mean=1500)
    assert "prompt: 1500\n" in Workload(prompt=1500).to_yaml()


def test_the_longest_of_lengths():
    assert Lengths(mean=100).longest == 100
    assert Lengths(kind="uniform", mean=20, low=10, high=30).longest == 30
    # exp(3.09 x 0.8 - 0.8^2 / 2) = 8.60 times the mean
    assert Lengths(kind="lognormal", mean=1000, sigma=0.8).longest == 8603


def test_targets_are_words_or_seconds():
    assert SLO.parse("{ttft: 1s, tpot: 50ms}", origin="slo") == SLO(ttft_s=1, tpot_s=0.05)
    assert SLO.parse("{ttft: 1}", origin="slo") == SLO(ttft_s=1)
    assert SLO(ttft_s=1, tpot_s=0.05).to_plain() == {"ttft": 1.0, "tpot": 0.05}
