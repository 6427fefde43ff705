"""The users of a closed loop: who has started, who thinks or rests, who has room, and who sends next."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from atoll.load.client import NAN
from atoll.load.control import Room
from atoll.load.orders import Share
from atoll.load.pace import LoadStep, next_turn
from atoll.traffic.demand import Demand
from atoll.traffic.request import Request
from atoll.traffic.workload import Workload

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0  # of a user whose request failed, so that a dead server is not hammered
_FIRSTS_AT_ONCE = 32  # about 3 ms


class Users:
    """Those of one share. Nobody sends by themselves: `send` puts a request on the wire."""

    def __init__(
        self,
        load: Workload,
        demand: Demand,
        *,
        share: Share,
        steps: Sequence[LoadStep],
        elapsed: Callable[[], float],
        next_number: Callable[[], int],
        send: Callable[[Request, float], None],
        check_end: Callable[[], None],
        is_stopped: Callable[[], bool],
    ) -> None:
        self._load = load
        self._demand = demand
        self._share = share
        self._steps = steps
        self._elapsed = elapsed
        self._next_number = next_number
        self._send = send
        self._check_end = check_end
        self._is_stopped = is_stopped
        self._pauses: dict[int, float] = {}  # users whose last request failed, and how long they waited
        self.paused_s = 0.0
        self.room = Room(known=load.users or 0)
        self.timers: dict[int, asyncio.TimerHandle] = {}  # users who think, or have not started
        self.active = 0  # users who will send again

    def begin(self) -> None:
        """Who starts at once sends; the others have a timer."""
        loop = asyncio.get_running_loop()
        starts = self.starts()
        self.active = len(starts)
        for user, start in starts:
            if start > 0:
                self.timers[user] = loop.call_later(start, self.send_next, user)

    def send_firsts(self) -> None:
        self._send_firsts(iter([user for user, start in self.starts() if start <= 0]))

    def end(self) -> None:
        """Nobody sends again."""
        for timer in self.timers.values():
            timer.cancel()
            self.active -= 1
        self.timers.clear()
        self.active -= len(self.room.parked)
        self.room.parked.clear()

    def _send_firsts(self, users: Iterator[int]) -> None:
        """Send for all who start at once, a few at a time: meanwhile the loop reads what already comes back."""
        batch = list(islice(users, _FIRSTS_AT_ONCE))
        for user in batch:
            self.send_next(user)
        if batch:
            asyncio.get_running_loop().call_soon(self._send_firsts, users)

    def starts(self) -> list[tuple[int, float]]:
        """Users of this share and when they start."""
        starts = enumerate(self._demand.starts())
        return list(islice(starts, self._share.index, None, self._share.count))

    def send_next(self, user: int) -> None:
        self.timers.pop(user, None)
        now = self._elapsed()
        if self._is_stopped() or not self._demand.goes_on(now, self._next_number()):
            self._retire()
            self._let_parked_go()
            return
        if self.room.users is not None and user >= self.room.users:
            self.room.parked.add(user)
            return
        if self._steps and not self._has_room(user, now):
            return
        request = self._demand.next_request(user, self._next_number())
        self._send(request, NAN)

    def set_users(self, users: int) -> None:
        """So many users from now on: whoever is too many ends the answer under way, whoever is new sends at once."""
        self.room.users = users
        self.room.changes.append((self._elapsed(), users))
        mine = range(self._share.index, users, self._share.count)
        for user in [user for user in mine if user in self.room.parked]:
            self.room.parked.discard(user)
            self.send_next(user)
        new = [user for user in mine if user >= self.room.known]
        self.room.known = max(self.room.known, users)
        self.active += len(new)
        for user in new:
            self.send_next(user)

    def _let_parked_go(self) -> None:
        """Nobody sends again, so that nobody has to wait for room."""
        self.active -= len(self.room.parked)
        self.room.parked.clear()
        self._check_end()

    def _has_room(self, user: int, now: float) -> bool:
        """Whether this step has room for the user, who else comes back at the step that has, or never."""
        turn = next_turn(self._steps, user, now)
        if turn is None:
            self._retire()
        elif turn > now:
            self.timers[user] = asyncio.get_running_loop().call_later(turn - now, self.send_next, user)
        return turn == now

    def _retire(self) -> None:
        self.active -= 1
        self._check_end()

    def after_answer(self, user: int, *, failed: bool) -> None:
        """The user goes on: at once, after thinking, or after a pause when the last request failed."""
        pause = self._load.think_s
        if failed:
            self._pauses[user] = min(_LONGEST_PAUSE_S, 2 * self._pauses.get(user, _FIRST_PAUSE_S / 2))
            pause = max(pause, self._pauses[user])
            self.paused_s += pause
        elif self._pauses:
            self._pauses.pop(user, None)
        if pause > 0:
            self.timers[user] = asyncio.get_running_loop().call_later(pause, self.send_next, user)
        else:
            self.send_next(user)
