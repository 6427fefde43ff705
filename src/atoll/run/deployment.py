"""Deployment: a bundle that runs. The state file beside the bundle says what was started, and the kernel who lives.

A file can be copied or forged, so nobody is ended because a file names him. A process is a deployment's when it was
started with the deployment's secret in its environment, or writes to one of its logs; and a deployment is that of the
folder it was started in, not of a copy of it.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Literal

from pydantic import Field

from atoll.documents import Document
from atoll.errors import BadRun
from atoll.outside.files import alone, read_text, write_whole
from atoll.outside.processes import (
    FileId,
    ProcessId,
    ProcessStat,
    all_stats,
    is_alive,
    outputs_of,
    read_stat,
    variable_of,
)
from atoll.render.tls import CERTIFICATE

STATE_FILE = "deployment.json"
LOG_FOLDER = "logs"
MARK_FILE = ".update.json"
LOCK_FILE = ".up.lock"
MARK_VARIABLE = "ATOLL_DEPLOYMENT"  # SECRET/PROGRAM, in the environment of every process of a deployment
SUPERVISOR = "supervisor"


class Program(Document):
    """One process of a deployment, as the supervisor knows it."""

    name: str = Field(pattern=r"^(replica-\d+(-\d+)?|router)$")
    number: int | None = None  # which replica; None for the router
    gpus: tuple[int, ...] = ()
    made_of: str | None = None  # names its command line and settings: what is made of the same is the same engine
    host: str
    port: int
    health_path: str
    tls: bool = False
    log: str = Field(pattern=rf"^{LOG_FOLDER}/[a-z0-9-]+\.log$")  # relative to the bundle's folder
    pid: int | None = None
    started: int | None = None  # clock ticks since boot: tells it from a later owner of the pid
    exit_code: int | None = None  # negative: the signal that ended it
    ended_at: float | None = None  # seconds since 1970

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def certificate(self, folder: Path) -> Path | None:
        """What it shows who asks, in the folder of its bundle; None where it speaks plain HTTP."""
        return folder / CERTIFICATE if self.tls else None

    @property
    def process(self) -> ProcessId | None:
        if self.pid is None or self.started is None:
            return None
        return ProcessId(pid=self.pid, started=self.started)


class SupervisorProcess(Document):
    """The process that holds the others."""

    pid: int
    started: int

    @property
    def process(self) -> ProcessId:
        return ProcessId(pid=self.pid, started=self.started)


class DeploymentState(Document):
    """The state file of plain processes, always written whole."""

    version: Literal[1] = 1
    name: str
    kind: Literal["process"] = "process"
    engine: str
    model: str  # the name that requests ask for
    url: str  # the router's
    state: Literal["starting", "up", "down"] = "starting"
    attached: bool = False  # ends with the atoll that started it
    bundle_digest: str | None = None
    created_at: float  # seconds since 1970
    folder: FileId
    secret: str = Field(pattern=r"^[0-9a-f]{32}$")
    supervisor: SupervisorProcess | None = None
    orders: int | None = None  # that the supervisor carried out; None: it takes none
    replicas: tuple[Program, ...]
    router: Program

    @property
    def programs(self) -> tuple[Program, ...]:
        return (*self.replicas, self.router)

    @property
    def supervised(self) -> bool:
        """Whether the supervisor lives."""
        return (
            self.supervisor is not None
            and is_alive(self.supervisor.process)
            and variable_of(self.supervisor.pid, MARK_VARIABLE) == f"{self.secret}/{SUPERVISOR}"
        )

    def started_in(self, folder: Path) -> bool:
        """Whether this is the folder that it was started in, and no copy."""
        return FileId.of(folder.stat()) == self.folder

    def living(self, folder: Path) -> dict[str, tuple[ProcessStat, ...]]:
        """Who lives, by program; `supervisor` too. Of a copied folder nobody does.

        Every process that can be seen is asked, so what outlived its supervisor and its parent is found as well.
        """
        if not self.started_in(folder):
            return {}
        logs = {identity: name for name in self._names if (identity := _own_file(folder / LOG_FOLDER, f"{name}.log"))}
        found: dict[str, list[ProcessStat]] = {}
        for process in all_stats():
            name = self._program_of(process.id.pid, logs) if process.alive and process.id.pid != os.getpid() else None
            if name is not None:
                found.setdefault(name, []).append(process)
        return {name: tuple(processes) for name, processes in found.items()}

    @property
    def _names(self) -> tuple[str, ...]:
        return (*(program.name for program in self.programs), SUPERVISOR)

    def _program_of(self, pid: int, logs: dict[FileId, str]) -> str | None:
        secret, _, name = (variable_of(pid, MARK_VARIABLE) or "").partition("/")
        if secret == self.secret:
            return name
        return next((logs[output] for output in outputs_of(pid) if output in logs), None)


def _own_file(folder: Path, name: str) -> FileId | None:
    """A file of this folder that is nobody else's: no link to a log, a terminal or a device of somebody else."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return None
        found = (folder / name).lstat()
    except OSError:
        return None
    return FileId.of(found) if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 else None


