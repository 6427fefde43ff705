"""ManualClock: time that stands still until it is told. ClockLoop: an event loop that goes by it."""

import asyncio
import heapq
import selectors
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


class ClockLoop(asyncio.SelectorEventLoop):
    """Its timers go off when the ManualClock has been moved to them; its sockets are real."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(_ShortSelector())
        self._by = clock

    def time(self) -> float:
        return self._by.now()


class _ShortSelector(selectors.DefaultSelector):
    """Never waits long for a socket: the time until the next timer is none that passes by itself."""

    def select(self, timeout=None):
        return super().select(0.001 if timeout is None else min(timeout, 0.001))


class TurnClock:
    """Counts the turns of the event loop, a millionth of a second each: what is done in one turn has one time."""

    def __init__(self) -> None:
        self._turns = 0

    def now(self) -> float:
        return self._turns / 1e6

    def wall(self) -> float:
        return 1_700_000_000.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def count(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(0)
            self._turns += 1
