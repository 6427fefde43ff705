"""Which choice is the better one."""

from dataclasses import replace

import pytest

from atoll.inventory.catalog import find_gpu
from atoll.model.catalog import find_card
from atoll.plan.choice import Choice
from atoll.plan.rank import find_preference, rank_choices
from atoll.plan.workbench import Workbench
from atoll.workflows.boxes import named_box
from stand_ins.goals import plain_goal
from stand_ins.layouts import two_pairs
from stand_ins.outlooks import even, flat

BENCH = Workbench(
    box=named_box(capture=None, gpu="H100-NVL-94GB", gpus=4),
    card=find_card("Qwen2.5-32B-Instruct"),
    kinds=dict.fromkeys(range(4), find_gpu("H100-NVL-94GB")),
)


def goal(**changes):
    return plain_goal(**{"users": 24, "prompt": 2000, "output": 500, **changes})


def choice(name, answer_s, first_s, **changes):
    outlook = flat(0.03, e2e_s=even(answer_s), ttft_s=even(first_s), **changes)
    return Choice(layout=two_pairs(name=name), predicted=outlook, formula=outlook)


def names(choices):
    return [one.name for one in choices]


WAITS, STEADY = choice("waits", 25.4, 36.6), choice("steady", 26.8, 1.26)


def test_users_who_wait_for_a_seat_lose_the_first_place_to_a_layout_a_little_slower():
    assert names(rank_choices([WAITS, STEADY], goal(), BENCH)) == ["steady", "waits"]
    preference = find_preference([STEADY, WAITS], goal(), BENCH)
    assert (preference.first, preference.passed) == (STEADY, WAITS)
    assert preference.steadier


@pytest.mark.parametrize("asked", [{"slo_ttft_s": 60.0}, {"favour": "first_token"}])
def test_a_goal_that_speaks_of_the_first_token_decides_by_itself(asked):
    assert find_preference([WAITS, STEADY], goal(**asked), BENCH) is None


@pytest.mark.parametrize(
    "other",
    [
        choice("much-slower", 40.0, 1.26),
        choice("waits-too", 26.0, 30.0),
        choice("misses-a-target", 26.0, 1.26, tpot_s=even(0.2)),
    ],
)
def test_it_keeps_the_first_place_where_the_other_gives_up_much_or_is_not_steadier(other):
    assert names(rank_choices([other, WAITS], goal(slo_tpot_s=0.1), BENCH)) == ["waits", other.name]


def test_milliseconds_are_nothing_to_prefer():
    slow, quick = choice("quick-answers", 10.0, 0.9), choice("quick-tokens", 10.5, 0.1)
    assert names(rank_choices([quick, slow], goal(), BENCH)) == ["quick-answers", "quick-tokens"]


def test_where_requests_pile_up_the_one_that_answers_most_is_first():
    many, few = (
        choice(name, 1.0, 1.0, saturated=True, requests_per_s=rate) for name, rate in (("many", 7), ("few", 5))
    )
    assert names(rank_choices([few, many], goal(users=None, rate=20.0), BENCH)) == ["many", "few"]


def warned(name, answer_s, **changes):
    return replace(
        choice(name, answer_s, 0.1, **changes), warnings=("GPUs 0, 1, 2, 3 cross from one island to another.",)
    )


def test_of_two_that_cannot_be_told_apart_the_one_without_a_warning_is_first():
    crosses, plain = warned("crosses", 10.0), choice("plain", 10.2, 0.1)
    assert names(rank_choices([crosses, plain], goal(), BENCH)) == ["plain", "crosses"]
    preference = find_preference([plain, crosses], goal(), BENCH)
    assert (preference.first, preference.passed, preference.steadier) == (plain, crosses, False)


@pytest.mark.parametrize(
    "other",
    [choice("clearly-slower", 13.0, 0.1), warned("warned-too", 10.2), choice("misses", 10.2, 0.1, tpot_s=even(0.2))],
)
def test_a_warning_costs_no_place_where_the_other_is_surely_slower_warned_too_or_misses_a_target(other):
    crosses = warned("crosses", 10.0)
    assert names(rank_choices([other, crosses], goal(slo_tpot_s=0.1), BENCH)) == ["crosses", other.name]
