"""Requests that are sent once more: after a redirect, over a closed connection, after a refusal that says when."""

import asyncio
from collections.abc import Callable
from urllib.parse import urljoin

from atoll.load.client import Connection
from atoll.load.message import request_target
from atoll.load.pool import Pool
from atoll.load.retry import wait_of
from atoll.load.target import RequestOptions, Target
from atoll.traffic.request import Request

_CLOSED = {"connection_closed", "connection_reset"}
_REFUSALS = {429, 503}
_REDIRECTS = {307, 308}  # those that keep the POST a POST
_MOST_HOPS = 5


class Again:
    """What is still the same request, as far as its record goes: its time counts from the first sending."""

    def __init__(
        self,
        target: Target,
        options: RequestOptions,
        *,
        pool: Pool,
        busy: dict[int, Connection],
        message: Callable[[Request], bytes],
        connect_and_send: Callable[[Connection, bytes], None],
        is_stopped: Callable[[], bool],
        wall: Callable[[], float],
    ) -> None:
        self._target = target
        self._options = options
        self._pool = pool
        self._busy = busy
        self._message = message
        self._connect_and_send = connect_and_send
        self._is_stopped = is_stopped
        self._wall = wall
        self.paused_s = 0.0  # of all requests that waited as they were told

    def takes(self, connection: Connection, request: Request) -> bool:
        """Whether the answer that has ended is none yet, and the request is under way again."""
        return (
            self._follow(connection, request)
            or self._send_again(connection, request)
            or self._wait_as_told(connection, request)
        )

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
        message = self._message(request).replace(
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
            self._connect_and_send(again, message)
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
            or self._is_stopped()
        ):
            return False
        self._pool.note_closed()
        again = self._pool.make()
        again.begin(request, connection.due, since=connection.sent)
        again.resent, again.retried = connection.resent + 1, connection.retried
        self._busy[request.number] = again
        self._connect_and_send(again, self._message(request))
        return True

    def _wait_as_told(self, connection: Connection, request: Request) -> bool:
        """After a refusal that says when to come again: rest so long, then send once more. Time goes on counting."""
        answer = connection.answer
        if (
            answer.status not in _REFUSALS
            or answer.retry_after is None
            or connection.retried >= self._options.retries
            or self._is_stopped()
        ):
            return False
        pause = wait_of(answer.retry_after, wall=self._wall())
        if pause is None:
            return False
        retried, sent, resent = connection.retried + 1, connection.sent, connection.resent
        connection.begin(request, connection.due, since=sent)
        connection.sent, connection.retried, connection.resent, connection.rests = sent, retried, resent, True
        self._busy[request.number] = connection
        self.paused_s += pause
        asyncio.get_running_loop().call_later(pause, self._go_on, connection, request)
        return True

    def _go_on(self, connection: Connection, request: Request) -> None:
        """The rest is over."""
        if not connection.rests or connection.request is not request:
            return  # it was ended meanwhile
        connection.rests = False
        message = self._message(request)
        if connection.is_open:
            connection.send(message)
        else:
            self._connect_and_send(connection, message)

    def _request_target(self, path: str) -> str:
        return request_target(path, self._target, self._options)
