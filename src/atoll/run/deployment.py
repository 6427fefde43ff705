"""Deployment: a bundle that runs. The state file beside the bundle says which processes are ours."""

from pathlib import Path
from shlex import quote
from typing import Literal

from pydantic import Field

from atoll.documents import Document
from atoll.errors import BadRun
from atoll.outside.files import read_text
from atoll.outside.processes import ProcessId, is_alive

STATE_FILE = "deployment.json"
LOG_FOLDER = "logs"


class Program(Document):
    """One process of a deployment, as the supervisor knows it."""

    name: str  # replica-0, router
    number: int | None = None  # which replica; None for the router
    gpus: tuple[int, ...] = ()
    host: str
    port: int
    health_path: str
    log: str  # relative to the bundle's folder
    pid: int | None = None
    started: int | None = None  # clock ticks since boot: tells it from a later owner of the pid
    exit_code: int | None = None  # negative: the signal that ended it
    ended_at: float | None = None  # seconds since 1970

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def process(self) -> ProcessId | None:
        if self.pid is None or self.started is None:
            return None
        return ProcessId(pid=self.pid, started=self.started)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.exit_code is None and is_alive(self.process)


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
    supervisor: SupervisorProcess | None = None
    replicas: tuple[Program, ...]
    router: Program

    @property
    def programs(self) -> tuple[Program, ...]:
        return (*self.replicas, self.router)

    @property
    def supervised(self) -> bool:
        """Whether the supervisor lives."""
        return self.supervisor is not None and is_alive(self.supervisor.process)


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
