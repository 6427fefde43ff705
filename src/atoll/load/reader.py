"""Reads what arrives on many plain sockets, at as few system calls and as little code a chunk as can be.

The sockets stand in an epoll of their own, which the event loop watches as one more file. It tells of each arrival once
(edge-triggered), so a socket is not looked at again after it was emptied, and no transport stands between the bytes and
who takes them. Each read has a time stamp of its own, taken before a byte of it is looked at.

A listener in the middle of its answer can ask for no more than the time stamps of chunks of a known shape. Those reads
touch nothing that belongs to it but the array that the stamp goes to: with a thousand connections in turn, what has to
come from far memory costs more than what is computed.
"""

import asyncio
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from atoll.load.shapes import CHUNK_END, LINE_FEED, LONGEST_SHAPE, QUOTE, RETURN, Shapes

_SMALL_BYTES = LONGEST_SHAPE
_LARGE_BYTES = 65536
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

    def __init__(self, now: Callable[[], float], shapes: Shapes | None = None) -> None:
        self._now = now
        self._shapes = Shapes() if shapes is None else shapes
        self._epoll = select.epoll()
        self._listeners: dict[int, Listener] = {}
        self._stamps: list[Callable[[float], None] | None] = []  # by handle; None: the listener takes all itself
        self._ready: Iterator[tuple[int, int]] = iter(())
        self._size = _SMALL_BYTES
        self._saw_large = False

    def start(self) -> None:
        """Read in the running loop from now on."""
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self.drain)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    def add(self, plain: socket.socket, listener: Listener) -> None:
        """Read from a socket that does not block. It is told of once per arrival (edge-triggered), so it is emptied."""
        handle = plain.fileno()
        self._listeners[handle] = listener
        self._stamps += [None] * (handle + 1 - len(self._stamps))
        self._epoll.register(handle, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def remove(self, plain: socket.socket) -> None:
        """To be called before the socket is closed."""
        handle = plain.fileno()
        if self._listeners.pop(handle, None) is not None:
            self._stamps[handle] = None
            if not self._epoll.closed:
                self._epoll.unregister(handle)

    def stamp(self, handle: int, take_moment: Callable[[float], None] | None) -> None:
        """Of a chunk of a known shape, from now on, its moment is taken here, and the listener does not hear of it.

        None: the listener takes every read itself, as in the beginning.
        """
        self._stamps[handle] = take_moment

    def drain(self) -> None:
        """Read all that has come, as the loop asks for when there is something."""
        self._ready = iter([*self._ready, *self._epoll.poll(0, _MOST_READY)])
        self._size = _LARGE_BYTES if self._saw_large else _SMALL_BYTES
        self._saw_large = False
        try:
            self._read_all()
        except BaseException:  # a listener failed; the others' arrivals are not told of again
            asyncio.get_running_loop().call_soon(self.drain)
            raise

    def _read_all(self) -> None:
        """Every socket that is ready. The comparisons are those of Shapes.find."""
        stamps, shape_of, read, now, size = self._stamps, self._shapes.get, os.read, self._now, self._size
        arrival = select.EPOLLIN
        for handle, event in self._ready:
            take_moment = stamps[handle]
            if take_moment is None or event != arrival:
                self._read_on(handle, event, size)
                continue
            try:
                data = read(handle, size)
            except OSError as error:
                self._fail(handle, error)
                continue
            moment = now()
            shape = shape_of(len(data))
            if shape is not None:
                front, opening, place, key, at, back, ending, middle = shape
                if data[front] == opening and data[place] == key and data[back] == ending and data[at] != QUOTE:
                    between = data[middle]
                    if LINE_FEED not in between and RETURN not in between:
                        take_moment(moment)
                        continue
            elif data.endswith(CHUNK_END) and (count := self._shapes.count(data)):
                for _ in range(count):
                    take_moment(moment)
                continue
            self._hand_over(handle, data, moment)
            if len(data) == size:
                self._read_on(handle, event, _LARGE_BYTES)

    def _read_on(self, handle: int, event: int, size: int) -> None:
        """One socket, until it is empty: a read that is not full has emptied it."""
        while handle in self._listeners:
            try:
                data = os.read(handle, size)
            except OSError as error:
                self._fail(handle, error)
                return
            self._hand_over(handle, data, self._now())
            if not event & _GONE and len(data) < size:
                return
            size = _LARGE_BYTES

    def _hand_over(self, handle: int, data: bytes, moment: float) -> None:
        if len(data) >= _SMALL_BYTES:
            self._saw_large = True
        if data:
            self._listeners[handle].take(data, moment)
        else:
            self._listeners[handle].connection_lost(None)

    def _fail(self, handle: int, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self._listeners[handle].connection_lost(error)
