"""The state file, and how a deployment looks from outside."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll.errors import BadDocument, BadRun, InputError
from atoll.outside.clock import SystemClock
from atoll.outside.processes import FileId, read_stat, spawn
from atoll.run.deployment import MARK_VARIABLE, STATE_FILE, DeploymentState, Program, read_state, starting
from atoll.run.look import look_at_processes
from stand_ins.openai_server import Manners, OpenAiServer

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def program(name: str, port: int, number: int | None = None, **changes: object) -> Program:
    stat = read_stat(os.getpid())
    fields = {"pid": stat.id.pid, "started": stat.id.started} | changes
    return Program(
        name=name, number=number, host="127.0.0.1", port=port, health_path="/health", log=f"logs/{name}.log", **fields
    )


SECRET = "0" * 32


@contextmanager
def deployed_here(folder: Path) -> Iterator[subprocess.Popen]:
    """A process that was started as replica-0 of the deployment in a folder."""
    env = dict(os.environ) | {MARK_VARIABLE: f"{SECRET}/replica-0"}
    process = spawn(SLEEP, log=folder / "elsewhere.log", env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def process_fields(process: subprocess.Popen) -> dict[str, int]:
    return {"pid": process.pid, "started": read_stat(process.pid).id.started}


def state(folder: Path, replica: Program, router: Program) -> DeploymentState:
    return DeploymentState(
        name="d",
        engine="emulated",
        model="m",
        url=router.url,
        state="up",
        created_at=1.0,
        folder=FileId.of(folder.stat()),
        secret=SECRET,
        replicas=(replica,),
        router=router,
    )


def look(folder, made: DeploymentState):
    (folder / STATE_FILE).write_text(made.to_json())
    return asyncio.run(look_at_processes(folder, clock=SystemClock(), between_s=0.01))


def test_a_state_is_read_back_as_it_was_written(tmp_path):
    made = state(tmp_path, program("replica-0", 1, 0), program("router", 2))
    (tmp_path / STATE_FILE).write_text(made.to_json())
    assert read_state(tmp_path) == made


def test_a_process_is_ours_by_the_secret_it_was_started_with(tmp_path):
    made = state(tmp_path, program("replica-0", 1, 0), program("router", 2))  # names the pid of these tests
    assert made.living(tmp_path) == {}
    with deployed_here(tmp_path) as process:
        ((name, found),) = made.living(tmp_path).items()
        assert (name, [stat.id.pid for stat in found]) == ("replica-0", [process.pid])
        assert made.replace(secret="1" * 32).living(tmp_path) == {}


def test_a_copy_of_the_folder_has_no_processes(tmp_path):
    made = state(tmp_path, program("replica-0", 1, 0), program("router", 2))
    (tmp_path / "copy").mkdir()
    with deployed_here(tmp_path):
        assert made.started_in(tmp_path)
        assert not made.started_in(tmp_path / "copy")
        assert made.living(tmp_path / "copy") == {}
        assert look(tmp_path / "copy", made).services[0].why == "this folder is a copy; it was started in another"


def test_a_process_that_writes_over_its_environment_is_ours_by_its_log(tmp_path):
    made = state(tmp_path, program("replica-0", 1, 0), program("router", 2))
    process = spawn(SLEEP, log=tmp_path / "logs" / "router.log", env={})
    try:
        assert list(made.living(tmp_path)) == ["router"]
        (tmp_path / "mine.log").hardlink_to(tmp_path / "logs" / "router.log")
        assert made.living(tmp_path) == {}  # two names: it may be somebody else's file
        (tmp_path / "logs" / "router.log").unlink()
        (tmp_path / "logs" / "router.log").symlink_to(tmp_path / "mine.log")
        assert made.living(tmp_path) == {}
    finally:
        process.kill()
        process.wait()


def test_a_forged_log_or_name_is_refused(tmp_path):
    made = state(tmp_path, program("replica-0", 1, 0), program("router", 2)).to_json()
    for change in (made.replace("logs/router.log", "../.bashrc"), made.replace('"router",', '"../x",')):
        assert change != made
        (tmp_path / STATE_FILE).write_text(change)
        with pytest.raises(BadDocument):
            read_state(tmp_path)


def test_one_at_a_time_brings_up_a_folder(tmp_path):
    with starting(tmp_path / "b"):
        with pytest.raises(InputError, match="is being brought up by another atoll"), starting(tmp_path / "b"):
            pass
        with starting(tmp_path / "c"):
            pass
    with starting(tmp_path / "b"):
        pass


def test_no_state_and_a_broken_state_are_said(tmp_path):
    with pytest.raises(BadRun, match="holds no deployment"):
        read_state(tmp_path)
    (tmp_path / STATE_FILE).write_text("{}")
    with pytest.raises(BadDocument, match=r"deployment\.json: name is missing"):
        read_state(tmp_path)


def test_a_replica_that_answers_is_healthy_and_one_that_does_not_says_why(tmp_path):
    good, bad = OpenAiServer(), OpenAiServer(Manners(unhealthy=True))
    router = spawn(SLEEP, log=tmp_path / "logs" / "router.log", env={})
    try:
        with good, bad, deployed_here(tmp_path) as replica:
            made = state(
                tmp_path,
                program("replica-0", bad.port, 0, **process_fields(replica)),
                program("router", good.port, **process_fields(router)),
            )
            seen = look(tmp_path, made)
    finally:
        router.kill()
        router.wait()
    assert seen.state == "degraded"
    assert [service.healthy for service in seen.services] == [False, True]
    assert "503" in seen.services[0].why


def test_everything_ended_is_down(tmp_path):
    ended = program("replica-0", 1, 0, exit_code=-9)
    seen = look(tmp_path, state(tmp_path, ended, program("router", 2, exit_code=0)))
    assert seen.state == "down"
    assert [service.why for service in seen.services] == ["signal 9", "exit code 0"]
