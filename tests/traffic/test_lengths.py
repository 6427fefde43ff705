"""Token counts drawn from a distribution."""

import numpy as np
import pytest

from atoll.errors import BadDocument, BadTraffic
from atoll.traffic.lengths import draw_lengths, parse_lengths
from atoll.traffic.workload import Lengths


def draw(count=20_000, **fields):
    return draw_lengths(Lengths(**fields), count, np.random.default_rng(7))


def test_fixed_is_the_same_every_time():
    assert set(draw(kind="fixed", mean=1024)) == {1024}


def test_uniform_reaches_both_ends():
    drawn = draw(kind="uniform", mean=5, low=3, high=7)
    assert set(drawn) == {3, 4, 5, 6, 7}
    assert np.bincount(drawn)[3:].min() > 3700  # 4,000 each, standard deviation 57


def test_lognormal_has_the_mean_that_was_asked_for_and_its_median_below():
    drawn = draw(kind="lognormal", mean=500, sigma=0.8)
    assert drawn.mean() == pytest.approx(500, rel=0.03)
    assert np.median(drawn) == pytest.approx(500 * np.exp(-0.32), rel=0.03)  # 363


def test_lengths_are_clipped_and_never_below_one():
    drawn = draw(kind="lognormal", mean=500, sigma=2.0, low=100, high=1000)
    assert (drawn.min(), drawn.max()) == (100, 1000)
    assert draw(kind="lognormal", mean=1, sigma=3.0).min() == 1


def test_words_of_the_command_line():
    assert parse_lengths("1024") == Lengths(kind="fixed", mean=1024)
    assert parse_lengths("200-2000") == Lengths(kind="uniform", mean=1100, low=200, high=2000)
    assert parse_lengths("lognormal:1024:0.8") == Lengths(kind="lognormal", mean=1024, sigma=0.8)
    with pytest.raises(BadTraffic, match=r"'many' is no length in tokens\. Write it like 1024, 200-2000"):
        parse_lengths("many")
    with pytest.raises(BadDocument, match="high 10 is below low 20"):
        parse_lengths("20-10")
