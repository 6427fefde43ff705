"""The formula, on timers whose answers are known."""

from dataclasses import dataclass

import numpy as np
import pytest

from atoll.cost.step import StepBatch
from atoll.plan.goal import Favour
from atoll.plan.score import Station, equal_counts, equal_rates, score_stations, tailed
from stand_ins.goals import plain_goal


@dataclass(frozen=True)
class PlainTimer:
    """A step takes `step` seconds, `each` more a sequence, and `token` more a prompt token."""

    step: float = 0.01
    each: float = 0.0
    token: float = 0.0
    front: float = 0.0

    def seconds(self, batch):
        return self.step + self.each * batch.decodes + self.token * sum(new for new, _ in batch.prefills)

    def decode_seconds(self, decodes, decode_context, steps):
        return np.full(steps, self.seconds(StepBatch(decodes=decodes, decode_context=decode_context)))

    def front_seconds(self, prompt_tokens):
        return self.front


def station(timer=None, *, kv_tokens=10**7, seqs=256, budget=8192):
    return Station(timer or PlainTimer(), kv_tokens, seqs, budget)


def goal(**changes):
    return plain_goal(**{"users": 10, "prompt": 1000, "output": 101, **changes})


def score(stations, wanted):
    return score_stations(stations, wanted, shares=equal_counts(stations))


def test_one_user_gets_one_step_for_the_prompt_and_one_for_each_further_token():
    """0.01 s for the prompt, half a step of waiting, 100 steps of 0.01 s: 1.015 s."""
    predicted = score([station()], goal(users=1))
    assert predicted.summary.e2e_s.mean == pytest.approx(1.015, rel=1e-3)
    assert predicted.summary.ttft_s.mean == pytest.approx(0.015, rel=1e-3)
    assert predicted.summary.tpot_s.mean == pytest.approx(0.01, rel=1e-3)
    assert predicted.summary.output_tokens_per_s == pytest.approx(101 / 1.015, rel=1e-3)


def test_the_api_servers_part_comes_before_the_first_token():
    predicted = score([station(PlainTimer(front=0.005))], goal(users=1))
    assert predicted.summary.ttft_s.mean == pytest.approx(0.020, rel=1e-3)
    assert predicted.summary.e2e_s.mean == pytest.approx(1.020, rel=1e-3)


def test_littles_law_holds():
    timer = PlainTimer(step=0.01, each=2e-4, token=1e-5)
    for users in (1, 7, 64, 300):
        predicted = score([station(timer)], goal(users=users))
        assert predicted.summary.requests_per_s * predicted.summary.e2e_s.mean == pytest.approx(users, rel=1e-6)


def test_users_beyond_max_num_seqs_wait_for_a_place():
    """20 users on 10 places wait as long as an answer takes."""
    full, half = score([station(seqs=10)], goal(users=20)), score([station(seqs=10)], goal(users=10))
    assert full.summary.requests_per_s == pytest.approx(half.summary.requests_per_s, rel=1e-6)
    assert full.summary.ttft_s.mean == pytest.approx(half.summary.ttft_s.mean + half.summary.e2e_s.mean, rel=1e-3)


def test_a_small_kv_cache_limits_the_batch_as_max_num_seqs_does():
    """Requests of 1050.5 tokens at their mean: 5252 tokens hold four of them."""
    assert score([station(kv_tokens=5252)], goal()) == score([station(seqs=4)], goal())


def test_prompts_of_others_slow_the_tokens_down():
    """Each of the nine others puts one prompt of 0.1 s between my 100 tokens: 9 x 0.1 / 100 = 9 ms a token."""
    predicted = score([station(PlainTimer(step=0.01, token=1e-4))], goal())
    assert predicted.summary.tpot_s.mean == pytest.approx(0.019, rel=0.06)
    assert predicted.summary.itl_s.max == pytest.approx(0.11, rel=1e-3)


def test_a_small_token_budget_cuts_the_prompt_into_chunks():
    """1000 tokens in steps of 512 are two steps."""
    once, twice = (score([station(budget=budget)], goal(users=1)) for budget in (8192, 512))
    assert twice.summary.ttft_s.mean - once.summary.ttft_s.mean == pytest.approx(0.01, rel=1e-3)


def test_a_shared_prefix_is_not_computed_again():
    timer = PlainTimer(token=1e-4)
    plain, shared = score([station(timer)], goal()), score([station(timer)], goal(shared_prefix_tokens=960))
    assert shared.summary.ttft_s.mean < plain.summary.ttft_s.mean / 2


def test_two_replicas_share_the_users():
    timer = PlainTimer(each=1e-3)
    one, two = score([station(timer)], goal()), score([station(timer)] * 2, goal(users=20))
    assert two.summary.e2e_s.mean == pytest.approx(one.summary.e2e_s.mean, rel=1e-9)
    assert two.summary.requests_per_s == pytest.approx(2 * one.summary.requests_per_s, rel=1e-9)


def test_round_robin_gathers_users_at_the_slow_replica():
    slow, fast = station(PlainTimer(step=0.03)), station(PlainTimer(step=0.01))
    assert equal_counts([slow, fast]) == (0.5, 0.5)
    shares = equal_rates([slow, fast], goal(users=40), (1, 1))
    assert shares[0] == pytest.approx(0.75, abs=0.02)


def test_weights_send_more_to_the_larger_replica():
    assert equal_rates([station(), station(PlainTimer(step=0.02))], goal(users=None, rate=3.0), (2, 1)) == (
        2 / 3,
        1 / 3,
    )


def test_an_open_loop_keeps_its_rate_or_is_saturated():
    timer = PlainTimer(each=1e-3)
    kept, lost = (
        score([station(timer)], goal(users=None, rate=2.0)),
        score([station(timer)], goal(users=None, rate=50.0)),
    )
    assert kept.summary.requests_per_s == pytest.approx(2.0)
    assert not kept.saturated
    assert lost.saturated
    assert lost.summary.requests_per_s < 50
    assert not lost.meets(goal())


def test_targets_are_95th_percentiles():
    predicted = score([station()], goal(users=1))
    assert predicted.meets(goal(slo_ttft_s=0.1, slo_tpot_s=0.011))
    assert not predicted.meets(goal(slo_ttft_s=0.01))
    assert not predicted.meets(goal(slo_tpot_s=0.009))


def test_what_is_favoured_is_what_counts():
    predicted = score([station()], goal())
    assert predicted.cost(goal()) == predicted.summary.e2e_s.mean
    assert predicted.cost(goal(favour=Favour.FIRST_TOKEN)) == predicted.summary.ttft_s.p95


def test_percentiles_of_a_wait_rise():
    spread = tailed(1.0, 2.0)
    ordered = [spread.p50, spread.p90, spread.p95, spread.p99, spread.max]
    assert ordered == sorted(ordered)
    assert (spread.mean, spread.p50) == (3.0, pytest.approx(1 + 2 * 0.6931, rel=1e-3))
