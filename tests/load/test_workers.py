"""Several processes, one load, one clock."""

import asyncio

import numpy as np
import pytest
import uvloop

from atoll.errors import InputError
from atoll.load.orders import Share
from atoll.load.run import LoadControl, measure_load
from atoll.load.target import RequestOptions
from atoll.load.workers import Processes
from atoll.traffic.workload import Workload
from atoll.workflows.sending import workers_of
from stand_ins.patience import beside, until


def run(url, workload, *, workers, during=None, **settings):
    control = LoadControl()

    async def both():
        work = measure_load(
            url, workload, options=RequestOptions(model="m"), workers=workers, control=control, **settings
        )
        return await beside(work, during(control) if during is not None else None)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(both())


def test_users_are_split_and_every_request_is_there_once(naughty, tmp_path):
    naughty.gap_s = 0.01
    seen = []
    load = Workload(users=5, requests=43, prompt=4, output=5, start="at_once")
    result = run(naughty.url, load, workers=Processes(2), folder=tmp_path, on_progress=seen.append)
    table = result.table
    assert sorted(table.number.tolist()) == list(range(43))
    assert set(table.outcome) == {"ok"}
    assert set(table.user.tolist()) == set(range(5))
    assert (np.diff(table.sent_s) >= 0).all()
    assert table.sent_s[0] >= 0
    assert result.client.processes == 2
    assert result.client.users_asked == 5
    assert {path.name.split("-")[0] for path in (tmp_path / "records").iterdir()} == {
        "clock.json",
        "reserve",
        "worker0",
        "worker1",
    }
    for user in range(5):
        rows = np.flatnonzero(table.user == user)
        assert (table.sent_s[rows][1:] >= table.done_s[rows][:-1]).all()


def test_an_open_loop_is_split_by_request(naughty):
    table = run(naughty.url, Workload(rate=30, requests=21, prompt=4, output=2), workers=Processes(2)).table
    assert sorted(table.number.tolist()) == list(range(21))
    assert (np.diff(table.due_s[np.argsort(table.number)]) > 0).all()


def test_stopping_reaches_the_workers(naughty):
    naughty.gap_s = 0.05

    seen = []

    async def stop(control):
        await until(lambda: seen and seen[-1].in_flight == 4)
        control.stop("interrupted")

    load = Workload(users=4, duration_s=3600, prompt=4, output=20, start="at_once")
    result = run(naughty.url, load, workers=Processes(2), during=stop, on_progress=seen.append)
    assert result.stopped == "interrupted"
    assert result.table.outcome.count("cancelled") == 4


@pytest.mark.parametrize("total", [0, 1, 7, 8])
def test_shares_add_up(total):
    shares = [Share(index=number, count=3) for number in range(3)]
    assert sum(share.part_of(total) for share in shares) == total
    numbers = sorted(share.number(sent) for share in shares for sent in range(4))
    assert numbers == list(range(12))


def test_workers_are_a_number_or_a_ray_address():
    assert workers_of("1") is None
    assert isinstance(workers_of("3"), Processes)
    with pytest.raises(InputError, match="--workers"):
        workers_of("many")
