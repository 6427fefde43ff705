"""Reads what arrives on many plain sockets, at as few system calls and as little code a chunk as can be.

The sockets stand in an epoll of their own, which the event loop watches as one more file. It tells of each arrival once
(edge-triggered), so a socket is not looked at again after it was emptied, and no transport stands between the bytes and
who takes them. Each read has a time stamp of its own, taken when its bytes are handed over.
"""

import asyncio
import os
import select
import socket
from collections.abc import Callable
from typing import Protocol

_READ_BYTES = 65536
_MOST_READY = 1024
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Listener(Protocol):
    """Who reads from a socket."""

    def take(self, data: bytes, moment: float) -> None:
        """Bytes that had come by this moment; there are some."""
        ...

    def connection_lost(self, error: Exception | None) -> None:
        """The other side has closed, or the network broke."""
        ...


class Reader:
    """Reads for all listeners of one event loop."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._epoll = select.epoll()
        self._listeners: dict[int, Listener] = {}
        self._ready: list[tuple[int, int]] = []

    def start(self) -> None:
        """Read in the running loop from now on."""
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._drain)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    def add(self, plain: socket.socket, listener: Listener) -> None:
        """Read from a socket that does not block. It is told of once per arrival (edge-triggered), so it is emptied."""
        self._listeners[plain.fileno()] = listener
        self._epoll.register(plain.fileno(), select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def remove(self, plain: socket.socket) -> None:
        """To be called before the socket is closed."""
        if self._listeners.pop(plain.fileno(), None) is not None and not self._epoll.closed:
            self._epoll.unregister(plain.fileno())

    def _drain(self) -> None:
        self._ready += self._epoll.poll(0, _MOST_READY)
        try:
            self._read_all()
        finally:
            if self._ready:  # a listener failed; the others' arrivals are not told of again
                asyncio.get_running_loop().call_soon(self._drain)

    def _read_all(self) -> None:
        """Every socket that is ready, until it is empty: a read that is not full has emptied it."""
        ready, listeners, now = self._ready, self._listeners, self._now
        while ready:
            handle, event = ready.pop()
            listener = listeners.get(handle)
            if listener is None:
                continue
            try:
                data = os.read(handle, _READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                listener.connection_lost(error)
                continue
            if not data:
                listener.connection_lost(None)
                continue
            if event & _GONE or len(data) == _READ_BYTES:
                ready.append((handle, event))
            listener.take(data, now())
