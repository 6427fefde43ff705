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

from atoll.load.again import Again
from atoll.load.answer import Answer
from atoll.load.client import Connection, classify
from atoll.load.connect import Dialer, allow_open_files
from atoll.load.control import ControlFile
from atoll.load.ledger import Ledger
from atoll.load.message import MessageWriter
from atoll.load.mix import ModelMix
from atoll.load.orders import Orders, SenderResult
from atoll.load.pace import moved_due
from atoll.load.pool import Pool
from atoll.load.progress import Progress, Window
from atoll.load.prompts import Made
from atoll.load.reader import Reader
from atoll.load.records import RecordLog
from atoll.load.rounds import Rounds
from atoll.load.selfwatch import SelfWatch
from atoll.load.shapes import Shapes
from atoll.load.target import Endpoint
from atoll.load.users import Users
from atoll.outside.clock import Clock
from atoll.traffic.demand import Demand
from atoll.traffic.request import Request

_TICK_S = 0.05
_PROGRESS_S = 0.5
_EARLY_S = 2.0  # a user's connection is made before the run when the user starts within this time
_EARLY_USERS = 256  # so many are connected before the start, which takes 25 ms, unless more send at once
_HOLDS = {
    Endpoint.CHAT: "choices",
    Endpoint.COMPLETIONS: "choices",
    Endpoint.RESPONSES: "output",
    Endpoint.EMBEDDINGS: "data",
    Endpoint.RERANK: "results",
    Endpoint.SCORE: "data",
}  # the list that a whole answer is known by


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
        self._now = clock.now
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
        self._users = Users(
            orders.workload,
            self._demand,
            share=orders.share,
            steps=orders.steps,
            elapsed=lambda: self._now() - self._origin,
            next_number=lambda: self._share.number(self._sent),
            send=self._send,
            check_end=self._check_end,
            is_stopped=lambda: self.stopped is not None,
        )
        self._again = Again(
            orders.target,
            orders.options,
            pool=self._pool,
            busy=self._busy,
            message=lambda request: self._message(request, self._prompts.make(request)),
            connect_and_send=lambda connection, message: self._spawn(self._connect_and_send(connection, message)),
            is_stopped=lambda: self.stopped is not None,
            wall=clock.wall,
        )
        self._all_bytes = self._most_bytes = 0  # of messages
        self._control = None if orders.control is None else ControlFile(orders.control)
        self._histories: dict[int, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connect_later: list[int] = []
        self._backlog_max = 0
        self._next_open: Request | None = None
        self._sent = 0
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
        self._ledger = Ledger(
            log=self.log, window=self._window, writer=self._writer, mix=self._mix, generates=self._generates
        )
        timeouts = self._asking.timeouts
        self._rounds = Rounds(self._busy, window=self._window, log=self.log, timeouts=timeouts)
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
            emulated=self._ledger.emulated,
            stopped=self.stopped,
            disk=self.log.trouble,
            paused_s=self._users.paused_s + self._again.paused_s,
            all_bytes=self._all_bytes,
            most_bytes=self._most_bytes,
            changes=tuple(self._users.room.changes),
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
        starts = self._users.starts()
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
        self._users.begin()
        if self._connect_later:
            self._spawn(self._pool.connect_ahead(self._connect_later, self._users.timers.__contains__))
        self._users.send_firsts()

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
            self._ledger.asks_for_lengths = made.prompt_tokens is None
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
        if self._sent == self._users.active:
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
        if self._again.takes(connection, request):
            return
        self._watch.held_back += connection.held_back
        connection.held_back = 0
        failed = self._ledger.keep(connection, request, stopped=self.stopped)
        del self._busy[request.number]
        if self._load.turns > 1 and not failed and connection.answer.complete:
            self._remember(request, connection.answer)
        self._pool.put_back(connection, request.user)
        if self._is_closed:
            self._users.after_answer(request.user, failed=failed)
        else:
            self._check_end()

    # Meanwhile.

    def _tick(self) -> None:
        """Twenty times a second: look after a part of the requests under way, so that each is seen within a second."""
        if self._ended.is_set():
            return
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        now = self._now()
        self._rounds.go_on(now)
        self._backlog_max = max(self._backlog_max, self._backlog())
        if self._control is not None and now >= self._next_control and self._sends:
            self._next_control = now + _PROGRESS_S
            users = self._control.wanted_users()
            if users is not None:
                self._users.set_users(users)
        if self._on_progress is not None and now >= self._next_progress:
            self._next_progress = now + _PROGRESS_S
            self._on_progress(self.progress(now))

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
            users=self._share.part_of(load.users if self._users.room.users is None else self._users.room.users),
            requests_wanted=self._share.part_of(load.requests),
            lag_s=self._watch.last_lag_s,
            **self._window.look(now, self._busy.values()),  # type: ignore[arg-type]
        )

    # The end.

    def _end_of_sending(self) -> None:
        """The time is up: nobody sends again; what is under way may end."""
        self._sends = False
        self._users.end()
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
            return self._users.active <= 0
        self._next_open = self._draw_open()
        return self._next_open is None

    def stop(self, reason: str) -> None:
        """End now; what is under way is cancelled and recorded as such."""
        if self.stopped is not None or self._ended.is_set():
            return
        self.stopped = reason
        self._users.end()
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
