"""The users' requests: drawn from the seed alone."""

import numpy as np
import pytest

from atoll.errors import BadTraffic
from atoll.traffic.demand import Demand
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Workload

MIXED = {"kind": "lognormal", "mean": 500, "sigma": 0.8}


def lengths(demand, user, count):
    return [(r.prompt_tokens, r.output_tokens) for r in (demand.next_request(user, n) for n in range(count))]


def test_a_users_requests_do_not_depend_on_who_answers_sooner():
    workload = Workload(users=3, requests=100, prompt=MIXED, output=MIXED)
    alone, mixed = Demand(workload), Demand(workload)
    expected = lengths(alone, 1, 100)
    seen = []
    for n in range(100):
        mixed.next_request(0, n)
        seen += lengths(mixed, 1, 1)
        if n % 3 == 0:
            mixed.next_request(2, n)
    assert seen == expected


def test_another_user_and_another_seed_ask_for_other_things():
    workload = Workload(users=3, requests=100, prompt=MIXED, output=MIXED)
    one = lengths(Demand(workload), 0, 20)
    assert one != lengths(Demand(workload), 1, 20)
    assert one != lengths(Demand(workload.replace(seed=2)), 0, 20)
    assert one == lengths(Demand(workload), 0, 20)


def test_each_turn_carries_the_turns_before():
    workload = Workload(users=2, requests=10, prompt=100, output=30, turns=3, shared_prefix_tokens=64)
    demand = Demand(workload)
    turns = [demand.next_request(1, n) for n in range(4)]
    assert [t.turn for t in turns] == [0, 1, 2, 0]
    assert [t.history_tokens for t in turns] == [0, 130, 260, 0]
    assert [t.prompt_tokens for t in turns] == [100, 230, 360, 100]
    assert [t.session for t in turns] == [1, 1, 1, 3]  # user 1's second session; users take every second number
    assert {t.shared_prefix_tokens for t in turns} == {64}


def test_a_prompt_shorter_than_the_shared_head_is_all_head():
    demand = Demand(Workload(users=1, requests=1, prompt=10, output=5, shared_prefix_tokens=64))
    assert demand.next_request(0, 0).shared_prefix_tokens == 10


def test_prompts_come_again_after_so_many_distinct_ones():
    demand = Demand(Workload(users=3, requests=20, prompt=MIXED, output=MIXED, distinct_prompts=4))
    asked = [[demand.next_request(user, n) for n in range(4)] for user in range(3)]
    assert [[r.prefix for r in requests] for requests in asked] == [[0, 3, 2, 1], [1, 0, 3, 2], [2, 1, 0, 3]]
    assert all(r.shared_prefix_tokens == r.prompt_tokens for requests in asked for r in requests)
    assert asked[0][0].prompt_tokens == asked[1][1].prompt_tokens == asked[2][2].prompt_tokens
    assert len({requests[0].prompt_tokens for requests in asked}) == 3


def test_prompts_come_again_in_an_open_loop_and_in_a_trace():
    load = Workload(rate=2, requests=5, prompt=MIXED, output=MIXED, distinct_prompts=2)
    requests = list(Demand(load).open_requests())
    assert [r.prefix for r in requests] == [0, 1, 0, 1, 0]
    assert requests[0].prompt_tokens == requests[4].prompt_tokens
    rows = [TraceRow(due_s=n, prompt_tokens=50 + n % 2, output_tokens=9) for n in range(4)]
    again = Demand(load.replace(arrivals="trace", rate=None, requests=None), rows).open_requests()
    assert [(r.prompt_tokens, r.shared_prefix_tokens, r.prefix) for r in again] == [(50, 50, 0), (51, 51, 1)] * 2


def test_users_start_spread_over_the_ramp():
    assert Demand(Workload(users=4, requests=4, prompt=1, output=1, start=10)).starts() == (0.0, 2.5, 5.0, 7.5)


def test_sending_ends_with_the_duration_or_the_number_of_requests():
    demand = Demand(Workload(users=1, requests=10, duration_s=60, prompt=1, output=1))
    assert demand.goes_on(59.9, 9)
    assert not demand.goes_on(60.0, 9)
    assert not demand.goes_on(10.0, 10)


@pytest.mark.parametrize("arrivals", ["constant", "poisson", "bursty"])
def test_open_loop_keeps_its_rate(arrivals):
    workload = Workload(rate=5, arrivals=arrivals, burstiness=0.5, requests=20_000, prompt=MIXED, output=7)
    requests = list(Demand(workload).open_requests())
    due = np.array([request.due_s for request in requests])
    assert len(requests) == 20_000
    assert (np.diff(due) >= 0).all()
    # The mean gap's standard error is at most sqrt(1 / 0.5) / sqrt(20,000) = 1 %.
    assert np.diff(due).mean() == pytest.approx(1 / 5, rel=0.04)
    spread = np.diff(due).std() / np.diff(due).mean()
    assert spread == pytest.approx({"constant": 0, "poisson": 1, "bursty": 2**0.5}[arrivals], abs=0.08)


def test_open_loop_stops_at_the_duration():
    requests = list(Demand(Workload(rate=10, arrivals="constant", duration_s=2, prompt=1, output=1)).open_requests())
    assert len(requests) == 19  # due at 0.1, 0.2 ... 1.9
    assert [r.number for r in requests] == list(range(19))


ROWS = (
    TraceRow(due_s=0.0, prompt_tokens=10, output_tokens=1),
    TraceRow(due_s=0.5, prompt_tokens=20, output_tokens=2),
    TraceRow(due_s=0.5, prompt_tokens=30, output_tokens=3),
)


def test_a_trace_is_replayed_as_it_stands():
    demand = Demand(Workload(arrivals="trace", prompt=1, output=1), ROWS)
    assert [(r.due_s, r.prompt_tokens, r.output_tokens) for r in demand.open_requests()] == [
        (0.0, 10, 1),
        (0.5, 20, 2),
        (0.5, 30, 3),
    ]


def test_users_may_draw_their_lengths_from_a_trace_pairwise():
    both = {"kind": "trace", "mean": 1}
    demand = Demand(Workload(users=2, requests=50, prompt=both, output=both), ROWS)
    pairs = set(lengths(demand, 0, 50))
    assert pairs == {(10, 1), (20, 2), (30, 3)}


def test_a_missing_trace_is_told():
    with pytest.raises(BadTraffic, match="no trace was given"):
        Demand(Workload(arrivals="trace", prompt=1, output=1))
