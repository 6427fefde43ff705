"""When users start: spread over one answer, never over more than a tenth of the run."""

import pytest

from atoll.errors import BadTraffic
from atoll.traffic.demand import Demand
from atoll.traffic.start import settle_start, with_mean_lengths
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Start, Workload

LOAD = Workload(users=30, duration="10m")


def test_users_start_over_the_time_of_one_answer():
    settled = settle_start(LOAD, 30.0)
    assert settled == LOAD.replace(start=30.0)
    assert Demand(settled).starts()[:3] == (0.0, 1.0, 2.0)


def test_never_over_more_than_a_tenth_of_the_run():
    assert settle_start(LOAD.replace(duration_s=60.0), 30.0).start == 6.0
    assert settle_start(Workload(users=30, requests=300), 30.0).start == 30.0  # ten rounds of 30 s
    assert settle_start(Workload(users=30, requests=60), 30.0).start == 6.0
    assert settle_start(Workload(users=30, requests=300, duration_s=100), 30.0).start == 10.0


def test_who_says_when_is_left_alone():
    for load in (LOAD.replace(start="at_once"), LOAD.replace(start=45.0), Workload(rate=2.0)):
        assert settle_start(load, 30.0) == load
    assert settle_start(LOAD, None).start is Start.AT_ONCE


def test_a_spread_that_nobody_settled_is_told():
    with pytest.raises(BadTraffic, match="nobody said how long that is"):
        Demand(LOAD).starts()
    assert Demand(LOAD.replace(users=1)).starts() == (0.0,)


def test_lengths_of_a_trace_are_reckoned_with_at_their_means():
    rows = [
        TraceRow(due_s=0.0, prompt_tokens=100, output_tokens=10),
        TraceRow(due_s=1.0, prompt_tokens=300, output_tokens=20),
    ]
    load = with_mean_lengths(Workload(users=3, requests=9, trace="day.csv"), rows)
    assert (load.prompt.mean, load.output.mean) == (200, 15)
    assert with_mean_lengths(LOAD, rows) == LOAD
