"""Carry out a part of a load in one event loop: who is due sends, what comes back is kept.

Everything happens in callbacks; when an answer ends, its record is kept and its user's next request is on the wire
within the same call.
"""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any
from urllib.parse import urljoin

from atoll.load.answer import Answer
from atoll.load.client import NAN, Connection, classify
from atoll.load.connect import Dialer, allow_open_files
from atoll.load.control import ControlFile, Room
from atoll.load.message import MessageWriter, request_target
from atoll.load.mix import ModelMix
from atoll.load.orders import Orders, SenderResult
from atoll.load.pace import moved_due, next_turn
from atoll.load.pool import Pool
from atoll.load.progress import Progress, Window
from atoll.load.prompts import Made
from atoll.load.reader import Reader
from atoll.load.records import RecordLog
from atoll.load.retry import wait_of
from atoll.load.rows import OUTCOMES
from atoll.load.selfwatch import SelfWatch
from atoll.load.shapes import Shapes
from atoll.load.target import Endpoint
from atoll.load.usage import ODD_USAGE, count_tokens
from atoll.outside.clock import Clock
from atoll.traffic.demand import Demand
from atoll.traffic.record import Outcome
from atoll.traffic.request import Request

_OK, _FAILED, _CANCELLED = (OUTCOMES.index(item) for item in (Outcome.OK, Outcome.FAILED, Outcome.CANCELLED))
_TICK_S = 0.05
_TICKS_A_CYCLE = 16  # 0.8 s and some lateness: a kill costs less than a second
_PROGRESS_S = 0.5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0  # of a user whose request failed, so that a dead server is not hammered
_EARLY_S = 2.0  # a user's connection is made before the run when the user starts within this time
_EARLY_USERS = 256  # so many are connected before the start, which takes 25 ms, unless more send at once
_FIRSTS_AT_ONCE = 32  # about 3 ms
_CLOSED = {"connection_closed", "connection_reset"}
_REFUSALS = {429, 503}
_HOLDS = {
    Endpoint.CHAT: "choices",
    Endpoint.COMPLETIONS: "choices",
    Endpoint.RESPONSES: "output",
    Endpoint.EMBEDDINGS: "data",
    Endpoint.RERANK: "results",
    Endpoint.SCORE: "data",
}  # the list that a whole answer is known by
_REDIRECTS = {307, 308}  # those that keep the POST a POST
_MOST_HOPS = 5


