"""Every way in which a server can fail us has a class of its own, and sent = ok + failed + cancelled."""

import asyncio
import socket
from functools import partial

import numpy as np
import pytest
import uvloop

from atoll.analyse.summary import summarise
from atoll.errors import RunFailed
from atoll.load.run import LoadControl, measure_load
from atoll.load.target import RequestOptions, Timeouts
from atoll.traffic.workload import Workload
from stand_ins.clock import ManualClock
from stand_ins.naughty import full_backlog
from stand_ins.patience import PATIENCE_S, beside, turns, until, wait_until

PATIENT = Timeouts(connect_s=PATIENCE_S, token_s=PATIENCE_S)
QUICK = Timeouts(connect_s=PATIENCE_S, token_s=0.3)


def run(url, *, workload=None, options=None, during=None, **settings):
    load = workload or Workload(users=2, requests=6, prompt=8, output=4, start="at_once")
    control = LoadControl()

    async def both():
        options_ = options or RequestOptions(model="m", timeouts=PATIENT)
        work = asyncio.ensure_future(measure_load(url, load, options=options_, control=control, **settings))
        return await beside(work, during(control) if during is not None else None)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(both())


def counts(result):
    return summarise(result.table).requests


def adds_up(result, sent):
    seen = counts(result)
    assert seen.sent == seen.ok + seen.failed + seen.cancelled == sent
    assert sorted(result.table.number.tolist()) == list(range(sent))


@pytest.mark.parametrize(
    ("manner", "word", "said"),
    [
        ("busy", "http_503", "overloaded"),
        ("bad_request", "http_400", "maximum context length"),
        ("reset", "connection_reset", "reset"),
        ("reset_midway", "connection_reset", "reset"),
        ("close", "connection_closed", "without an answer"),
        ("cut", "truncated", "middle"),
        ("no_finish", "truncated", "finish reason"),
        ("malformed", "bad_sse", "{nope"),
        ("engine_error", "stream_error", "EngineDeadError"),
        ("loop_redirect", "redirect_loop", "/v1/"),
        ("redirect_away", "redirect", "example.invalid"),
        ("web_page", "wrong_content_type", "text/html"),
        ("gigantic", "line_too_long", "8 MiB"),
        ("other_protocol", "bad_http", "HTTP"),
    ],
)
def test_each_failure_has_its_class_and_is_counted_once(naughty, manner, word, said):
    naughty.manner = manner
    result = run(naughty.url)
    adds_up(result, 6)
    assert counts(result).failed == 6
    assert set(result.table.error) == {word}
    assert all(said in detail for detail in result.table.detail)
    assert len(naughty.asked) == (36 if manner == "loop_redirect" else 6)


@pytest.mark.parametrize(
    "figure",
    [10**22, -(10**24), -1, True, 1.5, "9", None, [1]],
    ids=["huge", "far_below_0", "-1", *["b", "f", "t", "n", "l"]],
)
def test_a_usage_that_cannot_be_is_none(naughty, figure):
    naughty.manner = "odd_usage"
    naughty.odd = {
        "prompt_tokens": figure,
        "completion_tokens": figure,
        "prompt_tokens_details": {"cached_tokens": figure},
    }
    result = run(naughty.url)
    adds_up(result, 6)
    assert counts(result).ok == 6
    assert set(result.table.output_tokens.tolist()) == {2}
    assert set(result.table.prompt_tokens.tolist()) == {8}
    assert set(result.table.cached_tokens.tolist()) == {0}
    assert summarise(result.table).counted_from_chunks == 6


def test_a_fault_of_ours_ends_the_run(naughty, monkeypatch):
    """An answer that was dropped is not waited for."""

    def fall(*_given, **_more):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("atoll.load.ledger.count_tokens", fall)
    with pytest.raises(ZeroDivisionError, match="ours"):
        run(naughty.url)


@pytest.mark.parametrize("manner", ["stall", "mute"])
def test_a_server_that_says_no_more_is_a_stall(naughty, manner):
    naughty.manner = manner
    result = run(naughty.url, options=RequestOptions(model="m", timeouts=QUICK))
    adds_up(result, 6)
    assert counts(result).failed == 6
    assert set(result.table.error) == {"stall"}
    assert all("0.3 s" in detail for detail in result.table.detail)
    wait_until(lambda: len(naughty.asked) == 6)


def test_bytes_that_are_no_text_are_a_slow_drip(naughty):
    """Time goes on only when every open answer has gone on, so that a slow machine is no silent server."""
    naughty.manner = "drip"
    clock = ManualClock()

    async def drip(_control):
        while True:
            await until(partial(gone_on, list(naughty.dripped)))
            await turns(20)
            clock.advance(0.1)

    def gone_on(before):
        return naughty.dripped and all(now > min(then, 1e9) for now, then in zip(naughty.dripped, before, strict=False))

    result = run(naughty.url, options=RequestOptions(model="m", timeouts=QUICK), during=drip, clock=clock)
    adds_up(result, 6)
    assert counts(result).failed == 6
    assert set(result.table.error) == {"slow_drip"}
    assert all("0.3 s" in detail for detail in result.table.detail)
    assert len(naughty.asked) == 6


