"""ManualClock: time that stands still until it is told."""

import asyncio
import heapq
from itertools import count


class ManualClock:
    """`advance(s)` moves time and wakes who slept until then. With `flows`, a sleep itself moves time, at once.

    `oversleep_s` is added to every sleep that flows, as event loops do.
    """

    def __init__(self, *, start: float = 1000.0, wall: float = 1_700_000_000.0, flows: bool = False) -> None:
        self._now = start
        self._offset = wall - start
        self._flows = flows
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self.oversleep_s = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._offset

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._flows:
            self.advance(max(0.0, seconds) + (self.oversleep_s if seconds > 0 else 0.0))
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move time on; sleepers whose time has come go on when the event loop next runs."""
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
