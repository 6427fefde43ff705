"""Users that come and go while a run is under way."""

import asyncio

import pytest
import uvloop

from atoll.errors import InputError
from atoll.load.control import ControlFile
from atoll.load.pace import parse_steps
from atoll.load.run import LoadControl, measure_load
from atoll.load.target import RequestOptions
from atoll.traffic.workload import Workload
from atoll.workflows.sending import refuse_no_users
from stand_ins.patience import beside, until


@pytest.mark.parametrize(
    ("text", "users"),
    [("30", 30), ("users: 5\n", 5), ('{"users": 7}', 7), ("users=0", 0), ("many", None), ("", None), ("3.5", None)],
)
def test_what_the_file_may_say(tmp_path, text, users):
    path = tmp_path / "control"
    control = ControlFile(path)
    assert control.wanted_users() is None  # it is not there yet
    path.write_text(text)
    assert control.wanted_users() == users
    assert control.wanted_users() is None  # nothing new


def test_users_come_and_go_as_the_file_says(naughty, tmp_path, monkeypatch):
    monkeypatch.setattr("atoll.load.sender._PROGRESS_S", 0.0)
    path, control, seen = tmp_path / "control", LoadControl(), []

    async def change():
        for users in (5, 0, 2):
            path.write_text(f"users: {users}")
            await until(lambda wanted=users: seen and seen[-1].users == wanted and seen[-1].in_flight == wanted)
        control.stop("interrupted")

    async def story():
        load = Workload(users=1, duration_s=3600, start="at_once", prompt=8, output=4)
        options = RequestOptions(model="m")
        naughty.gap_s = 0.005
        work = measure_load(
            naughty.url, load, options=options, control=control, control_file=path, on_progress=seen.append
        )
        return await beside(asyncio.ensure_future(work), change())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(story())
    assert set(result.table.user.tolist()) == set(range(5))
    assert "changed by hand: 5 from" in result.notes[0]
    assert result.client.users_asked is None
    sent = len(result.table)
    assert sorted(result.table.number.tolist()) == list(range(sent))


def test_a_load_that_ends_ends_with_users_who_have_no_room(naughty, tmp_path, monkeypatch):
    monkeypatch.setattr("atoll.load.sender._PROGRESS_S", 0.0)
    path = tmp_path / "control"
    path.write_text("1")

    async def story():
        load = Workload(users=4, requests=40, start="at_once", prompt=8, output=4)
        return await measure_load(naughty.url, load, options=RequestOptions(model="m"), control_file=path)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert len(runner.run(story()).table) == 40


def test_where_there_are_no_users_it_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not go with --rate"):
        refuse_no_users(tmp_path, Workload(rate=1.0, duration_s=1), ())
    with pytest.raises(InputError, match="Give one of them"):
        refuse_no_users(tmp_path, Workload(users=1, duration_s=1), parse_steps("1@1s"))
