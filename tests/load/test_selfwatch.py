"""What the load generator says of itself."""

import asyncio
import time

import numpy as np
import pytest
import uvloop

from atoll.load.run import measure_load
from atoll.load.selfwatch import WatchSeen, judge, loop_waits, users_held
from atoll.load.target import RequestOptions
from atoll.traffic.record import Record, RecordTable
from atoll.traffic.workload import Workload


def table(count=100, ttft=0.2, due=None):
    return RecordTable.from_records(
        Record(
            number=number,
            user=number % 10,
            due_s=None if due is None else 0.1 * number,
            sent_s=0.1 * number + (due or 0.0),
            token_s=(0.1 * number + (due or 0.0) + ttft, 0.1 * number + 1.0 + (due or 0.0)),
            done_s=0.1 * number + 1.0 + (due or 0.0),
            output_tokens=2,
        )
        for number in range(count)
    )


def seen(lags=(), reads=(), cpu_s=1.0, wall_s=10.0):
    return WatchSeen(
        lags=np.array(lags, dtype=np.float64).tobytes(),
        read_lags=np.array(reads, dtype=np.float64).tobytes(),
        cpu_s=cpu_s,
        wall_s=wall_s,
        held_back=0,
    )


def test_one_long_stall_counts_for_all_that_came_in_it():
    waits = loop_waits(np.array([0.0] * 500 + [2.0]), 100.0)
    assert waits.mean_s == pytest.approx(0.02)
    assert waits.p99_s == pytest.approx(1.0, abs=1e-6)
    assert waits.max_s == 2.0


def test_a_client_that_keeps_up_says_so():
    report = judge(table(), [seen([0.0002] * 900, [0.001] * 50)], users=10, held=9.99)
    assert not report.limited
    assert "its own share of TTFT is 1.0 ms" in report.verdict


@pytest.mark.parametrize(
    ("watch", "held", "words"),
    [
        (seen(cpu_s=9.5), 10.0, "95% of a core"),
        (seen(lags=[3.0]), 10.0, "waited 450 ms"),
        (seen(reads=[0.02] * 50), 10.0, "waited 20 ms"),
        (seen(), 9.5, "held 9.5 of 10 users"),
    ],
)
def test_each_way_to_be_the_limit_is_named(watch, held, words):
    report = judge(table(), [watch], users=10, held=held)
    assert report.limited
    assert words in report.verdict
    assert "Do not trust the TTFT" in report.verdict


def test_sending_late_is_the_clients_fault_too():
    report = judge(table(due=0.2), [seen()], users=None, held=None, backlog=7)
    assert report.limited
    assert "200 ms late" in report.verdict
    assert report.backlog_max == 7


def test_the_busiest_process_counts():
    report = judge(table(), [seen(cpu_s=1.0), seen(cpu_s=9.9)], users=10, held=10.0)
    assert report.cpu_share == pytest.approx(0.99)
    assert report.processes == 2


def test_users_held_is_the_mean_number_under_way():
    assert users_held(table(), start_s=1.0, end_s=9.0) == pytest.approx(10.0, rel=0.02)


def test_a_client_that_is_held_up_finds_out(naughty):
    """Something blocks the loop for 0.3 s of every 0.5: the client has to notice that it is not the server."""

    async def both():
        async def block():
            while True:
                await asyncio.sleep(0.2)
                time.sleep(0.3)  # noqa: ASYNC251 - this is the point

        blocking = asyncio.create_task(block())
        load = Workload(users=4, duration_s=2.0, prompt=4, output=20, start="at_once")
        result = await measure_load(naughty.url, load, options=RequestOptions(model="m"))
        blocking.cancel()
        return result

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        client = runner.run(both()).client
    assert client.limited
    assert client.loop_lag_mean_s > 0.03
