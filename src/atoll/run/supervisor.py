"""The small process between atoll and what it starts: `python -m atoll.run.supervisor`, its order on standard input.

It starts every program of the order in a session of its own, keeps the deployment's state file true, and ends them all
(process groups first, then whatever they left behind) when it is told to, or when the atoll that started it is gone,
even by kill -9, unless that one has released it: `atoll up` does so once everything answers. Orphans of a replica
(vLLM's EngineCore and workers) are adopted, so they are seen and ended too. Should the supervisor itself be killed, the
kernel kills what it started, and `atoll down` finds the rest by the deployment's secret and logs.

An update adds and drops replicas while the others run: it writes an order of one step beside the state file and sends
SIGUSR1 (run/process_update.py). The number of orders that were carried out stands in the state.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from atoll.outside.clock import SystemClock
from atoll.outside.files import read_text, write_whole
from atoll.outside.processes import (
    ProcessId,
    adopt_orphans,
    descendants,
    read_stat,
    send_signal,
    signal_group,
    spawn,
)
from atoll.outside.shell import environment

POLL_S = 0.5
ORDER_FILE = ".order.json"  # beside the state file; holds the deployment's secret
RELEASE = b"release"  # on our standard input: live on without the one who started us


class Supervisor:
    """Owns the children and the state file."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._state = order["state"]
        self._path = Path(order["state_file"])
        self._programs: list[dict[str, Any]] = order["programs"]
        self._attached = True
        self._grace_s: float = order["grace_s"]
        self._clock = SystemClock()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._parent = os.getppid()
        self._stop = False
        self._ordered = False

    def run(self) -> None:
        adopt_orphans()
        wake = self._listen_to_signals()
        self._state["supervisor"] = _identity(os.getpid())
        self._state["state"] = "up"
        self._state["orders"] = 0
        try:
            for program in self._programs:
                self._start(program)
            self._write()
            while not self._stop and not self._parent_is_gone(wake):
                self._reap()
                if self._ordered:
                    self._ordered = False
                    self._obey()
        finally:
            self._end_all()

    def _listen_to_signals(self) -> int:
        wake, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGUSR1, self._on_order)
        return wake

    def _on_order(self, *_: object) -> None:
        self._ordered = True

    def _obey(self) -> None:
        """One step of an update: a program more, one less, or what is known of the whole changes."""
        order = json.loads(read_text(self._path.with_name(ORDER_FILE)))
        if order["secret"] != self._state["secret"] or order["number"] != self._state["orders"] + 1:
            return
        if "add" in order:
            self._state["replicas"].append(order["entry"])
            self._start(order["add"])
        if "drop" in order:
            self._state["replicas"] = [entry for entry in self._state["replicas"] if entry["name"] != order["drop"]]
        self._state |= order.get("about", {})
        self._state["orders"] = order["number"]
        self._write()

    def _on_stop(self, *_: object) -> None:
        self._stop = True

    def _parent_is_gone(self, wake: int) -> bool:
        """Wait for a signal, or for the other end of our standard input to close."""
        watched = [wake, 0] if self._attached else [wake]
        ready, _, _ = select.select(watched, [], [], POLL_S)
        if wake in ready:
            os.read(wake, 4096)
        if not self._attached:
            return False
        if 0 in ready:
            self._attached = os.read(0, len(RELEASE)) != RELEASE
            return self._attached
        return os.getppid() != self._parent

    def _start(self, program: dict[str, Any]) -> None:
        child = spawn(
            program["argv"],
            log=Path(program["log"]),
            env=environment(program["env"]),
            cwd=Path(program["cwd"]),
            dies_with_parent=True,
            cpus=frozenset(program["cpus"]) if program["cpus"] else None,
        )
        self._children[child.pid] = child
        self._entry(program["name"]).update(_identity(child.pid))

    def _entry(self, name: str) -> dict[str, Any]:
        entries: list[dict[str, Any]] = [*self._state["replicas"], self._state["router"]]
        return next(entry for entry in entries if entry["name"] == name)

    def _reap(self) -> None:
        """Note which of our programs ended, and collect adopted orphans."""
        changed = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if pid == 0:
                break
            if pid in self._children:
                code = os.waitstatus_to_exitcode(status)
                self._children.pop(pid).returncode = code
                self._note_end(pid, code)
                changed = True
        if changed:
            self._write()

    def _note_end(self, pid: int, code: int) -> None:
        for entry in [*self._state["replicas"], self._state["router"]]:
            if entry.get("pid") == pid:
                entry["exit_code"] = code
                entry["ended_at"] = self._clock.wall()

    def _end_all(self) -> None:
        """Ask the groups to end, wait, then leave nobody."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._signal_groups(signal.SIGTERM)
        self._wait(self._grace_s)
        self._signal_groups(signal.SIGKILL)
        for _ in range(100):
            left = descendants(os.getpid())
            if not left:
                break
            for stat in left:
                send_signal(stat.id, signal.SIGKILL)
            self._wait(0.1)
        self._reap()
        self._state["state"] = "down"
        self._write()

    def _signal_groups(self, number: signal.Signals) -> None:
        for pid in self._groups():
            signal_group(pid, number)

    def _groups(self) -> Iterable[int]:
        """Process groups of our programs; one whose leader ended may still have members."""
        entries = [*self._state["replicas"], self._state["router"]]
        return [entry["pid"] for entry in entries if "pid" in entry]

    def _wait(self, seconds: float) -> None:
        """Until nobody is left, at most so long."""
        ends = self._clock.now() + seconds
        while self._clock.now() < ends:
            self._reap()
            if not descendants(os.getpid()):
                return
            select.select([], [], [], 0.02)

    def _write(self) -> None:
        write_whole(self._path, json.dumps(self._state, indent=2) + "\n", mode=0o600)


def _identity(pid: int) -> dict[str, int]:
    stat = read_stat(pid)
    who = stat.id if stat is not None else ProcessId(pid=pid, started=0)
    return {"pid": who.pid, "started": who.started}


def main() -> None:
    """Read the order, one line of our standard input, and keep it; RELEASE comes later by the same way."""
    line = b""
    while not line.endswith(b"\n"):
        more = os.read(0, 65536)
        if not more:
            sys.exit("the one who started this ended before the order was whole")
        line += more
    Supervisor(json.loads(line)).run()


if __name__ == "__main__":
    main()
