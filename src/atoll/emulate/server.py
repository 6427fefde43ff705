"""HTTP/1.1 of one emulated replica: a bare asyncio protocol over httptools, with one write a stream a step.

A web framework costs about as much a chunk as everything else here together, and thousands of streams have to fit on
one core; so requests are parsed by llhttp and answers are bytes made in advance (emulate/wire.py).
"""

import asyncio
import secrets
from collections import deque
from http import HTTPStatus
from typing import Any, cast

import httptools

from atoll.emulate.orca import LOAD_FORMAT, load_header
from atoll.emulate.refusal import Refusal, queue_full, unauthorized
from atoll.emulate.reply import Form, Reply
from atoll.emulate.routes import Received, find_route, knows_path
from atoll.emulate.site import Site
from atoll.load.target import EMULATED_HEADER

LARGEST_BODY = 64 * 2**20
LARGEST_HEAD = 64 * 2**10  # of a request's line and headers together, as uvicorn's h11
MOST_WAITING = 64  # requests of one connection behind a running answer; then it is not read from


class Connection(asyncio.Protocol):
    """One client's connection; requests are served one after the other."""

    def __init__(self, site: Site) -> None:
        self.paused = False
        self.site = site
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Received] = deque()
        self._receiving = Received()
        self._current: Received | None = None
        self._jobs: list[Any] = []
        self._reply: Reply | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._serving = False
        self._reading_paused = False

    # What the event loop tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self.site.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.site.connections.discard(self)
        self._transport = None
        self._cancel_idle()
        if self._reply is not None:
            self.site.load -= 1
        for job in self._jobs:
            self.site.engine.abort(job)
        self._jobs, self._reply = [], None

    def data_received(self, data: bytes) -> None:
        self._cancel_idle()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse_and_close("Upgrades are not served.")
        except httptools.HttpParserError:
            self._refuse_and_close("Invalid HTTP request received.")

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._reply is not None:
            self._reply.flush()

    # What the parser tells us

    def on_url(self, url: bytes) -> None:
        self._receiving.url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        self._receiving.headers[name.lower().decode("latin-1")] = value.decode("latin-1")

    def _count_head(self, size: int) -> None:
        self._receiving.head_size += size
        if self._receiving.head_size > LARGEST_HEAD:
            raise ValueError("the head is too large")  # llhttp stops there, and data_received answers

    def on_headers_complete(self) -> None:
        received = self._receiving
        received.method = self._parser.get_method().decode("latin-1")
        received.http_1_1 = self._parser.get_http_version() != "1.0"
        received.keep_alive = self._parser.should_keep_alive()
        if received.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._receiving.parts.append(body)
        self._receiving.size += len(body)
        if self._receiving.size > LARGEST_BODY:
            self._refuse_and_close("The body is larger than 64 MiB.")

    def on_message_complete(self) -> None:
        self._waiting.append(self._receiving)
        self._receiving = Received()
        if self._current is None:
            self._serve_next()
        else:
            self._read_on()

    # Serving

    def _serve_next(self) -> None:
        """Serve what waits, one after the other; the loop goes on where an answer is complete at once."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._waiting and self._current is None and self._transport is not None:
                self._current = self._waiting.popleft()
                try:
                    self._serve(self._current)
                except Refusal as refusal:
                    allow = f"allow: {refusal.allow}\r\n" if refusal.allow else ""
                    self._send(refusal.status, refusal.body(), "application/json", more=allow)
                    self.on_answered()
        finally:
            self._serving = False
        self._read_on()

    def _read_on(self) -> None:
        """A client that sends requests ahead waits for its answers, rather than we for our memory."""
        full = len(self._waiting) > MOST_WAITING
        if self._transport is not None and full is not self._reading_paused:
            self._reading_paused = full
            (self._transport.pause_reading if full else self._transport.resume_reading)()

    def _serve(self, received: Received) -> None:
        site = self.site
        try:
            received.path = (httptools.parse_url(received.url).path or b"").decode("latin-1")
        except httptools.HttpParserInvalidURLError:
            raise Refusal(400, "Invalid HTTP request received.", "Bad Request") from None
        if received.method == "OPTIONS":
            if "origin" in received.headers and "access-control-request-method" in received.headers:
                self._send(400, b"Disallowed CORS origin", "text/plain; charset=utf-8")
                self.on_answered()
                return
        elif not site.allows(received.path.removeprefix(site.served.root_path), received.headers.get("authorization")):
            raise unauthorized()
        root = site.served.root_path
        if root and received.path.startswith(f"{root}/"):
            received.path = received.path.removeprefix(root)
        stripped = received.path.rstrip("/")
        if stripped != received.path and knows_path(site, stripped):
            where = f"http://{received.headers.get('host', '')}{stripped}"
            self._send(307, b"", more=f"location: {where}\r\n")
            self.on_answered()
            return
        find_route(site, received)(self, received)

    # What routes use

    def answer(self, status: int, body: bytes, content_type: str | None = None) -> None:
        """The whole answer, now."""
        self._send(status, body, content_type)
        self.on_answered()

    def generate(self, form: Form, *, stream: bool) -> None:
        """The engine gives the answer, token by token.

        Raises:
            Refusal: the queue is full.
        """
        reply = Reply(self, form, live=stream)
        engine = self.site.engine
        for one in reply.streams:
            job = None if self.site.closing else engine.submit(one.wire.ask, one)
            if job is None:
                for earlier in self._jobs:
                    engine.abort(earlier)
                self._jobs = []
                raise queue_full()
            self._jobs.append(job)
        self._reply = reply
        self.site.load += 1
        if stream:  # as under vLLM, the headers leave when the request is admitted, not with the first token
            self._start_stream()

    def _start_stream(self) -> None:
        framing = "transfer-encoding: chunked\r\n"
        if self._current is not None and not self._current.http_1_1:
            framing = "connection: close\r\n"
        self.write(
            f"HTTP/1.1 200 OK\r\n{self._common_headers()}content-type: text/event-stream; charset=utf-8\r\n"
            f"{framing}\r\n".encode("latin-1")
        )

    # Answering

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def send_json(self, status: int, body: bytes) -> None:
        asked = self._current.headers.get(LOAD_FORMAT) if self._current is not None else None
        self._send(status, body, "application/json", more=load_header(asked, self.site.engine) if asked else "")

    def _send(self, status: int, body: bytes, content_type: str | None = None, *, more: str = "") -> None:
        kind = f"content-type: {content_type}\r\n" if content_type else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{self._common_headers()}"
            f"content-length: {len(body)}\r\n{kind}{more}"
        )
        if self._current is not None and not self._current.keep_alive:
            head += "connection: close\r\n"
        if self._current is not None and self._current.method == "HEAD":
            body = b""
        self.write(f"{head}\r\n".encode("latin-1") + body)

    def _common_headers(self) -> str:
        echo = ""
        if self.site.served.request_id_headers and self._current is not None:
            echo = f"x-request-id: {self._current.headers.get('x-request-id') or secrets.token_hex(16)}\r\n"
        return f"date: {self.site.date()}\r\nserver: atoll-emulate\r\n{EMULATED_HEADER}: 1\r\n{echo}"

    def on_answered(self) -> None:
        """The current answer is complete: go on with the next request, or wait for it, or close."""
        received, self._current = self._current, None
        if self._reply is not None:
            self.site.load -= 1
        self._jobs, self._reply = [], None
        stays = received is not None and received.keep_alive and not self.site.closing
        if self._transport is None:
            return
        if not stays:
            self._transport.close()
        elif self._waiting:
            self._serve_next()
        else:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self.site.keep_alive_s, self.close_if_idle)

    def close_if_idle(self) -> None:
        if self._current is None and self._transport is not None:
            self._transport.close()

    def abandon(self) -> None:
        """Break the answer off: the server stops."""
        if self._transport is not None:
            self._transport.abort()

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _refuse_and_close(self, words: str) -> None:
        body = words.encode()
        self.write(
            f"HTTP/1.1 400 Bad Request\r\n{self._common_headers()}content-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode("latin-1")
            + body
        )
        if self._transport is not None:
            self._transport.close()
