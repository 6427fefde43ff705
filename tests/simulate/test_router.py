"""Which replica gets a request."""

from collections import Counter

import numpy as np
import pytest

from atoll.layout.affinity import Homes
from atoll.layout.layout import Policy, Router
from atoll.simulate.job import Job
from atoll.simulate.router import VirtualRouter


def virtual(policy, weights=(1, 1), *, hot=64, **router):
    servers = tuple(f"127.0.0.1:{8000 + number}" for number in range(len(weights)))
    homes = Homes(servers=servers, hot=(hot,) * len(weights)) if policy.is_affine else None
    return VirtualRouter(Router(policy=policy, **router), weights, np.random.default_rng(3), homes)


def job(prompt=10, output=10, key=""):
    return Job(number=0, prompt_tokens=prompt, output_tokens=output, key=key)


def sends(router, count, *, now=0.0, worker=0):
    return [router.choose(job(), worker=worker, now=now) for _ in range(count)]


def test_smooth_round_robin_spreads_the_heavy_one():
    assert sends(virtual(Policy.ROUND_ROBIN, (5, 1, 1)), 7) == [0, 0, 1, 0, 2, 0, 0]


def test_least_conn_fills_the_emptier_side_and_alternates_among_equals():
    router = virtual(Policy.LEAST_CONN)
    assert sends(router, 4) == [0, 1, 1, 0]  # after a choice by connections alone nginx's turn stays with 1
    router.release(1, job(), worker=0, now=0)
    router.release(1, job(), worker=0, now=0)
    assert sends(router, 3) == [1, 1, 0]


def test_least_conn_counts_connections_for_their_weight():
    assert Counter(sends(virtual(Policy.LEAST_CONN, (2, 1)), 9)) == {0: 6, 1: 3}


def test_random_two_of_two_is_the_emptier_one():
    router = virtual(Policy.RANDOM_TWO)
    for _ in range(3):
        router.choose(job(), worker=0, now=0, tried=[1])
    assert sends(router, 3) == [1, 1, 1]


def test_random_two_of_many_never_takes_the_fullest():
    router = virtual(Policy.RANDOM_TWO, (1, 1, 1, 1))
    for _ in range(9):
        router.choose(job(), worker=0, now=0, tried=[0, 1, 2])
    assert 3 not in sends(router, 20)


def test_without_a_zone_each_worker_counts_for_itself():
    alone = virtual(Policy.LEAST_CONN, shared_zone=False, workers=8)
    # Eight long requests, one a worker: every worker thinks that all replicas are idle and takes the first.
    assert [alone.choose(job(), worker=worker, now=0) for worker in range(8)] == [0] * 8
    together = virtual(Policy.LEAST_CONN, shared_zone=True, workers=8)
    assert {together.worker() for _ in range(50)} == {0}
    assert Counter(sends(together, 8)) == {0: 4, 1: 4}


def test_requests_land_on_any_worker():
    router = virtual(Policy.LEAST_CONN, shared_zone=False, workers=4)
    assert {router.worker() for _ in range(200)} == {0, 1, 2, 3}


def fail(router, number, *, now):
    router.release(number, job(), worker=0, now=now, failed=True)


def test_a_failing_replica_is_left_alone_and_tried_again():
    router = virtual(Policy.ROUND_ROBIN, max_fails=1, fail_timeout_s=10)
    assert sends(router, 1, now=5.0) == [0]
    fail(router, 0, now=5.5)
    assert sends(router, 6, now=15.9) == [1] * 6  # nginx counts whole seconds: 15 - 5 is not more than 10
    assert 0 in sends(router, 3, now=16.0)


def test_max_fails_zero_never_leaves_anyone_alone():
    router = virtual(Policy.ROUND_ROBIN, max_fails=0)
    for now in range(5):
        number = router.choose(job(), worker=0, now=now, tried=[1])
        fail(router, number, now=now)
    assert 0 in sends(router, 2, now=5)


def test_when_all_have_failed_one_request_is_lost_and_all_are_tried_again():
    router = virtual(Policy.ROUND_ROBIN, max_fails=1)
    for number in sends(router, 2):
        fail(router, number, now=0)
    lost, *served = sends(router, 5)
    assert lost is None
    assert set(served) == {0, 1}


def test_the_shortest_queue_in_tokens():
    router = virtual(Policy.SHORTEST_QUEUE)
    sizes = [(1000, 10), (10, 10), (10, 10), (10, 500)]
    assert [router.choose(job(p, o), worker=0, now=0) for p, o in sizes] == [0, 1, 1, 1]


def test_a_session_stays_until_its_replica_is_hot_and_all_are_shared_out_when_all_are():
    router = virtual(Policy.SESSION_AFFINITY, (1, 1, 1), hot=3)
    turns = [job(key="s1") for _ in range(12)]
    chosen = [router.choose(turn, worker=0, now=0) for turn in turns]
    first, next_on_the_ring, last = chosen[0], chosen[3], chosen[6]
    assert chosen[:9] == [first] * 3 + [next_on_the_ring] * 3 + [last] * 3
    assert {first, next_on_the_ring, last} == set(chosen[9:]) == {0, 1, 2}  # nobody is refused
    router.release(first, turns[0], worker=0, now=0)
    assert router.choose(job(key="s1"), worker=0, now=0) == first


def test_sessions_lie_on_the_replicas_as_evenly_as_nginxs_ring():
    router = virtual(Policy.SESSION_AFFINITY, (2, 1), hot=10**6)
    counts = Counter(router.choose(job(key=f"s{number}"), worker=0, now=0) for number in range(3000))
    assert 0.6 < counts[0] / 3000 < 0.74


@pytest.mark.parametrize("policy", list(Policy))
def test_every_choice_is_given_back(policy):
    router = virtual(policy, (1, 2, 1))
    held = [(router.choose(one, worker=0, now=0), one) for one in (job(key=f"s{n}") for n in range(200))]
    for number, one in held:
        router.release(number, one, worker=0, now=0)
    assert all(peer.conns == peer.tokens == 0 for peers in (*router._workers, router._rest) for peer in peers.peers)
