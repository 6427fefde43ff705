"""Plain processes: they come up, they are told apart, and nobody is left behind, whatever happens to whom."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from atoll.errors import BadRun, InputError, MissingProgram, StartFailed
from atoll.model.read import read_model
from atoll.outside.clock import SystemClock
from atoll.outside.files import read_text
from atoll.outside.processes import all_stats, is_alive, read_stat
from atoll.outside.shell import RealShell
from atoll.run.deployment import SupervisorProcess, read_state
from atoll.run.process import (
    PROCESS_FILE,
    deployed,
    down,
    dry_run,
    logs,
    parse_cpus,
    prepare,
    read_plan,
    status,
    up,
)
from stand_ins.layouts import two_pairs
from stand_ins.patience import PATIENCE_S, started, until, wait_until
from stand_ins.shell import FakeShell

CLOCK = SystemClock()
SHELL = RealShell()
ALL = {"supervisor", "replica-0", "replica-1", "router"}
BODY = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 5}


def running_in(folder: Path) -> list[str]:
    """Every living process whose working folder this is, by name: what a deployment must not leave behind."""
    found = []
    for stat in all_stats():
        try:
            here = Path(f"/proc/{stat.id.pid}/cwd").readlink() == folder.resolve()
        except OSError:
            continue
        if here and stat.alive:
            found.append(stat.name)
    return found


async def bring_up(folder: Path, **settings):
    return await up(folder, shell=SHELL, clock=CLOCK, timeout_s=PATIENCE_S, **settings)


async def take_down(folder: Path):
    return await down(folder, shell=SHELL, clock=CLOCK)


def test_up_status_logs_and_down_twice(bundle):
    async def story():
        said = []
        deployment = await bring_up(bundle, say=said.append)
        assert sorted(line.split()[0] for line in said) == ["replica-0", "replica-1", "router"]
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            served = Counter()
            for _ in range(4):
                answer = await client.post(f"{deployment.url}/v1/chat/completions", json=BODY)
                assert answer.json()["model"] == deployment.model
                served[answer.headers["X-Atoll-Replica"]] += 1
        assert served == {"0": 2, "1": 2}
        seen = await status(bundle, shell=SHELL, clock=CLOCK)
        assert seen.state == "up"
        assert [service.gpus for service in seen.services] == [(0, 1), (2, 3), ()]
        assert all(service.healthy for service in seen.services)
        assert seen.services[0].requests_running == 0
        assert seen.services[0].kv_usage == 0
        lines = []
        await logs(bundle, shell=SHELL, clock=CLOCK, say=lines.append, replica=1)
        assert "replica 1 of two-pairs" in lines[0]
        assert len(running_in(bundle)) >= 4
        assert set(await take_down(bundle)) == {"replica-0", "replica-1", "router"}
        assert running_in(bundle) == []
        assert await take_down(bundle) == ()
        assert (await status(bundle, shell=SHELL, clock=CLOCK)).state == "down"

    asyncio.run(story())
    state = read_state(bundle)
    assert state.state == "down"
    assert {program.exit_code for program in state.programs} == {0}


def test_a_deployment_that_is_up_is_not_started_again(bundle):
    async def story():
        await bring_up(bundle, attached=True)
        try:
            with pytest.raises(InputError, match="up already"):
                await bring_up(bundle)
        finally:
            await take_down(bundle)

    asyncio.run(story())


def test_one_replica_killed_in_the_middle_of_load(bundle):
    """What was on it fails, the rest goes on, and every request is accounted for."""

    outcomes, phase = [], ["before"]

    def answered(replica, when):
        return outcomes.count((when, 200, replica))

    async def user(client, url):
        while phase[0] != "over":
            began = phase[0]
            try:
                answer = await client.post(f"{url}/v1/chat/completions", json=BODY | {"max_tokens": 20})
                outcomes.append((began, answer.status_code, answer.headers.get("X-Atoll-Replica")))
            except httpx.HTTPError as error:
                outcomes.append((began, type(error).__name__, None))

    async def story():
        deployment = await bring_up(bundle, attached=True)
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
                users = [asyncio.create_task(user(client, deployment.url)) for _ in range(8)]
                await until(lambda: answered("0", "before") and answered("1", "before"))
                victim = read_state(bundle).replicas[0]
                os.kill(victim.pid, signal.SIGKILL)
                await until(lambda: not is_alive(victim.process))
                phase[0] = "after"
                await until(lambda: answered("1", "after") > 10)
                phase[0] = "over"
                await asyncio.gather(*users)
            await until(lambda: read_state(bundle).replicas[0].exit_code is not None)
            return await status(bundle, shell=SHELL, clock=CLOCK)
        finally:
            await take_down(bundle)

    seen = asyncio.run(story())
    failed = [code for _, code, _ in outcomes if code != 200]
    assert answered("0", "after") == 0
    assert len(failed) <= 8  # at most what was under way on it
    assert (seen.state, seen.services[0].state, seen.services[0].why) == ("degraded", "ended", "signal 9")
    assert seen.services[1].healthy
    assert running_in(bundle) == []


def test_an_error_inside_the_block_leaves_nobody(tmp_path, layout):
    async def story():
        async with deployed(layout, read_model(layout.model), folder=tmp_path, shell=SHELL, clock=CLOCK):
            assert running_in(tmp_path)
            raise RuntimeError("the study went wrong")

    with pytest.raises(RuntimeError, match="the study"):
        asyncio.run(story())
    assert running_in(tmp_path) == []


PARENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from stand_ins.layouts import two_pairs
from atoll.model.read import read_model
from atoll.outside.clock import SystemClock
from atoll.outside.shell import RealShell
from atoll.run.process import deployed

async def main():
    layout = two_pairs()
    async with deployed(layout, read_model(layout.model), folder=Path(sys.argv[1]), shell=RealShell(),
                        clock=SystemClock()) as deployment:
        print("up", deployment.url, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@contextmanager
def parent_process(folder: Path):
    """Another Python that holds a deployment in `folder`."""
    here = str(Path(__file__).parents[1])
    argv = [sys.executable, "-c", PARENT, str(folder), here]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout.readline().startswith("up")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_kill_minus_nine_of_the_parent_leaves_nobody(tmp_path):
    with parent_process(tmp_path) as parent:
        state = read_state(tmp_path)
        assert set(state.living(tmp_path)) == ALL
        parent.kill()
        wait_until(lambda: not state.living(tmp_path))
        wait_until(lambda: running_in(tmp_path) == [])
    assert read_state(tmp_path).state == "down"


def test_ctrl_c_of_the_parent_leaves_nobody(tmp_path):
    with parent_process(tmp_path) as parent:
        parent.send_signal(signal.SIGINT)
        parent.wait(PATIENCE_S)
        assert running_in(tmp_path) == []


def test_kill_minus_nine_of_the_supervisor_and_the_parent(tmp_path):
    """The kernel kills what the supervisor started. nginx's workers live on, and are found."""
    with parent_process(tmp_path) as parent:
        state = read_state(tmp_path)
        os.kill(state.supervisor.pid, signal.SIGKILL)
        parent.kill()
        wait_until(lambda: set(state.living(tmp_path)) == {"router"})
    seen = asyncio.run(status(tmp_path, shell=SHELL, clock=CLOCK))
    assert seen.state == "degraded"
    assert "left 2 processes behind; `atoll down` ends them" in seen.services[-1].why
    with pytest.raises(InputError, match="was not taken down whole; `atoll down"):
        asyncio.run(bring_up(tmp_path))
    assert asyncio.run(take_down(tmp_path)) == ("router",)
    assert running_in(tmp_path) == []


