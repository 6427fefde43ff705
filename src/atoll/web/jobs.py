"""Long work is an `atoll` process of its own, which outlives the server: started here, found again, followed, stopped.

A job is a folder of the workspace, .atoll/jobs/ID, with job.yaml (the command and the process), output.log and, once
it has ended, end.yaml. The keeper (web/keeper.py) is the job's process; it runs the command and writes end.yaml last.
A job whose keeper is gone without that was cut: by kill -9, a power cut, the end of the machine.
"""

import re
import secrets
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from shlex import join

from atoll.documents import Document
from atoll.errors import AtollError, InputError, NotThere
from atoll.outside.files import read_text, write_whole
from atoll.outside.processes import ProcessId, is_alive, read_stat, send_signal, spawn
from atoll.outside.shell import environment

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


LOOK_S = 0.2  # seconds for which what was seen of a running job holds
MOST_LOOKS = 1000


class JobState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # the command ended with an error; its last words are in the output
    STOPPED = "stopped"  # by somebody's Stop
    CUT = "cut"  # its process is gone and nobody wrote down why


class JobNote(Document):
    """job.yaml: what was started."""

    id: str
    title: str
    argv: tuple[str, ...]  # after `atoll`
    target: str | None = None  # the folder that the command writes, within the workspace
    started_at: float  # seconds since 1970
    started_by: str | None = None  # the token's name
    pid: int | None = None
    process_started: int | None = None  # clock ticks since boot
    boot: str | None = None


class JobEnd(Document):
    """end.yaml: how the command ended."""

    exit_code: int
    ended_at: float


class Job(Document):
    """A job as it is right now."""

    note: JobNote
    state: JobState
    end: JobEnd | None = None

    @property
    def command(self) -> str:
        """The command line, to copy."""
        return join(("atoll", *self.note.argv))


class Jobs:
    """The jobs of a workspace."""

    def __init__(self, workspace: Path) -> None:
        self._root, self._workspace = workspace / ".atoll" / "jobs", workspace
        self._looked: dict[str, tuple[float, bool]] = {}  # when, by a clock that only goes forward
        self._ended: dict[str, Job] = {}  # those that wrote down their end: nothing changes about them any more

    def start(
        self,
        argv: Sequence[str],
        *,
        title: str,
        now: float,
        target: str | None = None,
        by: str | None = None,
        secrets_in_environment: dict[str, str] | None = None,
    ) -> Job:
        """Start `atoll ARGV` in the workspace's folder; secrets go by the environment, never by argv."""
        job_id = f"{int(now):x}-{secrets.token_hex(3)}"
        folder = self._root / job_id
        note = JobNote(id=job_id, title=title, argv=tuple(argv), target=target, started_at=now, started_by=by)
        write_whole(folder / "job.yaml", note.to_yaml())
        process = spawn(
            [sys.executable, "-m", "atoll.web.keeper", str(folder), "--", *argv],
            log=folder / "output.log",
            env={**environment(), "PYTHONUNBUFFERED": "1", **(secrets_in_environment or {})},
            cwd=self._workspace,
        )
        stat = read_stat(process.pid)
        note = note.replace(pid=process.pid, process_started=stat.id.started if stat else None, boot=boot_id())
        write_whole(folder / "job.yaml", note.to_yaml())
        _CHILDREN.append(process)
        return self.find(job_id)

    def all(self) -> tuple[Job, ...]:
        """The youngest first; a folder that cannot be read is left out."""
        return tuple(sorted(self._read_all(), key=lambda job: -job.note.started_at))

    def find(self, job_id: str) -> Job:
        """Raises NotThere when there is none."""
        if not _ID.fullmatch(job_id) or not (self._root / job_id / "job.yaml").is_file():
            raise NotThere(f"There is no job {job_id[:40]!r} in this workspace.")
        return self._read(self._root / job_id)

    def has_ended(self, job_id: str, *, now: float) -> bool:
        """As of a moment ago: two hundred live views of one job look at it once."""
        looked_at, ended = self._looked.get(job_id, (-LOOK_S, False))
        if now - looked_at >= LOOK_S:
            ended = self.find(job_id).state is not JobState.RUNNING
            if len(self._looked) > MOST_LOOKS:
                self._looked.clear()
            self._looked[job_id] = (now, ended)
        return ended

    def output_path(self, job_id: str) -> Path:
        return self._root / self.find(job_id).note.id / "output.log"

    def output(self, job_id: str, *, offset: int = 0, most: int = 65536) -> tuple[bytes, int]:
        """What the command has said from a byte on, and the byte to go on from."""
        path = self.output_path(job_id)
        try:
            with path.open("rb") as stream:
                stream.seek(offset)
                data = stream.read(most)
        except OSError:
            return b"", offset
        return data, offset + len(data)

    def stop(self, job_id: str, *, wait_s: float = 0.0) -> Job:
        """SIGINT, as Ctrl-C: what was measured is kept. A job that has ended stays as it is."""
        job = self.find(job_id)
        who = _process_of(job.note)
        if job.state is JobState.RUNNING and who is not None:
            with suppress(InputError):  # a full disk: then it shows as failed, and it is stopped all the same
                write_whole(self._root / job_id / "stop", b"")
            send_signal(who, signal.SIGINT)
            if wait_s:
                _wait(who, wait_s)
        return self.find(job_id)

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended; what it made stays where it is."""
        job = self.find(job_id)
        if job.state is JobState.RUNNING:
            raise InputError("The job is still running; stop it first.")
        folder = self._root / job.note.id
        self._ended.pop(folder.name, None)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

    def _read_all(self) -> Iterator[Job]:
        for folder in self._root.iterdir() if self._root.is_dir() else ():
            try:
                yield self._read(folder)
            except (AtollError, OSError):
                continue

    def _read(self, folder: Path) -> Job:
        known = self._ended.get(folder.name)
        if known is not None:
            return known
        _reap()
        note = JobNote.parse(read_text(folder / "job.yaml"), origin=str(folder / "job.yaml"))
        who = _process_of(note)
        alive = who is not None and is_alive(who)
        end = folder / "end.yaml"
        if end.is_file():
            ended = JobEnd.parse(read_text(end), origin=str(end))
            job = Job(note=note, state=_state_of(ended, stopped=(folder / "stop").exists()), end=ended)
            self._ended[folder.name] = job
            return job
        return Job(note=note, state=JobState.RUNNING if alive or note.pid is None else JobState.CUT)


def _state_of(end: JobEnd, *, stopped: bool) -> JobState:
    if end.exit_code == 0:
        return JobState.DONE
    return JobState.STOPPED if stopped else JobState.FAILED


def boot_id() -> str:
    """Changes with each start of the machine, so that a pid of before is nobody's."""
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def _process_of(note: JobNote) -> ProcessId | None:
    if note.pid is None or note.process_started is None or note.boot != boot_id():
        return None
    return ProcessId(pid=note.pid, started=note.process_started)


def _wait(who: ProcessId, seconds: float) -> None:
    import os

    try:
        descriptor = os.pidfd_open(who.pid)
    except OSError:
        return
    try:
        if is_alive(who):
            select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)


_CHILDREN: list = []  # type: ignore[type-arg]  # keepers that this server started, to be reaped when they end


def _reap() -> None:
    _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]
