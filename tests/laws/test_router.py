"""What every way of balancing promises, whatever comes and goes."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.layout.layout import Policy, Router
from atoll.simulate.job import Job
from atoll.simulate.router import VirtualRouter

weights = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)
# True: a request comes. A number: the request under way at that place (of as many as there are) ends.
events = st.lists(st.one_of(st.just(True), st.integers(0, 50)), max_size=120)


def virtual(policy, shares, **router):
    return VirtualRouter(Router(policy=policy, **router), shares, np.random.default_rng(1))


def job(tokens=10):
    return Job(number=0, prompt_tokens=tokens, output_tokens=1)


def play(router, happens):
    """Who was chosen each time, with what everyone had just before."""
    under_way, conns = [], Counter()
    for event in happens:
        if event is True:
            number = router.choose(job(), worker=0, now=0)
            yield number, dict(conns)
            under_way.append(number)
            conns[number] += 1
        elif under_way:
            number = under_way.pop(event % len(under_way))
            router.release(number, job(), worker=0, now=0)
            conns[number] -= 1


@settings(max_examples=100, deadline=None)
@given(weights, st.integers(1, 4))
def test_round_robin_gives_each_its_weight_in_every_round(shares, rounds):
    router = virtual(Policy.ROUND_ROBIN, shares)
    chosen = [router.choose(job(), worker=0, now=0) for _ in range(rounds * sum(shares))]
    assert Counter(chosen) == {number: rounds * weight for number, weight in enumerate(shares)}


@settings(max_examples=150, deadline=None)
@given(weights, events)
def test_least_conn_always_takes_one_with_the_fewest_for_its_weight(shares, happens):
    for number, conns in play(virtual(Policy.LEAST_CONN, shares), happens):
        loads = [conns.get(other, 0) / weight for other, weight in enumerate(shares)]
        assert loads[number] == min(loads)


@settings(max_examples=150, deadline=None)
@given(weights, events)
def test_random_two_takes_the_fullest_only_when_it_shares_that_place(shares, happens):
    for number, conns in play(virtual(Policy.RANDOM_TWO, shares), happens):
        loads = [conns.get(other, 0) / weight for other, weight in enumerate(shares)]
        assert len(shares) == 1 or loads.count(max(loads)) > 1 or loads[number] < max(loads)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([Policy.ROUND_ROBIN, Policy.LEAST_CONN]), weights, events)
def test_one_worker_without_a_zone_is_as_good_as_a_zone(policy, shares, happens):
    zone = virtual(policy, shares, shared_zone=True, workers=8)
    alone = virtual(policy, shares, shared_zone=False, workers=1)
    assert list(play(zone, happens)) == list(play(alone, happens))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(Policy)), weights, st.lists(st.integers(0, 4), max_size=5))
def test_a_replica_that_was_tried_is_not_tried_again(policy, shares, tried):
    number = virtual(policy, shares).choose(job(), worker=0, now=0, tried=tried)
    if set(tried) >= set(range(len(shares))):
        assert number is None
    else:
        assert number not in tried
