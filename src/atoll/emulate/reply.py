"""An answer under way: told by the engine that tokens are there, it writes them to its connection.

One write a stream a step: thousands of streams have to fit on one core.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from atoll.emulate.ask import Ask
from atoll.emulate.wire import ring_bytes
from atoll.emulate.words import RING

_RING = ring_bytes()
_MASK = RING - 1


class Wire(Protocol):
    """The bytes of one choice. Where it is `plain`, a delta is `head`, the token and `tail`."""

    ask: Ask
    head: bytes
    tail: bytes

    @property
    def plain(self) -> bool: ...
    def opening(self) -> bytes: ...
    def delta(self, first: int, stop: int) -> bytes: ...
    def last(self, first: int, stop: int) -> bytes: ...


class Form(Protocol):
    """The bytes of a whole answer: what stands behind its choices in a stream, or the one document."""

    @property
    def wires(self) -> Sequence[Wire]: ...
    def ending(self, *, tokens: int, cached: int) -> bytes: ...
    def body(self, *, tokens: int, cached: int) -> bytes: ...


class Line(Protocol):
    """The connection, as its answer sees it."""

    paused: bool

    def write(self, data: bytes) -> None: ...
    def send_json(self, status: int, body: bytes) -> None: ...
    def on_answered(self) -> None: ...


class Reply:
    """All choices of one request."""

    __slots__ = ("_cached", "_form", "_left", "_line", "_live", "_opened", "_tokens", "streams")

    def __init__(self, line: Line, form: Form, *, live: bool) -> None:
        self._line = line
        self._form = form
        self._live = live
        self.streams = [Stream(line, wire, self, live=live) for wire in form.wires]
        self._left = len(self.streams)
        self._opened = False
        self._tokens = 0
        self._cached = 0

    def opening(self) -> bytes:
        """What stands before the first token of any choice, once."""
        if self._opened:
            return b""
        self._opened = True
        return b"".join(stream.wire.opening() for stream in self.streams)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def on_choice(self, last: Callable[[], bytes], *, index: int, tokens: int, cached: int) -> None:
        """A choice is complete; `last` makes its last chunk."""
        self._left -= 1
        self._tokens += tokens
        if index == 0:
            self._cached = cached
        if self._live:
            said = self.opening() + last()
            ending = b"" if self._left else self._form.ending(tokens=self._tokens, cached=self._cached)
            self._line.write(said + ending)
        elif not self._left:
            self._line.send_json(200, self._form.body(tokens=self._tokens, cached=self._cached))
        if not self._left:
            self._line.on_answered()


class Stream:
    """One choice."""

    __slots__ = ("_line", "_live", "_place", "_plain", "_reply", "_told", "_write", "tokens", "wire")

    def __init__(self, line: Line, wire: Wire, reply: Reply, *, live: bool) -> None:
        self.wire = wire
        self.tokens = 0
        self._line = line
        self._reply = reply
        self._write = line.write
        self._place = wire.ask.start
        self._told = 0
        self._live = live
        self._plain = live and wire.plain

    def on_token(self) -> None:
        """One more token, not the last."""
        place = self.tokens
        self.tokens = place + 1
        if self._plain and place and not self._line.paused and self._told == place:
            self._told = place + 1
            self._write(self.wire.head + _RING[(self._place + place) & _MASK] + self.wire.tail)
        elif self._live and not self._line.paused:
            self.flush()

    def flush(self) -> None:
        """Write what was generated since the last write as one chunk, as vLLM merges deltas for a slow reader."""
        if not self._live or self._told >= self.tokens:
            return
        first, self._told = self._told, self.tokens
        self._write(self._reply.opening() + self.wire.delta(first, self.tokens))

    def on_finish(self, cached_tokens: int) -> None:
        """The last token is there, and with it this choice."""
        self.tokens += 1
        first, self._told = self._told, self.tokens
        self._reply.on_choice(
            lambda: self.wire.last(first, self.tokens),
            index=self.wire.ask.index,
            tokens=self.tokens,
            cached=cached_tokens,
        )
