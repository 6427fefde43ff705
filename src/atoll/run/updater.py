"""Who puts something new in the place of what runs: one module for each way in which a bundle is started."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.outside.clock import Clock
from atoll.outside.shell import Shell
from atoll.run import compose, compose_update, process, process_update
from atoll.run.roll import Say
from atoll.run.runner import Runner


class Updater(Protocol):
    """A module such as run/process_update.py."""

    def settle_beside(self, layout: Layout, folder: Path) -> Layout:
        """The layout with what only this machine can say, for replicas that come while others run.

        Raises InputError where nothing runs.
        """
        ...

    def kept_image(self, layout: Layout, folder: Path) -> str | None:
        """The engine's image that the bundle in the folder has, where it will do for the layout too."""
        ...

    async def update(
        self,
        folder: Path,
        files: Mapping[str, str],
        *,
        shell: Shell,
        clock: Clock,
        say: Say,
        drain_s: float,
        timeout_s: float,
        again: frozenset[int],
    ) -> None:
        """Put the bundle of these files in the place of what runs from the folder.

        Raises InputError, before anything has changed, where nobody would serve meanwhile; StartFailed when a new
        replica did not come up, and what ran before serves again.
        """
        ...


_UPDATERS: Mapping[str, Updater] = {process.name: process_update, compose.name: compose_update}


def updater_of(runner: Runner) -> Updater:
    """Raises InputError where there is none."""
    try:
        return _UPDATERS[runner.name]
    except KeyError:
        raise InputError(f"a bundle for {runner.name} cannot be updated while it runs; take it down and up.") from None