def grandchild_plan(folder: Path) -> None:
    """Replica 1 becomes a program that leaves a grandchild in a session of its own, as an engine's workers may be."""
    plan = read_plan(folder)
    script = folder / "odd.py"
    script.write_text(
        "import subprocess, sys, http.server\n"
        "subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " time.sleep(3600)'], start_new_session=True)\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        f"http.server.HTTPServer(('127.0.0.1', {plan.replicas[1].port}), H).serve_forever()\n"
    )
    odd = plan.replicas[1].replace(argv=("python", "odd.py"))
    (folder / PROCESS_FILE).write_text(plan.replace(replicas=(plan.replicas[0], odd)).to_yaml())


def test_grandchildren_that_ignore_sigterm_in_a_session_of_their_own_are_ended(bundle, monkeypatch):
    monkeypatch.setattr("atoll.run.process.GRACE_S", 0.5)
    grandchild_plan(bundle)

    async def story():
        await bring_up(bundle)
        assert len(running_in(bundle)) >= 5
        await take_down(bundle)

    asyncio.run(story())
    assert running_in(bundle) == []


def test_a_taken_port_is_named_with_its_holder(bundle):
    plan = read_plan(bundle)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", plan.replicas[1].port))
        holder.listen()
        with pytest.raises(StartFailed, match=rf"Port {plan.replicas[1].port} .*replica 1.*pid {os.getpid()}"):
            asyncio.run(bring_up(bundle))
    assert running_in(bundle) == []


