"""One look at a deployment: its services, and how the door has shared out the last minute's requests."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atoll.engines import find_engine
from atoll.errors import BadRun
from atoll.inventory.meter import GpuReading, read_gpus
from atoll.outside.clock import Clock, SystemClock
from atoll.outside.shell import RealShell, Shell
from atoll.run.deployment import DeploymentStatus, ServiceState
from atoll.run.door_log import count_answers
from atoll.workflows.deploy import Deployable, deployment_status, find_deployable

DOOR_WINDOW_S = 60.0


@dataclass(frozen=True, kw_only=True)
class DeploymentLook:
    """How a deployment is. Without a status nothing was ever started from its folder."""

    status: DeploymentStatus | None = None
    answers: dict[int, int] = field(default_factory=dict)  # replica -> requests through the door, last DOOR_WINDOW_S
    power_w: Mapping[int, float] = field(default_factory=dict)  # GPU -> watts; none where there is no GPU to ask

    @property
    def state(self) -> str:
        """up, degraded or down."""
        return "down" if self.status is None else self.status.state

    @property
    def replicas(self) -> tuple[ServiceState, ...]:
        return tuple(one for one in self._services if one.number is not None)

    @property
    def others(self) -> tuple[ServiceState, ...]:
        """The door, and the app's services where the bundle has them."""
        return tuple(one for one in self._services if one.number is None)

    @property
    def running(self) -> float | None:
        """Requests in the engines; None where no engine says."""
        return _sum([one.requests_running for one in self.replicas])

    @property
    def waiting(self) -> float | None:
        return _sum([one.requests_waiting for one in self.replicas])

    @property
    def output_tokens_per_s(self) -> float | None:
        return _sum([one.output_tokens_per_s for one in self.replicas])

    @property
    def kv_usage(self) -> float | None:
        """Of the fullest replica, 0 to 1."""
        return max((one.kv_usage for one in self.replicas if one.kv_usage is not None), default=None)

    def door_share(self, number: int) -> float | None:
        """A replica's part, 0 to 1, of what the door had answered; None while nothing was."""
        total = sum(self.answers.values())
        return self.answers.get(number, 0) / total if total else None

    def watts(self, gpus: Sequence[int]) -> float | None:
        """What these GPUs draw; None unless each of them says."""
        known = [self.power_w[gpu] for gpu in gpus if gpu in self.power_w]
        return sum(known) if known and len(known) == len(gpus) else None

    @property
    def _services(self) -> tuple[ServiceState, ...]:
        return () if self.status is None else self.status.services


async def look_at_deployment(
    folder: Path,
    *,
    shell: Shell | None = None,
    clock: Clock | None = None,
    meter: Callable[[], Sequence[GpuReading]] = read_gpus,
) -> DeploymentLook:
    """Ask every service of a bundle's folder once; it takes the second between two looks at the counters.

    Raises:
        InputError: the folder holds no bundle, or is gone.
        MissingProgram, CommandFailed: Docker is not there or does not answer.
    """
    shell, clock = shell or RealShell(), clock or SystemClock()
    target = find_deployable(folder)
    try:
        status = await deployment_status(target, shell=shell)
    except BadRun:
        return DeploymentLook()
    answers = {} if status.state == "down" else await _door_answers(target, shell=shell, clock=clock)
    emulates = find_engine(status.engine).emulates  # its GPUs are not this machine's
    readings = () if status.state == "down" or emulates else await asyncio.to_thread(meter)
    power_w = {reading.index: reading.power_w for reading in readings}
    return DeploymentLook(status=status, answers=answers, power_w=power_w)


async def _door_answers(target: Deployable, *, shell: Shell, clock: Clock) -> dict[int, int]:
    lines = await target.runner.door_lines(target.folder, shell=shell)
    return count_answers(lines, since=clock.wall() - DOOR_WINDOW_S)


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
