"""The ways in which a bundle is started, and the shape that each of them has.

Another one is a module of that shape and a line here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.outside.clock import Clock
from atoll.outside.shell import Shell
from atoll.run import compose, process
from atoll.run.deployment import Deployment, DeploymentStatus

Say = Callable[[str], None]


class Runner(Protocol):
    """A module such as run/process.py."""

    name: str  # also the form of the bundles that it starts
    bundle_file: str  # a folder with this file in it holds such a bundle

    def settle(self, layout: Layout, *, folder: Path) -> Layout:
        """The layout with what only this machine can say, such as free ports, before it is rendered into the folder.

        Raises InputError when a deployment that must not be overwritten runs from the folder.
        """
        ...

    async def up(self, folder: Path, *, shell: Shell, clock: Clock, timeout_s: float, say: Say) -> Deployment:
        """Start the bundle in the folder and wait until all of it answers.

        Raises InputError, BadRun, MissingProgram or StartFailed; then nothing of it is left running.
        """
        ...

    async def down(self, folder: Path, *, shell: Shell, clock: Clock, say: Say) -> tuple[str, ...]:
        """End what was started from the folder; gives the names of what ran. A second time there is nothing to do."""
        ...

    async def status(self, folder: Path, *, shell: Shell, clock: Clock) -> DeploymentStatus:
        """How every service is right now."""
        ...

    async def logs(
        self, folder: Path, *, shell: Shell, clock: Clock, say: Say, replica: int | None, follow: bool, lines: int
    ) -> None:
        """Say the last lines of the logs, of one replica or of all services, and with `follow` what comes after."""
        ...

    async def door_lines(self, folder: Path, *, shell: Shell, naming: str | None = None) -> tuple[str, ...]:
        """The last lines of the door's log (run/door_log.py reads them), or all that hold a word; none without one."""
        ...

    def door_url(self, folder: Path) -> str:
        """Where the bundle's router answers, or will when it is up: http://host:port."""
        ...

    def metrics_urls(self, folder: Path) -> tuple[str, ...] | None:
        """The engines' /metrics, one a replica; None where they cannot be reached from outside the bundle."""
        ...

    def is_down(self, folder: Path, *, shell: Shell) -> bool:
        """Whether nothing of the bundle runs; False where that cannot be told."""
        ...

    def dry_run(self, folder: Path, files: Mapping[str, str]) -> list[str]:
        """The commands that `up` would run for these files, as one would type them."""
        ...


_KNOWN: tuple[Runner, ...] = (process, compose)
RUNNERS = {runner.name: runner for runner in _KNOWN}


def find_runner(name: str) -> Runner:
    """The runner of that name; raises InputError with those there are."""
    try:
        return RUNNERS[name]
    except KeyError:
        raise InputError(f"nothing starts a bundle as {name!r}; there are {', '.join(RUNNERS)}.") from None


def runner_of(folder: Path, name: str | None = None) -> Runner:
    """Who starts the bundle in a folder: the one of that name, else the first that knows a file there.

    Raises InputError where there is no such bundle.
    """
    found = {runner.name: runner for runner in RUNNERS.values() if (folder / runner.bundle_file).exists()}
    if name is not None and name not in found:
        find_runner(name)
        raise InputError(f"{folder} holds no bundle for {name}; write one with `atoll render LAYOUT --to {name}`.")
    if not found:
        raise InputError(f"{folder} holds no bundle; write one with `atoll render LAYOUT -o {folder}`.")
    return found[name] if name is not None else next(iter(found.values()))
