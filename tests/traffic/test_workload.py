"""A workload's own rules."""

import pytest

from atoll.errors import BadDocument
from atoll.traffic.workload import Arrivals, Workload


def read(**plain):
    return Workload.from_plain(plain, origin="study.yaml")


def test_a_trace_alone_is_replayed():
    load = read(trace="day.csv")
    assert (load.arrivals, load.prompt.kind, load.output.kind) == (Arrivals.TRACE, "trace", "trace")
    assert read(**load.to_plain()) == load


def test_a_trace_gives_its_lengths_to_users_and_to_a_rate():
    closed, open_loop = read(trace="day.csv", users=3, duration="1m"), read(trace="day.csv", rate=2, duration="1m")
    assert (closed.arrivals, closed.prompt.kind) == (Arrivals.CLOSED, "trace")
    assert (open_loop.arrivals, open_loop.output.kind) == (Arrivals.POISSON, "trace")


def test_users_may_take_the_prompts_from_a_trace_and_the_answers_elsewhere():
    load = read(trace="day.csv", users=3, duration="1m", output=100)
    assert (load.prompt.kind, load.output.kind) == ("trace", "fixed")


def test_a_replay_with_other_lengths_is_refused():
    with pytest.raises(
        BadDocument, match="a trace that is replayed brings its own lengths; leave out prompt and output"
    ):
        read(trace="day.csv", prompt=100)
