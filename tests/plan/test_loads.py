"""Other loads: which are looked at, where the ranking flips, the most that a layout carries."""

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.plan.choice import Curve
from atoll.plan.loads import FINE, find_flips, find_most, loads_around
from stand_ins.goals import plain_goal
from stand_ins.outlooks import even, flat


def goal(**load):
    return plain_goal(**{"prompt": 2000, "output": 1500, **load})


# The most that is carried


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from((0.3, 1.0, 3.0, inf)))
@settings(max_examples=200, deadline=None)
def test_the_most_users_are_met_and_a_few_more_are_not(limit, start, steepness):
    asked = []

    def strain(load):
        asked.append(load)
        return 0.5 * (load > 0) if load <= limit and steepness == inf else (load / limit) ** steepness

    found = find_most(strain, start=start, most=10_000, whole=True, known={})
    assert found <= limit
    assert found == limit or found * (1 + FINE) + 1 > limit
    assert len(asked) == len(set(asked)) <= 24


@given(st.floats(0.02, 900), st.floats(0.05, 500))
@settings(max_examples=200, deadline=None)
def test_the_most_requests_per_second_where_the_strain_says_nothing(limit, start):
    found = find_most(lambda load: 0.0 if load <= limit else inf, start=start, most=1000, whole=False, known={})
    if limit > start / 500:
        assert limit / (1 + FINE) / 1.005 <= found <= limit


def test_a_smooth_strain_takes_few_simulations():
    asked = []

    def strain(load):
        asked.append(load)
        return (load / 332) ** 0.8

    assert 332 / (1 + FINE) <= find_most(strain, start=308, most=10_000, whole=True, known={}) <= 332
    assert len(asked) <= 4


def test_a_strain_that_bends_late_is_not_crept_up_to():
    """Flat up to the limit, then a queue: a straight line through both sides always points near the lower one."""
    asked = []

    def strain(load):
        asked.append(load)
        return 0.5 + load / 100 if load <= 14 else 4.0 * load / 14

    assert 14 / (1 + FINE) / 1.005 <= find_most(strain, start=28, most=1000, whole=False, known={5.0: 0.55}) <= 14
    assert len(asked) <= 8


def test_nothing_is_carried_and_everything_is_carried():
    assert find_most(lambda _: 2.0, start=30, most=4096, whole=True, known={}) == 0
    assert find_most(lambda _: 0.5, start=30, most=4096, whole=True, known={}) == 4096


def test_what_is_known_is_not_asked_again():
    asked = []

    def strain(load):
        asked.append(load)
        return load / 100

    assert find_most(strain, start=64, most=4096, whole=True, known={64: 0.64, 128: 1.28}) >= 97
    assert all(64 < load < 128 for load in asked)


# Which loads


def test_users_double_and_hold_the_goals_own():
    assert loads_around(goal(users=30)) == (1, 2, 4, 8, 16, 30, 64, 128)


@pytest.mark.parametrize(("rate", "most"), [(2.0, 7.3), (0.5, 7.3), (20.0, 5.0), (1.0, 0.0)])
def test_rates_reach_beyond_what_the_best_layout_carries(rate, most):
    loads = loads_around(goal(rate=rate), most_rate=most)
    assert rate in loads
    assert loads[0] <= rate / 3.9
    assert loads[-1] >= max(most * 1.25, rate * 1.9)
    assert most == 0 or loads[0] < most
    assert all(later > earlier for earlier, later in pairwise(loads))


# Where the ranking flips


def test_flips_are_interpolated():
    """One line rises from 1 to 3, the other stays at 2: they cross half way between the loads 1 and 2."""
    rising = Curve(name="rising", points=((1.0, flat(1.0)), (2.0, flat(3.0))))
    level = Curve(name="level", points=((1.0, flat(2.0)), (2.0, flat(2.0))))
    (flip,) = find_flips([rising, level], goal(users=1))
    assert (flip.before, flip.after) == ("rising", "level")
    assert flip.load == pytest.approx(1.75)  # the ratio goes from +1 to -1/3
    assert list(find_flips([level, level], goal(users=1))) == []


def test_a_layout_that_no_longer_keeps_up_hands_over_the_lead():
    over = flat(0.1, saturated=True)
    quick = Curve(name="quick", points=((1.0, flat(1.0)), (3.0, over), (5.0, over)))
    large = Curve(
        name="large", points=((1.0, flat(2.0)), (3.0, flat(2.5)), (5.0, flat(0.1, saturated=True, requests_per_s=9.0)))
    )
    (flip,) = find_flips([quick, large], goal(rate=1.0))
    assert (flip.load, flip.before, flip.after) == (2.0, "quick", "large")


def test_a_layout_whose_users_wait_for_a_seat_hands_over_the_lead():
    """Half way between the loads: up to the first nobody waits, at the second one in twenty does so for 36 s."""
    waits = flat(25.0, ttft_s=even(1.0).replace(p95=36.0))
    quick = Curve(name="quick", points=((12.0, flat(20.0, ttft_s=even(1.0))), (24.0, waits)))
    steady = Curve(name="steady", points=tuple((load, flat(26.0, ttft_s=even(1.2))) for load in (12.0, 24.0)))
    (flip,) = find_flips([quick, steady], goal(users=24))
    assert (flip.load, flip.before, flip.after, flip.steadier) == (18.0, "quick", "steady", True)


def test_where_nothing_keeps_up_there_is_nothing_to_compare():
    over = [flat(seconds, saturated=True) for seconds in (0.1, 0.2)]
    curves = [Curve(name=str(place), points=((1.0, point),)) for place, point in enumerate(over)]
    assert list(find_flips(curves, goal(rate=1.0))) == []
