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
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from atoll.load.shapes import CHUNK_END, LINE_FEED, LONGEST_SHAPE, QUOTE, RETURN, Shapes

_SMALL_BYTES = LONGEST_SHAPE
_LARGE_BYTES = 65536
_MOST_READY = 1024
_LOOK_EVERY = 64  # handings-over, of 20 to 150 us each
_MOST_AT_ONCE = 512  # then the loop's timers have their turn
_MOST_WAITING = 256  # then reading stops: what is left in a socket is read in one piece, later and for less
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
        self._ready: Iterator[tuple[int, int]] = iter(())  # told of and not yet read
        self._all_read = True
        self._waiting: deque[tuple[int, Listener, bytes | OSError, float]] = deque()  # read, not yet handed over
        self._saw_large = False
        self._behind: list[int] = []  # by handle, how much of it waits: what comes then is no mere stamp

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
        self._behind += [0] * (handle + 1 - len(self._behind))
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
        """Read all that has come, as the loop asks for when there is something.

        Everything is read and stamped first and handed over afterwards: what is done with an answer, such as sending
        the next request, takes ten times as long as a read, and what came meanwhile would get too late a stamp. For
        the same reason there is another look at what has come after every few that were handed over. With much to hand
        over the rest stays in its sockets, where it becomes fewer and longer reads.
        """
        self._gather()
        handed = 0
        try:
            while self._waiting:
                handle, listener, data, moment = self._waiting.popleft()
                self._behind[handle] -= 1
                if self._listeners.get(handle) is listener:
                    self._hand_over(listener, data, moment)
                handed += 1
                if handed == _MOST_AT_ONCE:
                    break
                if (not handed % _LOOK_EVERY and self._waiting) or not (self._waiting or self._all_read):
                    self._gather()
        except BaseException:  # a listener failed; the others' arrivals are not told of again
            asyncio.get_running_loop().call_soon(self.drain)
            raise
        if self._waiting or not self._all_read:  # the loop has timers as well
            asyncio.get_running_loop().call_soon(self.drain)

    def _hand_over(self, listener: Listener, data: bytes | OSError, moment: float) -> None:
        if isinstance(data, OSError):
            listener.connection_lost(data)
        elif data:
            listener.take(data, moment)
        else:
            listener.connection_lost(None)

    def _gather(self) -> None:
        """Read every socket that is ready. The comparisons are those of Shapes.find."""
        stamps, shape_of, read, now, behind = self._stamps, self._shapes.get, os.read, self._now, self._behind
        size = _LARGE_BYTES if self._saw_large else _SMALL_BYTES
        self._saw_large = False
        arrival = select.EPOLLIN
        self._ready = iter([*self._ready, *self._epoll.poll(0, _MOST_READY)])
        self._all_read = False
        for handle, event in self._ready:
            take_moment = stamps[handle]
            if take_moment is None or event != arrival or behind[handle] > 0:
                self._read_on(handle, event, size)
                if len(self._waiting) >= _MOST_WAITING:
                    return
                continue
            try:
                data = read(handle, size)
            except OSError as error:
                self._put_off(handle, error, now())
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
            self._put_off(handle, data, moment)
            if len(data) == size:
                self._read_on(handle, event, _LARGE_BYTES)
            if len(self._waiting) >= _MOST_WAITING:
                return
        self._all_read = True

    def _read_on(self, handle: int, event: int, size: int) -> None:
        """One socket, until it is empty: a read that is not full has emptied it."""
        while handle in self._listeners:
            try:
                data = os.read(handle, size)
            except OSError as error:
                self._put_off(handle, error, self._now())
                return
            self._put_off(handle, data, self._now())
            if not data or (not event & _GONE and len(data) < size):
                return
            size = _LARGE_BYTES

    def _put_off(self, handle: int, data: bytes | OSError, moment: float) -> None:
        """For its listener, in its turn; what comes behind it waits too, so that the order stays (see _behind)."""
        if isinstance(data, BlockingIOError):
            return
        if isinstance(data, bytes) and len(data) >= _SMALL_BYTES:
            self._saw_large = True
        self._behind[handle] += 1
        self._waiting.append((handle, self._listeners[handle], data, moment))