class Sender:
    """Carries out Orders in one event loop."""

    def __init__(self, orders: Orders, *, clock: Clock, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Raises InputError for a proxy, a certificate file or a trace that cannot be used."""
        self._orders = orders
        self._share = orders.share
        self._target = orders.target
        self._asking = orders.options
        self._shapes = Shapes()
        self._reader = Reader(clock.now, self._shapes)
        self._dialer = Dialer(orders.target, orders.options, self._reader)
        self._demand = Demand(orders.workload, orders.trace)
        self._is_closed = self._demand.is_closed
        self._load = orders.workload
        self._steps = orders.steps
        self._prompts = orders.prompts
        self._writer = MessageWriter(orders.target, orders.endpoint, orders.options, orders.model, ids=orders.ids)
        self._mix = ModelMix(orders.options.models, seed=orders.workload.seed)
        self._generates = orders.endpoint.generates
        self._drain_s = orders.drain_s
        self._on_progress = on_progress
        self._now, self._wall = clock.now, clock.wall
        self._watch = SelfWatch(clock.now)
        self._window = Window()
        self._busy: dict[int, Connection] = {}
        self._pool = Pool(
            self._dialer,
            self._new_connection,
            now=clock.now,
            idle_s=orders.options.timeouts.idle_s,
            shared=not self._is_closed,
        )
        self._pauses: dict[int, float] = {}  # users whose last request failed, and how long they waited
        self._paused_s = 0.0
        self._all_bytes = self._most_bytes = 0  # of messages
        self._control = None if orders.control is None else ControlFile(orders.control)
        self._room = Room(known=orders.workload.users or 0)
        self._asks_for_lengths = True  # prompts are made as long as they are wanted; a file's are as long as they are
        self._histories: dict[int, bytes] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}  # users who think, or have not started
        self._tasks: set[asyncio.Task[None]] = set()
        self._connect_later: list[int] = []
        self._visits: Iterator[Connection] = iter(())
        self._visits_left = self._visits_a_tick = 0
        self._backlog_max = 0
        self._emulated = False
        self._next_open: Request | None = None
        self._sent = 0
        self._active = 0  # closed loop: users who will send again
        self._ended: asyncio.Event = asyncio.Event()
        self._next_progress = self._next_control = 0.0
        self._sends = True  # until the time is up
        self._last_sent_s = 0.0
        self._all_started_s = 0.0  # when each user had sent once
        self._fault: Exception | None = None
        self.stopped: str | None = None
        self.log: RecordLog

    async def prepare(self) -> None:
        """Open the connections of those who start soon, before the clock starts, so that they do not disturb it.

        Raises:
            InputError: this process may not have so many open files.
            RunFailed: the server's name is not known.
        """
        allow_open_files((self._load.users or 1000) // self._share.count + 200)
        await self._dialer.resolve()
        self._reader.start()
        if self._is_closed:
            await self._connect_early()
        gc.collect()

    async def run(self, origin: float) -> SenderResult:
        """Send from `origin` on, a time of the clock, until the last answer has ended."""
        await asyncio.sleep(max(0.0, origin - self._now()))
        loop = asyncio.get_running_loop()
        self._open = None if self._is_closed else self._my_requests()
        self._origin = origin
        self.log = RecordLog(origin, self._orders.folder, name=self._share.log_name, ids=self._orders.ids)
        before = gc.get_threshold()
        gc.freeze()  # what is here now stays; the collector need not walk it during the run
        gc.set_threshold(50_000, 50, 50)
        self._watch.start()
        ticking = loop.call_later(_TICK_S, self._tick)
        loop.set_exception_handler(self._take_fault)
        try:
            self._start()
            await self._ended.wait()
            if self._fault is not None:
                raise self._fault
        finally:
            loop.set_exception_handler(None)
            ticking.cancel()
            self._watch.stop()
            self._hang_up()
            self._reader.stop()
            gc.set_threshold(*before)
            gc.unfreeze()
            self.log.close()
        return SenderResult(
            rows=self.log.rows(),
            tokens=self.log.tokens(),
            words=self.log.words(),
            watch=self._watch.seen(),
            origin=origin,
            all_started_s=self._all_started_s,
            last_sent_s=self._last_sent_s,
            backlog_max=self._backlog_max,
            emulated=self._emulated,
            stopped=self.stopped,
            disk=self.log.trouble,
            paused_s=self._paused_s,
            all_bytes=self._all_bytes,
            most_bytes=self._most_bytes,
            changes=tuple(self._room.changes),
        )

    def _take_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of ours in a callback ends the run, which would wait for ever for the answer that was dropped."""
        fault = context.get("exception")
        if isinstance(fault, Exception) and "handle" in context:
            self._fault = self._fault or fault
            self._ended.set()
        else:
            loop.default_exception_handler(context)

    def _my_requests(self) -> Iterator[Request]:
        share = self._share
        return islice(self._demand.open_requests(), share.index, None, share.count)

    # The beginning.

    async def _connect_early(self) -> None:
        """All who send at once, and the first of those who start soon; `_connect_ahead` has the rest."""
        starts = self._my_starts()
        soon = [user for user, start in starts if start <= _EARLY_S]
        at_once = sum(start <= 0 for _, start in starts)
        early = max(at_once, _EARLY_USERS)
        self._connect_later = soon[early:]
        await self._pool.connect_all(soon[:early])

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._load.duration_s is not None:
            loop.call_later(self._load.duration_s, self._end_of_sending)
        if not self._is_closed:
            self._send_due()
            return
        starts = self._my_starts()
        self._active = len(starts)
        for user, start in starts:
            if start > 0:
                self._timers[user] = loop.call_later(start, self._send_next, user)
        if self._connect_later:
            self._spawn(self._pool.connect_ahead(self._connect_later, self._timers.__contains__))
        self._send_firsts(iter([user for user, start in starts if start <= 0]))

    def _send_firsts(self, users: Iterator[int]) -> None:
        """Send for all who start at once, a few at a time: meanwhile the loop reads what already comes back."""
        batch = list(islice(users, _FIRSTS_AT_ONCE))
        for user in batch:
            self._send_next(user)
        if batch:
            asyncio.get_running_loop().call_soon(self._send_firsts, users)

    def _my_starts(self) -> list[tuple[int, float]]:
        """Users of this share and when they start."""
        starts = enumerate(self._demand.starts())
        return list(islice(starts, self._share.index, None, self._share.count))

    # Closed loop: a user's next request.

    def _send_next(self, user: int) -> None:
        self._timers.pop(user, None)
        now = self._now() - self._origin
        if self.stopped is not None or not self._demand.goes_on(now, self._share.number(self._sent)):
            self._retire()
            self._let_parked_go()
            return
        if self._room.users is not None and user >= self._room.users:
            self._room.parked.add(user)
            return
        if self._steps and not self._has_room(user, now):
            return
        request = self._demand.next_request(user, self._share.number(self._sent))
        self._send(request, NAN)

    def set_users(self, users: int) -> None:
        """So many users from now on: whoever is too many ends the answer under way, whoever is new sends at once."""
        self._room.users = users
        self._room.changes.append((self._now() - self._origin, users))
        mine = range(self._share.index, users, self._share.count)
        for user in [user for user in mine if user in self._room.parked]:
            self._room.parked.discard(user)
            self._send_next(user)
        new = [user for user in mine if user >= self._room.known]
        self._room.known = max(self._room.known, users)
        self._active += len(new)
        for user in new:
            self._send_next(user)

    def _let_parked_go(self) -> None:
        """Nobody sends again, so that nobody has to wait for room."""
        self._active -= len(self._room.parked)
        self._room.parked.clear()
        self._check_end()

    def _has_room(self, user: int, now: float) -> bool:
        """Whether this step has room for the user, who else comes back at the step that has, or never."""
        turn = next_turn(self._steps, user, now)
        if turn is None:
            self._retire()
        elif turn > now:
            self._timers[user] = asyncio.get_running_loop().call_later(turn - now, self._send_next, user)
        return turn == now

    def _retire(self) -> None:
        self._active -= 1
        self._check_end()

    def _after_answer(self, user: int, *, failed: bool) -> None:
        """The user goes on: at once, after thinking, or after a pause when the last request failed."""
        pause = self._load.think_s
        if failed:
            self._pauses[user] = min(_LONGEST_PAUSE_S, 2 * self._pauses.get(user, _FIRST_PAUSE_S / 2))
            pause = max(pause, self._pauses[user])
            self._paused_s += pause
        elif self._pauses:
            self._pauses.pop(user, None)
        if pause > 0:
            self._timers[user] = asyncio.get_running_loop().call_later(pause, self._send_next, user)
        else:
            self._send_next(user)

    # Open loop: whatever is due.

    def _send_due(self) -> None:
        """Send all that is due by now, and come back when the next one is."""
        assert self._open is not None
        while self.stopped is None:
            request = self._next_open or self._draw_open()
            self._next_open = None
            if request is None:
                self._check_end()
                return
            wait = (request.due_s or 0.0) - (self._now() - self._origin)
            if wait > 0:
                self._next_open = request
                asyncio.get_running_loop().call_later(wait, self._send_due)
                return
            self._send(request, self._origin + (request.due_s or 0.0))

    def _draw_open(self) -> Request | None:
        """The next request of an open loop, at its step's pace; None when there are no more."""
        assert self._open is not None
        request = next(self._open, None)
        if request is not None and self._steps:
            due = moved_due(self._steps, request.due_s or 0.0)
            request = None if due is None else replace(request, due_s=due)
        if request is None:
            self._open = iter(())
        return request

    # One request.

    def _send(self, request: Request, due: float) -> None:
        self._sent += 1
        made = self._prompts.make(request)
        if made.prompt_tokens is not None or made.output_tokens is not None:
            self._asks_for_lengths = made.prompt_tokens is None
            request = replace(
                request,
                prompt_tokens=made.prompt_tokens or request.prompt_tokens,
                output_tokens=made.output_tokens or request.output_tokens,
            )
        connection = self._pool.take(request.user)
        connection.begin(request, due)
        self._busy[request.number] = connection
        message = self._message(request, made)
        self._most_bytes = max(self._most_bytes, len(message))
        self._all_bytes += len(message)
        if self._sent == self._active:
            self._all_started_s = connection.sent - self._origin
        if connection.is_open:
            connection.send(message)
            self._last_sent_s = connection.sent - self._origin
        else:
            self._spawn(self._connect_and_send(connection, message))

    def _message(self, request: Request, made: Made) -> bytes:
        model = self._mix.model_of(request)
        if self._load.turns <= 1:
            return self._writer.write(request, made, model=model)
        if request.turn == 0:
            self._histories[request.user] = b""
        return self._writer.write(request, made, self._histories[request.user], model=model)

    def _remember(self, request: Request, answer: Answer) -> None:
        """Put the exchange that has just ended into the session's history."""
        made = self._prompts.make(request)
        earlier = self._histories.get(request.user, b"")
        self._histories[request.user] = self._writer.remember(earlier, made, answer.said)

    async def _connect_and_send(self, connection: Connection, message: bytes) -> None:
        try:
            await self._dialer.connect(connection)
        except OSError as error:
            connection.fail(*classify(error))
            return
        if connection.busy:
            connection.send(message)
            self._last_sent_s = connection.sent - self._origin
        else:
            connection.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _new_connection(self) -> Connection:
        answer = Answer(
            streaming=self._asking.stream and self._generates,
            holds=_HOLDS[self._orders.endpoint],
            replica_header=self._asking.replica_header,
            keep=self._load.turns > 1,
            shapes=self._shapes,
        )
        return Connection(answer, now=self._now, on_end=self._take_end, on_first=self._watch.saw_first_token)

    def _take_end(self, connection: Connection) -> None:
        """An answer has ended: keep its record, then on with the user."""
        request = connection.request
        assert request is not None
        if (
            self._follow(connection, request)
            or self._send_again(connection, request)
            or self._wait_as_told(connection, request)
        ):
            return
        self._watch.held_back += connection.held_back
        connection.held_back = 0
        failed = self._keep(connection, request)
        del self._busy[request.number]
        if self._load.turns > 1 and not failed and connection.answer.complete:
            self._remember(request, connection.answer)
        self._pool.put_back(connection, request.user)
        if self._is_closed:
            self._after_answer(request.user, failed=failed)
        else:
            self._check_end()

    def _keep(self, connection: Connection, request: Request) -> bool:
        """Write the record; says whether the request failed."""
        answer = connection.answer
        self._emulated = self._emulated or answer.emulated
        problem = connection.failure or answer.problem
        cancelled = (
            self.stopped is not None and connection.failure is not None and connection.failure[0] == self.stopped
        )
        outcome = _CANCELLED if cancelled else _OK if problem is None else _FAILED
        error, detail = problem or (None, None)
        times = answer.times
        tokens = count_tokens(answer.usage, request, len(times), generates=self._generates)
        if outcome == _OK and tokens.odd is not None:
            error, detail = ODD_USAGE, f"the usage says {tokens.odd}"
        self.log.add(
            number=request.number,
            user=request.user,
            turn=request.turn,
            due=connection.due,
            sent=connection.sent,
            first_byte=answer.first_byte or NAN,
            times=times,
            done=answer.now,
            prompt_tokens=tokens.prompt,
            output_tokens=tokens.output,
            cached_tokens=tokens.cached,
            status=answer.status,
            error=error,
            detail=detail,
            replica=answer.replica,
            outcome=outcome,
            counted=tokens.from_chunks,
            asked_prompt_tokens=request.prompt_tokens if answer.usage and self._asks_for_lengths else 0,
            asked_output_tokens=request.output_tokens if self._writer.is_exact else 0,
            resent=connection.resent,
            retried=connection.retried,
            model=self._mix.model_of(request),
        )
        if not connection.told_first and times:
            self._window.note_first(connection)
        self._window.note_end(connection, OUTCOMES[outcome].value, error)
        return outcome == _FAILED

    def _follow(self, connection: Connection, request: Request) -> bool:
        """Go after a redirect to the same server; another server is the user's to name."""
        answer = connection.answer
        if answer.status not in _REDIRECTS or not answer.location or connection.failure is not None:
            return False
        there = urljoin(f"{self._target.origin}{self._target.path}", answer.location)
        if not there.startswith(f"{self._target.origin}/"):
            answer.problem = ("redirect", f"the server sends us to {there}; give that URL")
            return False
        if connection.hops >= _MOST_HOPS:
            answer.problem = ("redirect_loop", f"redirected {_MOST_HOPS} times, last to {there}")
            return False
        hops, sent, due = connection.hops + 1, connection.sent, connection.due
        message = self._message(request, self._prompts.make(request)).replace(
            f"POST {self._request_target(self._target.path)} ".encode(),
            f"POST {self._request_target(there.removeprefix(self._target.origin))} ".encode(),
            1,
        )
        again = connection if connection.is_open else self._pool.make()
        again.begin(request, due)
        again.hops = hops
        self._busy[request.number] = again
        if again.is_open:
            again.send(message)
            again.sent = sent
        else:
            self._spawn(self._connect_and_send(again, message))
        return True

    def _send_again(self, connection: Connection, request: Request) -> bool:
        """Once more, over a new connection, when one that had been kept open turned out to be closed.

        That is safe where not a byte of an answer came over a connection that had waited: the server had closed it
        before the request was there (RFC 9112, 9.3.1). Time counts from the first sending.
        """
        problem = connection.failure or connection.answer.problem
        if (
            problem is None
            or problem[0] not in _CLOSED
            or connection.heard
            or not connection.answered
            or self.stopped is not None
        ):
            return False
        self._pool.note_closed()
        again = self._pool.make()
        again.begin(request, connection.due, since=connection.sent)
        again.resent, again.retried = connection.resent + 1, connection.retried
        self._busy[request.number] = again
        self._spawn(self._connect_and_send(again, self._message(request, self._prompts.make(request))))
        return True

    def _wait_as_told(self, connection: Connection, request: Request) -> bool:
        """After a refusal that says when to come again: rest so long, then send once more. Time goes on counting."""
        answer = connection.answer
        if (
            answer.status not in _REFUSALS
            or answer.retry_after is None
            or connection.retried >= self._asking.retries
            or self.stopped is not None
        ):
            return False
        pause = wait_of(answer.retry_after, wall=self._wall())
        if pause is None:
            return False
        retried, sent, resent = connection.retried + 1, connection.sent, connection.resent
        connection.begin(request, connection.due, since=sent)
        connection.sent, connection.retried, connection.resent, connection.rests = sent, retried, resent, True
        self._busy[request.number] = connection
        self._paused_s += pause
        asyncio.get_running_loop().call_later(pause, self._go_on, connection, request)
        return True

    def _go_on(self, connection: Connection, request: Request) -> None:
        """The rest is over."""
        if not connection.rests or connection.request is not request:
            return  # it was ended meanwhile
        connection.rests = False
        message = self._message(request, self._prompts.make(request))
        if connection.is_open:
            connection.send(message)
        else:
            self._spawn(self._connect_and_send(connection, message))

    def _request_target(self, path: str) -> str:
        return request_target(path, self._target, self._asking)

    # Meanwhile.

    def _tick(self) -> None:
        """Twenty times a second: look after a part of the requests under way, so that each is seen within a second."""
        if self._ended.is_set():
            return
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        now = self._now()
        if self._visits_left == 0:
            self.log.end_of_cycle(self._busy.values())
            snapshot = list(self._busy.values())
            self._visits, self._visits_left = iter(snapshot), _TICKS_A_CYCLE
            self._visits_a_tick = -(-len(snapshot) // _TICKS_A_CYCLE)
        self._visits_left -= 1
        seen = [connection for connection in islice(self._visits, self._visits_a_tick) if connection.busy]
        for connection in seen:
            self._visit(connection, now)
        if seen:
            self._window.note_gaps(seen[0], now)
        self.log.flush(connection for connection in seen if connection.busy)
        self._backlog_max = max(self._backlog_max, self._backlog())
        if self._control is not None and now >= self._next_control and self._sends:
            self._next_control = now + _PROGRESS_S
            users = self._control.wanted_users()
            if users is not None:
                self.set_users(users)
        if self._on_progress is not None and now >= self._next_progress:
            self._next_progress = now + _PROGRESS_S
            self._on_progress(self.progress(now))

    def _visit(self, connection: Connection, now: float) -> None:
        times = connection.times
        if times and not connection.told_first:
            connection.told_first = True
            self._window.note_first(connection)
        self._check_timeouts(connection, now)

    def _check_timeouts(self, connection: Connection, now: float) -> None:
        if connection.rests:
            return
        limits, times = self._asking.timeouts, connection.times
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

    def _backlog(self) -> int:
        """Open loop: requests that are due and whose last byte is not yet handed over."""
        return 0 if self._is_closed else len(self._tasks)

    def progress(self, now: float) -> Progress:
        """A look at the run as it is now."""
        load, elapsed = self._load, now - self._origin
        ended = self._window.ended
        left = None if load.duration_s is None else max(0.0, load.duration_s - elapsed)
        return Progress(
            elapsed_s=elapsed,
            left_s=left,
            sent=self._sent,
            ok=ended["ok"],
            failed=ended["failed"],
            cancelled=ended["cancelled"],
            in_flight=len(self._busy),
            backlog=self._backlog(),
            users=self._share.part_of(load.users if self._room.users is None else self._room.users),
            requests_wanted=self._share.part_of(load.requests),
            lag_s=self._watch.last_lag_s,
            **self._window.look(now, self._busy.values()),  # type: ignore[arg-type]
        )

    # The end.

    def _end_of_sending(self) -> None:
        """The time is up: nobody sends again; what is under way may end."""
        self._sends = False
        for timer in self._timers.values():
            timer.cancel()
            self._active -= 1
        self._timers.clear()
        self._active -= len(self._room.parked)
        self._room.parked.clear()
        if self._open is not None:
            self._open, self._next_open = iter(()), None
        if self._drain_s is not None:
            asyncio.get_running_loop().call_later(self._drain_s, self.stop, "time_limit")
        self._check_end()

    def _check_end(self) -> None:
        if self._busy:
            return
        nothing_due = self._next_open is None and self._demand_is_spent()
        if self.stopped is not None or nothing_due:
            self._ended.set()

    def _demand_is_spent(self) -> bool:
        if self._is_closed:
            return self._active <= 0
        self._next_open = self._draw_open()
        return self._next_open is None

    def stop(self, reason: str) -> None:
        """End now; what is under way is cancelled and recorded as such."""
        if self.stopped is not None or self._ended.is_set():
            return
        self.stopped = reason
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._busy.values()):
            connection.fail(reason, "the run was ended")
        self._ended.set()

    def _hang_up(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in self._busy.values():
            connection.close()
        self._pool.hang_up()
