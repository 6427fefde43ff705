"""One connection to the server: a request out, its answer in.

The time of every arrival is taken before a byte of it is looked at, and the time of sending just before the call that
hands the request's last byte to the socket.
"""

import asyncio
import socket
import ssl
import struct
from array import array
from collections.abc import Callable
from typing import cast

from atoll.load.answer import Answer
from atoll.load.reader import Reader
from atoll.traffic.request import Request

NAN = float("nan")
_LAST_DATA_RECV = struct.Struct("<52xI")  # of Linux' struct tcp_info: milliseconds since the last byte came in
_CLASSES: dict[type[OSError], str] = {
    ConnectionRefusedError: "connection_refused",
    ConnectionResetError: "connection_reset",
    BrokenPipeError: "connection_reset",
    ConnectionAbortedError: "connection_reset",
    socket.gaierror: "dns",
}


class Connection(asyncio.Protocol):
    """One request at a time. `on_end` is called when its answer has ended, well or not."""

    def __init__(
        self,
        answer: Answer,
        *,
        now: Callable[[], float],
        on_end: Callable[["Connection"], None],
        on_first: Callable[["Connection"], None],
    ) -> None:
        self.answer = answer
        self.busy = False
        self.idle_since = 0.0
        self.failure: tuple[str, str] | None = None  # the connection's own; answer.problem is the answer's
        self.request: Request | None = None
        self.sent = NAN
        self.due = NAN
        self.hops = 0  # redirects followed for this request
        self.resent = 0  # times that this request was sent before, over connections that turned out to be closed
        self.answered = False  # an answer has come over it before
        self.retried = 0  # times that this request was refused before, and waited as it was told
        self.rests = False  # it waits now, and nothing is sent
        self.heard = False  # something of the answer has come
        self.logged = 0
        self.told_first = False
        self.held_back = 0  # requests that the socket did not take at once
        self._now = now
        self._on_end = on_end
        self._on_first = on_first
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None  # None with TLS: bytes have to go through a transport
        self._reader: Reader | None = None  # of the socket
        self._handle = -1  # of the socket
        self._unsent = b""
        self._waiting_for_first = False
        self._since = NAN

    # What a RecordLog asks of a request that is under way.

    @property
    def number(self) -> int:
        return self.request.number if self.request else -1

    @property
    def user(self) -> int:
        return self.request.user if self.request else -1

    @property
    def turn(self) -> int:
        return self.request.turn if self.request else 0

    @property
    def prompt_tokens(self) -> int:
        return self.request.prompt_tokens if self.request else 0

    @property
    def first_byte(self) -> float:
        return self.answer.first_byte or NAN

    @property
    def replica(self) -> str | None:
        return self.answer.replica

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def times(self) -> "array[float]":
        return self.answer.times

    # Out.

    @property
    def is_open(self) -> bool:
        return self._transport is not None or self._socket is not None

    def begin(self, request: Request, due: float, *, since: float = NAN) -> None:
        """Take on a request; nothing is sent yet.

        Args:
            request: what is asked.
            due: when it should have been sent, or NAN.
            since: when it was sent first, where this is not the first time; its time counts from there.
        """
        self.request = request
        self.due = due
        self.sent = self._now()
        self.failure = None
        self.hops = self.logged = self.resent = self.retried = 0
        self.rests = False
        self.heard = False
        self._since = since
        self.told_first = False
        self.busy = True
        self.answer.reset()

    def send(self, message: bytes) -> None:
        """Hand the whole message to the socket, at once when it takes it."""
        self._waiting_for_first = True
        self._stamp_sending()
        if self._socket is not None:
            self._send_to(self._socket, message)
        elif self._transport is not None:
            self._transport.write(message)
        else:
            self.fail("connection_closed", "the connection was closed before the request was sent")

    def _stamp_sending(self) -> None:
        self.sent = self._now() if self._since != self._since else self._since

    def _send_to(self, plain: socket.socket, message: bytes) -> None:
        try:
            taken = plain.send(message)
        except BlockingIOError:
            taken = 0
        except OSError as error:
            self.fail("connection_reset", f"the request could not be sent: {error.strerror}")
            return
        if taken < len(message):
            self.held_back += 1
            self._unsent = message[taken:]
            asyncio.get_running_loop().add_writer(plain, self._send_rest)

    def _send_rest(self) -> None:
        """The socket takes more; the request counts as sent when it has taken the last byte."""
        plain = self._socket
        if plain is None:
            return
        try:
            self._unsent = self._unsent[plain.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            self.fail("connection_reset", f"the request could not be sent: {error.strerror}")
            return
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(plain)
            self.resume_writing()

    def resume_writing(self) -> None:
        if self.busy and not self.answer.first_byte:
            self._stamp_sending()

    # In.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._transport.set_write_buffer_limits(high=0)

    def use_socket(self, plain: socket.socket, reader: Reader) -> None:
        """Talk over this connected socket, without a transport; it is ours to close."""
        self._socket, self._reader, self._handle = plain, reader, plain.fileno()
        reader.add(plain, self)

    def data_received(self, data: bytes) -> None:
        self.take(data, self._now())

    def take(self, data: bytes, moment: float) -> None:
        """Bytes that had come by this moment."""
        answer = self.answer
        answer.now = moment
        self.heard = True
        if not answer.take_chunk(data):
            answer.feed(data)
        if self._waiting_for_first and answer.times:
            self._waiting_for_first = False
            self._on_first(self)
        if answer.complete or answer.problem is not None:
            self._end()
        elif self._reader is not None and not self._waiting_for_first:
            self._reader.stamp(self._handle, answer.times.append if answer.is_steady else None)

    def connection_lost(self, error: Exception | None) -> None:
        self.close()
        if not self.busy or self.rests:
            return
        self.answer.now = self._now()
        if error is not None and not self.answer.complete:
            self.failure = classify(error)
        else:
            self.answer.end_of_bytes()
        self._end()

    def _end(self) -> None:
        if not self.busy:  # bytes that nobody asked for
            self.close()
            return
        self.busy = False
        if not self.answer.reusable:
            self.close()
        else:
            self.answered = True
            if self._reader is not None:
                self._reader.stamp(self._handle, None)
        self.idle_since = self.answer.now
        self._on_end(self)

    def fail(self, word: str, sentence: str) -> None:
        """End the request for a reason of ours: a timeout, a connection that was not made."""
        if not self.busy:
            return
        self.rests = False
        self.answer.now = self._now()
        self.failure = (word, sentence)
        self.busy = False
        self.close()
        self._on_end(self)

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        plain, self._socket = self._socket, None
        if plain is not None and self._reader is not None:
            self._reader.remove(plain)
            if self._unsent:
                self._unsent = b""
                asyncio.get_running_loop().remove_writer(plain)
            plain.close()

    def read_lag(self) -> float | None:
        """Seconds that the last bytes lay in the kernel before we took them; None where it cannot tell.

        The kernel counts in ticks of 1 to 10 ms, so one value says little; the mean of many is right, because where in
        a tick the bytes came is left to chance.
        """
        if self._socket is None:
            return None
        try:
            raw = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56)
        except OSError:
            return None
        return int(_LAST_DATA_RECV.unpack(raw)[0]) / 1e3


def classify(error: BaseException) -> tuple[str, str]:
    """The class of a failure of the network, and its sentence."""
    sentence = str(getattr(error, "strerror", None) or error or type(error).__name__)
    if isinstance(error, ssl.SSLError):
        return "tls", str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or sentence)
    if isinstance(error, TimeoutError):
        return "connect_timeout", "no connection in time"
    for kind, word in _CLASSES.items():
        if isinstance(error, kind):
            return word, sentence
    return "network", sentence