@contextmanager
def starting(folder: Path) -> Iterator[None]:
    """One at a time brings up what is in a folder; the lock goes with this process, however it ends.

    Raises:
        InputError: another atoll is at it, or the folder cannot be written.
    """
    otherwise = (
        f"{folder} is being brought up by another atoll; `atoll status {quote(str(folder))}` tells when it is up."
    )
    with alone(folder / LOCK_FILE, otherwise=otherwise, mode=0o600):
        yield


class UpdateMark(Document):
    """The process that puts something new in place; the file is gone when it is through."""

    pid: int
    started: int


@contextmanager
def marked(folder: Path) -> Iterator[None]:
    """The folder says that an update is under way; what is left when the update is killed tells of that."""
    stat = read_stat(os.getpid())
    assert stat is not None
    write_whole(folder / MARK_FILE, UpdateMark(pid=stat.id.pid, started=stat.id.started).to_json(), mode=0o600)
    yield
    (folder / MARK_FILE).unlink(missing_ok=True)


def update_note(folder: Path) -> str | None:
    """A sentence where an update is under way or was cut short."""
    if not (folder / MARK_FILE).exists():
        return None
    mark = UpdateMark.parse(read_text(folder / MARK_FILE), origin=str(folder / MARK_FILE))
    if is_alive(ProcessId(pid=mark.pid, started=mark.started)):
        return "an update is under way"
    return f"an update was cut short; `atoll update {quote(str(folder))}` goes on with it"


def read_state(folder: Path) -> DeploymentState:
    """The state of the deployment in a bundle's folder.

    Raises:
        BadRun: nothing was ever started there.
    """
    path = folder / STATE_FILE
    if not path.exists():
        raise BadRun(
            f"{folder} holds no deployment ({STATE_FILE} is missing); start one with `atoll up {quote(str(folder))}`."
        )
    return DeploymentState.parse(read_text(path), origin=str(path))


class ReplicaAddress(Document):
    """Where one replica answers. In Compose only nginx is published, so `url` may be None."""

    number: int
    gpus: tuple[int, ...] = ()
    url: str | None = None


class Deployment(Document):
    """What runs, and where: given back by `up`."""

    name: str
    kind: str  # which runner holds it: process, compose
    folder: Path
    engine: str
    model: str  # the name that requests ask for
    url: str  # the router's: requests go to f"{url}/v1/..."
    replicas: tuple[ReplicaAddress, ...]
    bundle_digest: str | None = None


class ServiceState(Document):
    """One replica, or the router, at the moment of asking. What could not be learned is None."""

    name: str
    number: int | None = None
    gpus: tuple[int, ...] = ()
    state: str  # healthy, starting, ended, gone; or the container's own word
    healthy: bool
    why: str | None = None  # when it is not healthy
    url: str | None = None
    pid: int | None = None
    container: str | None = None
    requests_running: float | None = None
    requests_waiting: float | None = None
    kv_usage: float | None = None  # 0 to 1
    prompt_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None
    preemptions: float | None = None
    prefix_hit_share: float | None = None  # 0 to 1, of the prompt tokens asked for since the engine's start


class DeploymentStatus(Document):
    """All services of a deployment at the moment of asking."""

    name: str
    kind: str  # which runner holds it: process, compose
    folder: Path
    engine: str
    model: str
    url: str
    state: str  # up, degraded, down
    services: tuple[ServiceState, ...] = Field(min_length=1)
    note: str | None = None  # of an update that is under way, or was cut short
