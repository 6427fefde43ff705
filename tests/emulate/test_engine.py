"""The pace: steps end when the timer says, on average and each, however badly the event loop sleeps."""

import asyncio

import pytest

from atoll.cost.step import StepBatch
from atoll.emulate.ask import Ask
from atoll.emulate.engine import MOST_LATE_S, EmulatedEngine
from atoll.emulate.meters import Meters
from atoll.emulate.words import split_prompt
from atoll.engines.engine import SchedulerLimits
from atoll.simulate.blocks import BlockPool
from atoll.simulate.scheduler import Scheduler
from stand_ins.clock import ManualClock


class Timer:
    def __init__(self, seconds, front_s=0.0):
        self._seconds = seconds
        self.front_s = front_s

    def seconds(self, batch: StepBatch) -> float:
        return self._seconds(batch) if callable(self._seconds) else self._seconds

    def front_seconds(self, prompt_tokens: float) -> float:
        return self.front_s


class Watch:
    """Notes when tokens came."""

    def __init__(self, clock):
        self.clock, self.times, self.finished, self.cached = clock, [], False, None

    def on_token(self):
        self.times.append(self.clock.now())

    def on_finish(self, cached_tokens):
        self.times.append(self.clock.now())
        self.finished, self.cached = True, cached_tokens


def ask(tokens: int, *, prompt: str = "one two three"):
    return Ask(prompt=split_prompt(prompt), start=0, output_tokens=tokens, finish_reason="length", max_tokens=tokens)


def make(clock, seconds, *, speed=1.0, async_scheduling=True, kv_blocks=1000, front_s=0.0):
    scheduler = Scheduler(SchedulerLimits(async_scheduling=async_scheduling), BlockPool(kv_blocks))
    meters = Meters(max_model_len=4096)
    return EmulatedEngine(
        scheduler, Timer(seconds, front_s), clock=clock, meters=meters, speed=speed, hold=clock.advance
    )


async def turns(done):
    """Let the event loop turn until it is done."""
    for _ in range(100_000):
        await asyncio.sleep(0)
        if done():
            return
    raise AssertionError("it never came to an end")


async def run_until(engine, watches):
    task = asyncio.create_task(engine.run())
    await turns(lambda: all(watch.finished for watch in watches))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def times_of(seconds, tokens, *, oversleep_s=0.0, speed=1.0, front_s=0.0):
    async def story():
        clock = ManualClock(start=0.0, flows=True)
        clock.oversleep_s = oversleep_s
        watch = Watch(clock)
        engine = make(clock, seconds, speed=speed, front_s=front_s)
        engine.submit(ask(tokens), watch)
        await run_until(engine, [watch])
        return watch.times, engine

    return asyncio.run(story())


def test_every_token_comes_when_its_step_ends():
    times, _ = times_of(0.020, 50)
    assert times == pytest.approx([0.020 * n for n in range(1, 51)])


def test_oversleeping_does_not_drift():
    """The loop wakes 5 ms late each time: every token is late by what is left of that, none by more, and none adds up."""
    times, engine = times_of(0.020, 200, oversleep_s=0.005)
    late = [time - 0.020 * n for n, time in enumerate(times, 1)]
    assert max(late) == pytest.approx(0.0035)  # 5 ms less the 1.5 ms that we wake up early
    assert late[-1] == pytest.approx(0.0035)
    assert engine.meters.late_s == 0


def test_a_machine_that_is_too_slow_says_so():
    """Each sleep takes half a second too long: the pace starts anew, and how far it fell behind is counted."""
    times, engine = times_of(0.020, 10, oversleep_s=0.5)
    assert MOST_LATE_S < 0.5
    assert times[-1] == pytest.approx(10 * (0.020 + 0.5 - 0.0015), abs=1e-6)
    assert engine.meters.late_s == pytest.approx(10 * 0.4985)


def test_speed_divides_the_timers_seconds():
    times, _ = times_of(0.020, 5, speed=10)
    assert times == pytest.approx([0.002 * n for n in range(1, 6)])


def test_the_api_servers_time_passes_before_the_first_step():
    times, _ = times_of(0.020, 3, front_s=0.005)
    assert times == pytest.approx([0.025, 0.045, 0.065])


