"""Connections that wait for their next request, and new ones."""

import asyncio
from collections.abc import Callable, Sequence

from atoll.load.client import Connection
from atoll.load.connect import Dialer

_CONNECTS_AT_ONCE = 16
_ENOUGH_TO_LEARN = 3  # connections found closed, and every other one: they are not used a second time from then on


class Pool:
    """A closed loop's users have connections of their own; an open loop's requests share all."""

    def __init__(
        self,
        dialer: Dialer,
        make: Callable[[], Connection],
        *,
        now: Callable[[], float],
        idle_s: float,
        shared: bool,
    ) -> None:
        """Nothing is opened yet.

        Args:
            dialer: opens connections.
            make: gives one that is still to be opened.
            now: the clock.
            idle_s: how long one that waits is used again; the server may close it at any time after.
            shared: whoever comes takes the one that waited the shortest.
        """
        self._dialer = dialer
        self._make = make
        self._now = now
        self._idle_s = idle_s
        self._shared = shared
        self._idle: dict[int, list[Connection]] = {}  # by user; shared: all under -1
        self._used_again = 0
        self._found_closed = 0

    async def connect_all(self, users: Sequence[int]) -> None:
        """A connection ready for each of them, many at a time."""
        gate = asyncio.Semaphore(128)

        async def connect(user: int) -> None:
            async with gate:
                await self.connect_idle(user)

        await asyncio.gather(*(connect(user) for user in users))

    async def connect_ahead(self, users: Sequence[int], still_waits: Callable[[int], bool]) -> None:
        """While others send: the next ones, a few at a time, as long as they are ahead of their start."""
        for at in range(0, len(users), _CONNECTS_AT_ONCE):
            waiting = [user for user in users[at : at + _CONNECTS_AT_ONCE] if still_waits(user)]
            await asyncio.gather(*(self.connect_idle(user) for user in waiting))

    async def connect_idle(self, user: int) -> None:
        """Have a connection ready for the user's next request."""
        connection = self._make()
        try:
            await self._dialer.connect(connection)
        except OSError:
            return  # the user's request meets the same and is recorded
        self.put_back(connection, user)
        connection.idle_since = self._now()

    def take(self, user: int) -> Connection:
        """An open connection that the server has not yet tired of, else a new one, still to be opened."""
        idle = self._idle.get(-1 if self._shared else user)
        while idle:
            connection = idle.pop()
            if connection.is_open and self._now() - connection.idle_since < self._idle_s and not self._is_in_vain:
                self._used_again += connection.answered
                return connection
            connection.close()
        return self._make()

    def make(self) -> Connection:
        """A new one, still to be opened."""
        return self._make()

    def put_back(self, connection: Connection, user: int) -> None:
        """It may be used again, if it is still open."""
        if connection.is_open:
            self._idle.setdefault(-1 if self._shared else user, []).append(connection)

    def note_closed(self) -> None:
        """A connection that was used again turned out to be closed."""
        self._found_closed += 1

    @property
    def _is_in_vain(self) -> bool:
        """Whether the server closes after each answer without saying so, as llama.cpp's does."""
        return self._found_closed >= _ENOUGH_TO_LEARN and 2 * self._found_closed > self._used_again

    def hang_up(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
