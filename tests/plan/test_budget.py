"""How many requests a plan simulates, and which of them are measured."""

from atoll.analyse.summary import Distribution
from atoll.plan.budget import MEASURED, Budget, Stage, sample_of
from stand_ins.goals import plain_goal
from stand_ins.outlooks import even, flat


def expected(answer_s, *, served_s=None, **changes):
    """A formula's prediction: so many seconds of an answer, of which so many without waiting for a place."""
    served = (answer_s if served_s is None else served_s) / 500
    e2e = Distribution() if changes.get("saturated") else even(answer_s)
    return flat(served, e2e_s=e2e, requests_per_s=2.0, **changes)


def goal(**load):
    return plain_goal(prompt=1000, output=500, **load)


def test_two_rounds_come_before_the_measured_requests_and_one_after_them():
    """All have started after one, and the first answers to all have ended after two."""
    sample = sample_of(goal(users=30), expected(10.0))
    assert (sample.before, sample.measured, sample.after, sample.requests) == (60, MEASURED, 30, 330)


def test_a_crowd_is_measured_for_half_a_round():
    sample = sample_of(goal(users=4000), expected(60.0))
    assert (sample.before, sample.measured, sample.after) == (8000, 2000, 4000)


def test_users_who_wait_for_a_place_take_longer_to_fill_the_queue():
    assert sample_of(goal(users=100), expected(40.0, served_s=10.0)).before == 275


def test_an_open_loop_fills_up_with_what_is_in_flight():
    """Little's law: two a second, 100 s each, are 200 in flight."""
    sample = sample_of(goal(rate=2.0), expected(100.0))
    assert (sample.before, sample.measured, sample.after) == (300, 400, 240)
    over = expected(600.0, served_s=600.0, saturated=True)
    assert sample_of(goal(rate=50.0), over).measured == 1200


def test_what_a_stage_leaves_goes_to_the_next():
    budget = Budget()
    budget.add(Stage.RANKING)
    assert not budget.affords(1, Stage.RANKING)
    assert budget.affords(Stage.TUNING - Stage.RANKING, Stage.TUNING)
    assert not budget.affords(Stage.TUNING - Stage.RANKING + 1, Stage.TUNING)
