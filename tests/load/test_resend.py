"""Servers that close a connection after the answer without saying so, as llama.cpp's does."""

import asyncio

import uvloop

from atoll.analyse.summary import summarise
from atoll.load.run import measure_load
from atoll.load.target import RequestOptions
from atoll.traffic.workload import Workload


def run(url, **load):
    async def story():
        return await measure_load(url, Workload(prompt=8, output=4, **load), options=RequestOptions(model="m"))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(story())


def test_a_connection_that_was_closed_between_requests_costs_no_request(naughty):
    naughty.manner = "close_after_answer"
    result = run(naughty.url, users=2, requests=40, start="at_once")
    summary = summarise(result.table)
    assert (summary.requests.ok, summary.requests.failed) == (40, 0)
    assert len(naughty.asked) == 40  # the server has seen each of them once
    assert 0 < summary.remarks["resent"] == int(result.table.resent.sum()) < 20
    assert result.client.resent == summary.remarks["resent"]


def test_a_server_that_drops_every_request_is_not_asked_twice(naughty):
    naughty.manner = "close"
    result = run(naughty.url, users=2, requests=6, start="at_once")
    assert set(result.table.error) == {"connection_closed"}
    assert len(naughty.asked) == 6
    assert result.table.resent.sum() == 0


def test_an_open_loop_is_dialled_again_as_well(naughty):
    naughty.manner = "close_after_answer"
    result = run(naughty.url, rate=200.0, requests=20)
    assert summarise(result.table).requests.ok == 20
