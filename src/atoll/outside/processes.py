"""Processes of this machine: start one in its own session, see who lives, end those that are ours.

Linux only, like the boxes. A process is named by its pid and the moment it started, because a pid alone is given to
somebody else after a while.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from atoll.errors import MissingProgram

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessId:
    """A process for all time: its pid and when it started, in clock ticks since boot (/proc/PID/stat, field 22)."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class FileId:
    """A file or folder itself, whatever it is called: a copy of it is another one."""

    device: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Self:
        return cls(stat.st_dev, stat.st_ino)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessStat:
    """The part of /proc/PID/stat that tells families apart."""

    id: ProcessId
    name: str
    state: str  # R, S, D, Z ...
    parent: int
    session: int

    @property
    def alive(self) -> bool:
        return self.state not in {"Z", "X"}


def read_stat(pid: int) -> ProcessStat | None:
    """What the kernel says of a pid, None when nobody has it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    head, _, tail = text.rpartition(")")
    fields = tail.split()  # from field 3, the state
    return ProcessStat(
        id=ProcessId(pid=pid, started=int(fields[19])),
        name=head.partition("(")[2],
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
    )


def is_alive(who: ProcessId) -> bool:
    """Whether this very process still runs; a zombie and a later owner of the pid do not count."""
    stat = read_stat(who.pid)
    return stat is not None and stat.id == who and stat.alive


def all_stats() -> list[ProcessStat]:
    """Every process that can be seen."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [stat for pid in pids if (stat := read_stat(pid)) is not None]


def descendants(pid: int) -> list[ProcessStat]:
    """Children, grandchildren and so on of a process, living ones only."""
    children: dict[int, list[ProcessStat]] = {}
    for stat in all_stats():
        children.setdefault(stat.parent, []).append(stat)
    found: list[ProcessStat] = []
    ahead = [pid]
    while ahead:
        for child in children.get(ahead.pop(), []):
            ahead.append(child.id.pid)
            if child.alive:
                found.append(child)
    return found


def variable_of(pid: int, name: str) -> str | None:
    """A variable of the environment that a process was started with; None when it has none, or is not ours to read.

    A program that shows a title in `ps` (nginx does) writes it over its environment, and then has none.
    """
    try:
        while _is_being_loaded(pid):
            os.sched_yield()
        text = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    start = name.encode() + b"="
    entries = text.split(b"\0")
    return next((entry[len(start) :].decode(errors="replace") for entry in entries if entry.startswith(start)), None)


def _is_being_loaded(pid: int) -> bool:
    """Whether a program is still being put in its place: it has an address space, and neither words nor environment.

    The kernel gives up the old memory in begin_new_exec, which also lets the parent go on, and notes where the new
    words and variables stand some microseconds later (fs/binfmt_elf.c, create_elf_tables).
    """
    sizes = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return sizes[0] != "0" and not Path(f"/proc/{pid}/cmdline").read_bytes()


def outputs_of(pid: int) -> frozenset[FileId]:
    """The files that a process's standard output and error are; empty when it is not ours to look at."""
    found = set()
    for descriptor in (1, 2):
        try:
            found.add(FileId.of(Path(f"/proc/{pid}/fd/{descriptor}").stat()))
        except OSError:
            continue
    return frozenset(found)


def send_signal(who: ProcessId, number: signal.Signals) -> bool:
    """Signal this very process; False when it is gone."""
    if not is_alive(who):
        return False
    try:
        os.kill(who.pid, number)  # noqa: TID251 - the door itself
    except ProcessLookupError:
        return False
    return True


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group that a child of ours leads; nothing happens when it is empty."""
    try:
        os.killpg(pid, number)  # noqa: TID251 - the door itself
    except (ProcessLookupError, PermissionError):
        return


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
    dies_with_parent: bool = False,
    cpus: frozenset[int] | None = None,
    stdin: int = subprocess.DEVNULL,
    kept_open: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start a program as the leader of a new session, its words appended to `log`.

    Args:
        argv: program and arguments.
        log: file for standard output and error.
        env: all of its variables.
        cwd: where it runs.
        dies_with_parent: the kernel kills it when the starting thread ends, even by SIGKILL. This and `cpus` are for
            a program without threads, which the supervisor is: they run code between fork and exec.
        cpus: the cores that it may use; without, all that we may.
        stdin: a file descriptor or subprocess.PIPE; without, an empty input.
        kept_open: further file descriptors that it inherits.

    Raises:
        MissingProgram: there is no such program.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    libc = _libc()

    def settle_in() -> None:
        if dies_with_parent:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpus:
            os.sched_setaffinity(0, cpus)

    with log.open("ab") as stream:
        try:
            return subprocess.Popen(
                list(argv),
                stdin=stdin,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                pass_fds=tuple(kept_open),
                preexec_fn=settle_in if dies_with_parent or cpus else None,  # noqa: PLW1509 - see above
            )
        except FileNotFoundError:
            raise MissingProgram(f"`{argv[0]}` is not installed here or not on PATH.") from None


def hide_argument(secret: str) -> None:
    """Overwrite a secret in this process's command line, which `ps` shows to everybody.

    It is the whole of an argument, what follows its `=`, or the password of a URL. Where the kernel does not let us,
    it stays: the command line of a process can be read at /proc/PID/cmdline, and lies where field 48 of
    /proc/PID/stat says (proc_pid_stat(5)).
    """
    wanted = os.fsencode(secret)
    try:
        start, end = (int(field) for field in Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    except (OSError, ValueError):
        return
    place = start
    for argument in ctypes.string_at(start, end - start).split(b"\0") if wanted and end > start > 0 else []:
        if argument == wanted or argument.endswith(b"=" + wanted):
            ctypes.memset(place + len(argument) - len(wanted), ord("x"), len(wanted))
        elif (at := argument.find(b":" + wanted + b"@")) >= 0:
            ctypes.memset(place + at + 1, ord("x"), len(wanted))
        place += len(argument) + 1


def adopt_orphans() -> None:
    """From now on, grandchildren whose parent dies become our children instead of init's."""
    _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