def test_after_failures_the_good_answers_are_counted_too(naughty):
    naughty.manner = "busy_at_first"
    result = run(naughty.url, workload=Workload(users=2, requests=30, prompt=8, output=4, start="at_once"))
    adds_up(result, 30)
    assert counts(result).ok == 28
    assert counts(result).failed == 2


def test_a_redirect_within_the_server_is_followed(naughty):
    naughty.manner = "redirect_once"
    result = run(naughty.url)
    adds_up(result, 6)
    assert counts(result).ok == 6


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        result = run(f"http://127.0.0.1:{port}")
    adds_up(result, 6)
    assert set(result.table.error) == {"connection_refused"}


def test_an_address_that_no_route_leads_to():
    """Linux makes no TCP connection to a multicast address: ENETUNREACH, with or without a network."""
    result = run("http://224.0.0.1:80")
    adds_up(result, 6)
    assert set(result.table.error) == {"network"}
    assert "unreachable" in result.table.detail[0]


def test_a_server_that_takes_no_more_connections():
    with full_backlog() as port:
        options = RequestOptions(model="m", timeouts=Timeouts(connect_s=0.2))
        result = run(f"http://127.0.0.1:{port}", options=options)
    adds_up(result, 6)
    assert set(result.table.error) == {"connect_timeout"}


def test_a_name_that_nobody_knows_ends_the_run_before_it_begins():
    with pytest.raises(RunFailed, match=r"nope\.invalid is not known \(dns\)"):
        run("http://nope.invalid:8000")


def test_an_answer_without_choices(naughty):
    naughty.manner = "no_choices"
    result = run(naughty.url, options=RequestOptions(model="m", stream=False, timeouts=PATIENT))
    adds_up(result, 6)
    assert set(result.table.error) == {"bad_answer"}


def test_a_certificate_that_nobody_vouches_for(naughty_tls):
    result = run(naughty_tls.url)
    adds_up(result, 6)
    assert set(result.table.error) == {"tls"}
    assert "self-signed" in result.table.detail[0]


def test_a_dead_server_is_not_hammered(naughty):
    naughty.manner = "close"
    table = run(naughty.url, workload=Workload(users=1, requests=5, prompt=8, output=4, start="at_once")).table
    pauses = table.sent_s[1:] - table.done_s[:-1]
    assert (pauses >= np.array([0.1, 0.2, 0.4, 0.8]) - 0.002).all()  # a timer may go off a millisecond early


def test_a_whole_answer_may_take_only_so_long(naughty):
    naughty.gap_s = 0.1
    clock = ManualClock()

    async def let_time_pass(_control):
        await until(lambda: len(naughty.said) == 2 and min(naughty.said) > 0)
        await turns(20)
        clock.advance(0.6)

    options = RequestOptions(model="m", timeouts=Timeouts(request_s=0.5, token_s=2.0))
    load = Workload(users=2, requests=2, prompt=8, output=50_000, start="at_once")
    result = run(naughty.url, options=options, workload=load, during=let_time_pass, clock=clock)
    assert set(result.table.error) == {"timeout"}
    assert (result.table.output_tokens > 0).all()


def test_stopping_by_hand_cancels_what_is_under_way_and_keeps_the_rest(naughty):
    naughty.gap_s = 0.02

    async def stop(control):
        await until(lambda: len(naughty.asked) >= 10)  # of five users' ten requests, five have been answered
        control.stop("interrupted")

    load = Workload(users=5, duration_s=3600, prompt=8, output=10, start="at_once")
    result = run(naughty.url, workload=load, during=stop)
    adds_up(result, len(result.table))
    seen = counts(result)
    assert result.stopped == "interrupted"
    assert seen.ok >= 5
    assert seen.cancelled == 5
    assert seen.failed == 0


def test_the_drain_limit_cancels_long_answers(naughty):
    naughty.manner = "stall"
    load = Workload(users=3, duration_s=0.4, prompt=8, output=200, start="at_once")
    result = run(naughty.url, workload=load, drain_s=0.2, clock=ManualClock())  # its limits are the loop's, not its
    assert counts(result).cancelled == 3
    assert set(result.table.error) == {"time_limit"}


def test_without_usage_tokens_are_counted_from_chunks(naughty):
    naughty.manner = "no_usage"
    result = run(naughty.url)
    assert summarise(result.table).counted_from_chunks == 6
    assert (result.table.output_tokens == 2).all()


def test_the_wall_clock_may_jump(naughty):
    """Only a clock that never goes back is used for times; the wall clock dates the run and no more."""

    class Jumping:
        def __init__(self):
            from atoll.outside.clock import SystemClock

            self.now = SystemClock().now
            self.days = 0

        def wall(self):
            self.days -= 1
            return 86400.0 * self.days

        async def sleep(self, seconds):
            await asyncio.sleep(seconds)

    result = run(naughty.url, clock=Jumping())
    assert counts(result).ok == 6
    assert 0 <= np.nanmin(result.table.sent_s) < np.nanmax(result.table.done_s) < 43200  # not one of the jumps of a day
    assert (result.table.first_token_s >= result.table.sent_s).all()
