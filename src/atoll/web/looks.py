"""The last look at each deployment. A page never waits for one: it shows what is known and asks anew for the next time.

However many people look on, a deployment is asked once at a time, in a thread of its own, so that an engine that hangs
holds up nobody. The GPUs of this machine are read the same way.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from atoll.errors import AtollError
from atoll.inventory.meter import GpuReading, read_gpus
from atoll.outside.clock import Clock
from atoll.workflows.look import DeploymentLook, look_at_deployment

FRESH_S = 1.0  # a look this young is not repeated
IDLE_FRESH_S = 10.0  # where a list is shown, and what is not up was looked at
LATE_S = 10.0  # a look that takes longer is told of
MOST_AT_ONCE = 16
FORGET_S = 600.0  # a deployment that nobody looks at is forgotten

LookAt = Callable[[Path], Coroutine[Any, Any, DeploymentLook]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What is known of a deployment. Nothing at all until the first look has ended."""

    look: DeploymentLook | None = None
    problem: str | None = None  # why there is no look, in the sentence that `atoll status` would say
    begun_at: float | None = None  # seconds since 1970, when that look began
    late_s: float | None = None  # so long has the look under way been without an answer


@dataclass(kw_only=True)
class _Entry:
    asked: float
    seen: Seen = Seen()
    began: float | None = None  # while a look is under way
    ended: float | None = None


class Looks:
    """What is known of the deployments of a workspace."""

    def __init__(self, clock: Clock, look: LookAt = look_at_deployment) -> None:
        self._clock, self._look = clock, look
        self._known: dict[Path, _Entry] = {}
        self._lock = Lock()

    def latest(self, folder: Path, *, in_list: bool = False) -> Seen:
        """What is known of it, at once. A look is begun when the last one is no longer fresh.

        Args:
            folder: the bundle's.
            in_list: of a list, where what is down is looked at less often; there may be a hundred such bundles.
        """
        now = self._clock.now()
        with self._lock:
            self._forget(now)
            entry = self._known.setdefault(folder, _Entry(asked=now))
            entry.asked = now
            idle = entry.seen.look is None or entry.seen.look.state == "down"
            stale = entry.ended is None or now - entry.ended >= (IDLE_FRESH_S if in_list and idle else FRESH_S)
            if entry.began is None and stale and self._under_way() < MOST_AT_ONCE:
                entry.began = now
                Thread(target=self._ask, args=(folder, entry), daemon=True).start()
            late_s = now - entry.began if entry.began is not None and now - entry.began > LATE_S else None
            return replace(entry.seen, late_s=late_s)

    def _ask(self, folder: Path, entry: _Entry) -> None:
        begun_at = self._clock.wall()
        try:
            seen = Seen(look=asyncio.run(self._look(folder)), begun_at=begun_at)
        except AtollError as error:
            seen = Seen(problem=str(error), begun_at=begun_at)
        except Exception as error:  # noqa: BLE001 - a thread's error would be seen by nobody
            seen = Seen(problem=f"The look at {folder.name} failed: {type(error).__name__}: {error}", begun_at=begun_at)
        with self._lock:
            entry.seen, entry.began, entry.ended = seen, None, self._clock.now()

    def _under_way(self) -> int:
        return sum(entry.began is not None for entry in self._known.values())

    def _forget(self, now: float) -> None:
        old = [f for f, entry in self._known.items() if entry.began is None and now - entry.asked > FORGET_S]
        for folder in old:
            del self._known[folder]


class Meter:
    """What this machine's GPUs do, read once a second however many look on."""

    def __init__(self, clock: Clock, read: Callable[[], tuple[GpuReading, ...]] = read_gpus) -> None:
        self._clock, self._read, self._lock = clock, read, Lock()
        self._known: tuple[GpuReading, ...] = ()
        self._until = 0.0

    def latest(self) -> tuple[GpuReading, ...]:
        """A reading of each GPU; none on a machine without."""
        with self._lock:
            if self._clock.now() >= self._until:
                self._known, self._until = self._read(), self._clock.now() + FRESH_S
            return self._known
