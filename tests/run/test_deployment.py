"""The state file, and how a deployment looks from outside."""

import asyncio
import os

import pytest

from atoll.errors import BadDocument, BadRun
from atoll.outside.clock import SystemClock
from atoll.outside.processes import read_stat
from atoll.run.deployment import STATE_FILE, DeploymentState, Program, read_state
from atoll.run.look import look_at_processes, read_counters
from stand_ins.openai_server import Manners, OpenAiServer


def program(name: str, port: int, number: int | None = None, **changes: object) -> Program:
    stat = read_stat(os.getpid())
    fields = {"pid": stat.id.pid, "started": stat.id.started} | changes
    return Program(
        name=name, number=number, host="127.0.0.1", port=port, health_path="/health", log=f"logs/{name}.log", **fields
    )


def state(replica: Program, router: Program) -> DeploymentState:
    return DeploymentState(
        name="d",
        engine="emulated",
        model="m",
        url=router.url,
        state="up",
        created_at=1.0,
        replicas=(replica,),
        router=router,
    )


def look(folder, made: DeploymentState):
    (folder / STATE_FILE).write_text(made.to_json())
    return asyncio.run(look_at_processes(folder, clock=SystemClock(), between_s=0.01))


def test_a_state_is_read_back_as_it_was_written(tmp_path):
    made = state(program("replica-0", 1, 0), program("router", 2))
    (tmp_path / STATE_FILE).write_text(made.to_json())
    assert read_state(tmp_path) == made
    assert made.replicas[0].alive


def test_a_later_owner_of_the_pid_is_not_ours():
    assert not program("replica-0", 1, 0, started=1).alive
    assert not program("replica-0", 1, 0, exit_code=0).alive


def test_no_state_and_a_broken_state_are_said(tmp_path):
    with pytest.raises(BadRun, match="holds no deployment"):
        read_state(tmp_path)
    (tmp_path / STATE_FILE).write_text("{}")
    with pytest.raises(BadDocument, match=r"deployment\.json: name is missing"):
        read_state(tmp_path)


def test_a_replica_that_answers_is_healthy_and_one_that_does_not_says_why(tmp_path):
    with OpenAiServer() as good, OpenAiServer(Manners(unhealthy=True)) as bad:
        seen = look(tmp_path, state(program("replica-0", bad.port, 0), program("router", good.port)))
    assert seen.state == "degraded"
    assert [service.healthy for service in seen.services] == [False, True]
    assert "503" in seen.services[0].why


def test_everything_ended_is_down(tmp_path):
    ended = program("replica-0", 1, 0, exit_code=-9)
    seen = look(tmp_path, state(ended, program("router", 2, exit_code=0)))
    assert seen.state == "down"
    assert [service.why for service in seen.services] == ["signal 9", "exit code 0"]


def test_counters_are_summed_over_labels_and_histograms_left_out():
    page = (
        '# TYPE a_total counter\na_total{x="1"} 2\na_total{x="2"} 3\n'
        '# TYPE g gauge\ng 0.5\n# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_count 1\nh_sum 2\n'
    )
    assert read_counters(page) == {"a_total": 5, "g": 0.5}
    assert read_counters("<html>no metrics here</html>") == {}