def test_a_replica_that_dies_at_start_is_named_with_its_reason(tmp_path):
    """max_model_len does not fit; the sentence of the emulated engine's log comes through, and nobody is left."""
    layout = two_pairs()
    layout = layout.replace(flags=layout.flags.replace(max_model_len=32768, gpu_memory_utilization=0.4))
    prepare(layout, read_model(layout.model), folder=tmp_path, free_router_port=True)
    with pytest.raises(StartFailed, match=r"replica-\d \(GPUs \d, \d\) ended with exit code 2: .*max_model_len"):
        asyncio.run(bring_up(tmp_path))
    assert running_in(tmp_path) == []
    assert read_state(tmp_path).state == "down"


def test_what_does_not_answer_in_time_is_said(bundle):
    plan = read_plan(bundle)
    silent = plan.replicas[1].replace(argv=("python", "-c", "import time; time.sleep(3600)"))
    (bundle / PROCESS_FILE).write_text(plan.replace(replicas=(plan.replicas[0], silent)).to_yaml())
    said = []

    class Patience:
        """It ends when the two others have answered."""

        def now(self):
            return 100.0 if len(said) == 2 else 0.0

        wall, sleep = CLOCK.wall, CLOCK.sleep

    with pytest.raises(StartFailed, match=r"replica-1 .*did not become healthy in time"):
        asyncio.run(up(bundle, shell=SHELL, clock=Patience(), timeout_s=3, say=said.append))
    assert [line.split()[0] for line in sorted(said)] == ["replica-0", "router"]
    assert running_in(bundle) == []


def test_a_missing_program_is_said_before_anything_starts(bundle):
    plan = read_plan(bundle)
    real = plan.replicas[0].replace(argv=("vllm", "serve", "x"))
    (bundle / PROCESS_FILE).write_text(plan.replace(replicas=(real, plan.replicas[1])).to_yaml())
    with pytest.raises(MissingProgram, match="`vllm` is not on PATH"):
        asyncio.run(up(bundle, shell=FakeShell(), clock=CLOCK))
    assert running_in(bundle) == []


def test_without_a_system_nginx_the_packaged_one_is_taken(bundle):
    async def story():
        await up(bundle, shell=FakeShell(), clock=CLOCK, attached=True, timeout_s=60)
        await take_down(bundle)

    asyncio.run(story())


