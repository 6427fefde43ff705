"""What plan writes, render renders, doctor finds nothing to say against, and simulate agrees with; 200 in walk.py."""

import pytest

from laws.walk import draw, walk

SEEDS = [seed for seed in range(1, 27) if seed not in {4, 12}]  # those two take more time than the rest


@pytest.mark.parametrize("seed", SEEDS)
def test_plan_render_doctor_and_simulate_say_the_same(seed: int):
    walked = walk(draw(seed))
    assert not walked.wrong, walked.report
