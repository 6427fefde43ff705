"""Now and sleep. Tests hand in a clock that stands still until it is told."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds of a clock that only goes forward; its zero means nothing."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, for file names and reports, never for a difference."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's monotonic clock."""

    now = staticmethod(time.monotonic)  # noqa: TID251 - the door itself; a load asks it at every chunk

    def wall(self) -> float:
        return time.time()  # noqa: TID251 - the door itself

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