def test_a_process_that_is_not_ours_is_never_ended(bundle):
    """The state file names a pid that somebody else has by now: the start time differs, so it is left alone."""
    asyncio.run(bring_up(bundle))
    asyncio.run(take_down(bundle))
    state = read_state(bundle)
    with started([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True) as stranger:
        forged = state.replicas[0].replace(pid=stranger.pid, exit_code=None)
        (bundle / "deployment.json").write_text(
            state.replace(state="up", replicas=(forged, state.replicas[1])).to_json()
        )
        assert asyncio.run(take_down(bundle)) == ()
        assert stranger.poll() is None
        stranger.kill()


def test_a_forged_state_ends_nobody(bundle):
    """It names a stranger with his right start time, this folder and a secret."""
    asyncio.run(bring_up(bundle))
    asyncio.run(take_down(bundle))
    state = read_state(bundle)
    with started([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as stranger:
        who = {"pid": stranger.pid, "started": read_stat(stranger.pid).id.started}
        forged = state.replicas[0].replace(**who, exit_code=None)
        made = state.replace(state="up", replicas=(forged, state.replicas[1]), supervisor=SupervisorProcess(**who))
        (bundle / "deployment.json").write_text(made.to_json())
        assert asyncio.run(take_down(bundle)) == ()
        assert stranger.poll() is None
        stranger.kill()


def test_down_on_a_copy_leaves_the_original_alone(bundle, tmp_path):
    async def story():
        await bring_up(bundle, attached=True)
        try:
            shutil.copytree(bundle, tmp_path / "copy")
            said = []
            assert await down(tmp_path / "copy", shell=SHELL, clock=CLOCK, say=said.append) == ()
            assert "is a copy" in said[0]
            assert (await status(tmp_path / "copy", shell=SHELL, clock=CLOCK)).state == "down"
            assert (await status(bundle, shell=SHELL, clock=CLOCK)).state == "up"
        finally:
            await take_down(bundle)

    asyncio.run(story())
    assert running_in(bundle) == []


def test_no_order_and_no_environment_is_left_on_the_disk(bundle, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "kept-to-yourself")

    async def story():
        await bring_up(bundle, attached=True)
        await take_down(bundle)

    asyncio.run(story())
    assert not [path for path in bundle.rglob("*") if path.is_file() and b"kept-to-yourself" in path.read_bytes()]


def test_dry_run_names_the_commands_and_starts_nothing(bundle):
    commands = dry_run(bundle, {PROCESS_FILE: read_text(bundle / PROCESS_FILE)})
    assert commands[0].startswith("cd ")
    assert "atoll emulate --layout layout.yaml --replica 0" in commands[1]
    assert commands[-1].startswith("nginx -p .")
    assert running_in(bundle) == []


def test_a_folder_without_a_deployment_is_refused(tmp_path):
    with pytest.raises(BadRun, match="holds no deployment"):
        asyncio.run(take_down(tmp_path))
    with pytest.raises(InputError, match=PROCESS_FILE):
        asyncio.run(bring_up(tmp_path))


def test_cores_outside_of_our_own_are_left_out():
    ours = os.sched_getaffinity(0)
    assert parse_cpus("0-8191") == sorted(ours)
    assert parse_cpus("8190,8191") == []


def test_a_state_names_processes_for_all_time(bundle):
    async def story():
        await bring_up(bundle, attached=True)
        state = read_state(bundle)
        await take_down(bundle)
        return state

    state = asyncio.run(story())
    assert state.replicas[0].process is not None
    assert not is_alive(state.replicas[0].process)


def test_nginx_killed_is_seen_and_nobody_is_left_behind(bundle):
    """Its workers outlive it for a moment or for good; `down` ends them, and the ports are free for another start."""

    async def story():
        await bring_up(bundle)
        try:
            router = read_state(bundle).router
            os.kill(router.pid, signal.SIGKILL)
            await until(lambda: read_state(bundle).router.exit_code is not None)
            seen = await status(bundle, shell=SHELL, clock=CLOCK)
            assert (seen.state, seen.services[-1].state) == ("degraded", "ended")
        finally:
            await take_down(bundle)
        assert running_in(bundle) == []
        await bring_up(bundle)
        await take_down(bundle)

    asyncio.run(story())
    assert running_in(bundle) == []
