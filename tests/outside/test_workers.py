"""Workers: a question's words as they are said, an error as itself, work that is dropped when nobody listens."""

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path

import pytest

from atoll.errors import InputError, RunFailed
from atoll.outside.clock import SystemClock
from atoll.outside.workers import Workers


@pytest.fixture
def workers(tmp_path, monkeypatch):
    beside = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]  # where the worker's module is found
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, beside)))
    made = Workers("stand_ins.counting_worker", most=1, log=tmp_path / "worker.log", clock=SystemClock())
    yield made
    made.close()


async def all_of(workers, question):
    async with aclosing(workers.ask(question)) as said:
        return [one async for one in said]


def test_a_question_is_answered_word_by_word_by_one_warm_process(workers):
    async def ask():
        first = await all_of(workers, {"count": 3})
        pids = workers.pids
        return first, await all_of(workers, {"count": 1}), pids == workers.pids

    assert asyncio.run(ask()) == ([0, 1, 2], [0], True)


def test_an_error_is_raised_as_itself_and_the_worker_lives_on(workers):
    async def ask():
        with pytest.raises(InputError, match="no such thing"):
            await all_of(workers, {"fail": "no such thing"})
        with pytest.raises(RunFailed, match="KeyError"):
            await all_of(workers, {"oops": True})
        return await all_of(workers, {"count": 1})

    assert asyncio.run(ask()) == [0]


def test_leaving_stops_the_work_and_the_next_question_is_not_kept_waiting(workers):
    async def ask():
        async with aclosing(workers.ask({"for_ever": True})) as said:
            first = await anext(said)
        return first, await all_of(workers, {"count": 2}), len(workers.pids)

    assert asyncio.run(ask()) == ("begun", [0, 1], 1)


def test_a_worker_that_is_killed_is_a_sentence_and_is_replaced(workers):
    async def ask():
        async with aclosing(workers.ask({"for_ever": True})) as said:
            await anext(said)
            os.kill(workers.pids[0], signal.SIGKILL)
            with pytest.raises(RunFailed, match="ended in the middle"):
                await anext(said)
        return await all_of(workers, {"count": 1})

    assert asyncio.run(ask()) == [0]


def test_a_question_has_so_much_time_and_no_more(workers):
    async def ask():
        await workers.one({"count": 1})  # it has started
        async with aclosing(workers.ask({"for_ever": True}, most_s=0.05)) as said:
            assert await anext(said) == "begun"
            with pytest.raises(InputError, match=r"longer than the 0\.05 s"):
                await anext(said)
        return await workers.one({"count": 1})

    assert asyncio.run(ask()) == 0


def test_an_import_is_finished_before_the_work_is_dropped(workers):
    async def ask():
        async with aclosing(workers.ask({"import": True})) as said:
            assert await anext(said) == "begun"
        return await workers.one({"imported": True}), len(workers.pids)

    assert asyncio.run(ask()) == (True, 1)
