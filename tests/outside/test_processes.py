"""Processes and ports of this machine."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from atoll.errors import MissingProgram
from atoll.outside.ports import free_ports, holder_of, is_free
from atoll.outside.processes import (
    FileId,
    descendants,
    is_alive,
    outputs_of,
    read_stat,
    send_signal,
    spawn,
    variable_of,
)
from stand_ins.patience import PATIENCE_S, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(3600)"]


@pytest.fixture
def child(tmp_path):
    process = spawn(SLEEP, log=tmp_path / "child.log", env=dict(os.environ))
    yield process
    process.kill()
    process.wait()


def test_a_process_is_named_by_pid_and_start(child):
    stat = read_stat(child.pid)
    assert (stat.parent, stat.session) == (os.getpid(), child.pid)
    assert is_alive(stat.id)
    assert not is_alive(replace(stat.id, started=stat.id.started - 1))
    assert read_stat(2**22 + 1) is None


def test_a_signal_reaches_only_the_very_process(child):
    who = read_stat(child.pid).id
    assert not send_signal(replace(who, started=1), signal.SIGKILL)
    assert child.poll() is None
    assert send_signal(who, signal.SIGTERM)
    child.wait(PATIENCE_S)
    assert not is_alive(who)


def test_a_zombie_is_not_alive(child):
    who = read_stat(child.pid).id
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert read_stat(child.pid).state == "Z"
    assert not is_alive(who)


def test_children_and_grandchildren_are_found(tmp_path):
    script = f"import subprocess, sys; subprocess.run({SLEEP!r})"
    process = spawn([sys.executable, "-c", script], log=tmp_path / "log", env=dict(os.environ))
    try:
        wait_until(lambda: descendants(process.pid))
        (grandchild,) = descendants(process.pid)
        assert (grandchild.parent, grandchild.session) == (process.pid, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_what_a_process_was_started_with_and_where_it_writes(tmp_path):
    process = spawn(SLEEP, log=tmp_path / "log", env=dict(os.environ) | {"MARK": "a=b"})
    try:
        assert variable_of(process.pid, "MARK") == "a=b"
        assert variable_of(process.pid, "MAR") is None
        assert outputs_of(process.pid) == {FileId.of((tmp_path / "log").stat())}
    finally:
        process.kill()
        process.wait()
    assert variable_of(process.pid, "MARK") is None
    assert outputs_of(process.pid) == frozenset()


def test_a_program_is_known_from_its_first_moment():
    """Its parent goes on while the kernel still notes where its variables stand."""
    seen = []
    for _ in range(40):
        process = subprocess.Popen(SLEEP, env=dict(os.environ) | {"MARK": "a=b"})
        seen.append(variable_of(process.pid, "MARK"))
        process.kill()
        process.wait()
    assert seen == ["a=b"] * 40


def test_what_a_child_says_goes_to_its_log(tmp_path):
    argv = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"]
    spawn(argv, log=tmp_path / "new" / "log", env=dict(os.environ), cwd=tmp_path).wait(PATIENCE_S)
    assert sorted((tmp_path / "new" / "log").read_text().split()) == ["err", "out"]


def test_cores_can_be_chosen(tmp_path):
    core = min(os.sched_getaffinity(0))
    argv = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
    spawn(argv, log=tmp_path / "log", env=dict(os.environ), cpus=frozenset({core})).wait(PATIENCE_S)
    assert (tmp_path / "log").read_text().strip() == str({core})


def test_a_missing_program_is_said(tmp_path):
    with pytest.raises(MissingProgram, match="no-such-program"):
        spawn(["no-such-program"], log=tmp_path / "log", env=dict(os.environ))


def test_a_child_bound_to_its_parent_dies_with_it(tmp_path):
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom atoll.outside.processes import spawn\n"
        f"child = spawn({SLEEP!r}, log=Path({str(tmp_path / 'log')!r}), env=dict(os.environ), dies_with_parent=True)\n"
        "print(child.pid, flush=True)\nsys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    who = read_stat(int(parent.stdout.readline())).id
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    wait_until(lambda: not is_alive(who))


def test_free_ports_are_free_and_different():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)
    assert not set(free_ports(5, apart_from=ports)) & set(ports)


def test_a_taken_port_has_a_holder():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert not is_free(port)
        assert holder_of(port).endswith(f"(pid {os.getpid()})")
    assert holder_of(port) is None


HIDING = """
import pathlib, sys
from atoll.outside.processes import hide_argument
for secret in ("sk-123", "pw"):
    hide_argument(secret)
print(pathlib.Path("/proc/self/cmdline").read_bytes().split(b"\\0")[3:])
print(sys.argv[1:])
"""


def test_a_secret_is_taken_out_of_what_ps_shows():
    given = ["--api-key", "sk-123", "--api-key=sk-123", "http://me:pw@host/", "--name", "sk-1234"]
    said = subprocess.run([sys.executable, "-c", HIDING, *given], capture_output=True, text=True, check=True).stdout
    shown, kept = said.splitlines()
    assert shown == str(
        [b"--api-key", b"xxxxxx", b"--api-key=xxxxxx", b"http://me:xx@host/", b"--name", b"sk-1234", b""]
    )
    assert kept == str(given)