def test_speed_divides_the_api_servers_time_as_well():
    times, _ = times_of(0.020, 2, front_s=0.005, speed=10)
    assert times == pytest.approx([0.0025, 0.0045])


def test_who_leaves_on_the_way_through_the_api_server_is_never_scheduled():
    async def story():
        clock = ManualClock(start=0.0, flows=True)
        one, other = Watch(clock), Watch(clock)
        engine = make(clock, 0.020, front_s=0.005)
        leaving = engine.submit(ask(2), one)
        engine.submit(ask(2), other)
        engine.abort(leaving)
        await run_until(engine, [other])
        return one, other, engine

    one, other, engine = asyncio.run(story())
    assert one.times == []
    assert other.times == pytest.approx([0.025, 0.045])
    assert engine.meters.finished["abort"] == 1


def test_the_timer_sees_the_batch_grow():
    seen = []

    def seconds(batch):
        seen.append((batch.prefills, batch.decodes, batch.decode_context))
        return 0.01

    times_of(seconds, 3)
    assert seen == [(((3, 0),), 0, 0), ((), 1, 3), ((), 1, 4)]


def test_an_idle_engine_starts_its_pace_with_the_next_request():
    async def story():
        clock = ManualClock(start=0.0, flows=True)
        engine = make(clock, 0.02)
        first, second = Watch(clock), Watch(clock)
        engine.submit(ask(2), first)
        await run_until(engine, [first])
        clock.advance(100)
        engine.submit(ask(2), second)
        await run_until(engine, [second])
        return second.times

    assert asyncio.run(story()) == pytest.approx([100.06, 100.08])


def test_without_async_scheduling_a_newcomer_joins_one_step_earlier():
    """vLLM since 0.14 schedules a step while the one before runs; whoever comes meanwhile waits one step longer."""

    async def first_token(async_scheduling):
        clock = ManualClock(start=0.0)
        engine = make(clock, 0.01, async_scheduling=async_scheduling)
        running, late = Watch(clock), Watch(clock)
        engine.submit(ask(100), running)
        task = asyncio.create_task(engine.run())

        async def pass_time(seconds):
            for _ in range(round(seconds / 0.0005)):
                for _ in range(4):
                    await asyncio.sleep(0)
                clock.advance(0.0005)

        await pass_time(0.025)
        engine.submit(ask(3), late)
        await pass_time(0.04)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return late.times[0]

    early, later = asyncio.run(first_token(False)), asyncio.run(first_token(True))
    assert later - early == pytest.approx(0.01, abs=0.002)


def test_an_aborted_job_gets_no_more_tokens():
    async def story():
        clock = ManualClock(start=0.0, flows=True)
        engine = make(clock, 0.01)
        gone, stays = Watch(clock), Watch(clock)
        job = engine.submit(ask(50), gone)
        engine.submit(ask(50), stays)
        task = asyncio.create_task(engine.run())
        await turns(lambda: len(gone.times) >= 5)
        engine.abort(job)
        engine.abort(job)
        count = len(gone.times)
        await turns(lambda: stays.finished)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return count, len(gone.times), engine.meters.finished["abort"], engine.gauges()

    count, after, aborted, gauges = asyncio.run(story())
    assert after == count
    assert aborted == 1
    assert (gauges.running, gauges.waiting, gauges.kv_usage) == (0, 0, 0)


def test_preempted_answers_are_complete():
    """Two answers that together outgrow the KV cache: one is computed anew, and both have every token once."""

    async def story():
        clock = ManualClock(start=0.0, flows=True)
        engine = make(clock, 0.001, kv_blocks=20)
        watches = [Watch(clock), Watch(clock)]
        for number, watch in enumerate(watches):
            engine.submit(ask(200, prompt=f"w{number} " * 40), watch)
        await run_until(engine, watches)
        return watches, engine.gauges(), engine.meters

    watches, _, meters = asyncio.run(story())
    assert [len(watch.times) for watch in watches] == [200, 200]
    assert meters.preemptions >= 1
    assert meters.generation_tokens == 400
