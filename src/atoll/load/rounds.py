"""Rounds over the requests under way: each is seen within a second, logged as far as it is, and held to its time."""

from collections.abc import Iterator
from itertools import islice

from atoll.load.client import Connection
from atoll.load.progress import Window
from atoll.load.records import RecordLog
from atoll.load.target import Timeouts

_TICKS_A_CYCLE = 16  # 0.8 s and some lateness: a kill costs less than a second


class Rounds:
    """A part of the connections at each tick, so that no tick is long."""

    def __init__(self, busy: dict[int, Connection], *, window: Window, log: RecordLog, timeouts: Timeouts) -> None:
        self._busy = busy
        self._window = window
        self._log = log
        self._timeouts = timeouts
        self._visits: Iterator[Connection] = iter(())
        self._visits_left = self._visits_a_tick = 0

    def go_on(self, now: float) -> None:
        """Visit the next part; after the last one a new round begins."""
        if self._visits_left == 0:
            self._log.end_of_cycle(self._busy.values())
            snapshot = list(self._busy.values())
            self._visits, self._visits_left = iter(snapshot), _TICKS_A_CYCLE
            self._visits_a_tick = -(-len(snapshot) // _TICKS_A_CYCLE)
        self._visits_left -= 1
        seen = [connection for connection in islice(self._visits, self._visits_a_tick) if connection.busy]
        for connection in seen:
            self._visit(connection, now)
        if seen:
            self._window.note_gaps(seen[0], now)
        self._log.flush(connection for connection in seen if connection.busy)

    def _visit(self, connection: Connection, now: float) -> None:
        times = connection.times
        if times and not connection.told_first:
            connection.told_first = True
            self._window.note_first(connection)
        self._check_timeouts(connection, now)

    def _check_timeouts(self, connection: Connection, now: float) -> None:
        if connection.rests:
            return
        limits, times = self._timeouts, connection.times
        if limits.request_s is not None and now - connection.sent > limits.request_s:
            connection.fail("timeout", f"no end after {limits.request_s:g} s")
            return
        last = times[-1] if times else connection.sent
        if limits.token_s is None or now - last <= limits.token_s:
            return
        if connection.answer.now > last:
            connection.fail("slow_drip", f"bytes came, but no text for {limits.token_s:g} s")
        else:
            connection.fail("stall", f"nothing came for {limits.token_s:g} s")
