"""The OpenAI routes of one emulated replica: a bare asyncio protocol over httptools, with one write a stream a step.

A web framework costs about as much a chunk as everything else here together, and thousands of streams have to fit on
one core; so requests are parsed by llhttp and answers are bytes made in advance (emulate/wire.py).
"""

import asyncio
import hashlib
import json
import secrets
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

import httptools

from atoll.emulate.ask import Served, parse_ask
from atoll.emulate.engine import EmulatedEngine
from atoll.emulate.metrics import show_metrics
from atoll.emulate.refusal import Refusal, not_found, queue_full, unauthorized, wrong_method
from atoll.emulate.wire import AnswerWire, ring_bytes
from atoll.emulate.words import RING
from atoll.layout.layout import ENGINE_VERSION
from atoll.load.target import EMULATED_HEADER
from atoll.outside.clock import Clock

KEEP_ALIVE_S = 5.0  # vLLM: VLLM_HTTP_TIMEOUT_KEEP_ALIVE
LARGEST_BODY = 64 * 2**20
LARGEST_HEAD = 64 * 2**10  # of a request's line and headers together, as uvicorn's h11
MOST_WAITING = 64  # requests of one connection behind a running answer; then it is not read from
_RING = ring_bytes()
_MASK = RING - 1


@dataclass(kw_only=True)
class Site:
    """What all connections of a server share."""

    served: Served
    engine: EmulatedEngine
    clock: Clock
    version: str = ENGINE_VERSION
    fingerprint: str = "emulated"
    api_key: str | None = None
    keep_alive_s: float = KEEP_ALIVE_S
    started: int = 0  # seconds since 1970, shown as the model's `created`
    closing: bool = False
    connections: set["Connection"] = field(default_factory=set)

    def allows(self, authorization: str | None) -> bool:
        """Compare the bearer token in constant time, as vLLM's middleware does."""
        if self.api_key is None:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        return secrets.compare_digest(hashlib.sha256(token.encode()).digest(), self._key_digest)

    @property
    def _key_digest(self) -> bytes:
        return hashlib.sha256((self.api_key or "").encode()).digest()


class Stream:
    """One answer under way: told by the engine that tokens are there, it writes them to its connection."""

    __slots__ = ("_connection", "_live", "_place", "_plain", "_told", "_write", "tokens", "wire")

    def __init__(self, connection: "Connection", wire: AnswerWire) -> None:
        ask = wire.ask
        self.wire = wire
        self.tokens = 0
        self._connection = connection
        self._write = connection.write
        self._place = ask.start
        self._told = 0
        self._live = ask.stream
        self._plain = ask.stream and ask.text is None and not ask.continuous_usage

    def on_token(self) -> None:
        """One more token, not the last."""
        place = self.tokens
        self.tokens = place + 1
        if self._plain and place and not self._connection.paused and self._told == place:
            self._told = place + 1
            self._write(self.wire.head + _RING[(self._place + place) & _MASK] + self.wire.tail)
        elif self._live and not self._connection.paused:
            self.flush()

    def flush(self) -> None:
        """Write what was generated since the last write as one chunk, as vLLM merges deltas for a slow reader."""
        if not self._live or self._told == self.tokens:
            return
        opening = self.wire.opening() if self._told == 0 else b""
        text = self.wire.text(self._told, self.tokens)
        self._told = self.tokens
        self._write(opening + self.wire.delta(text, self.tokens))

    def on_finish(self, cached_tokens: int) -> None:
        """The last token is there, and with it the answer."""
        self.wire.cached_tokens = cached_tokens
        self.tokens += 1
        if self._live:
            opening = self.wire.opening() if self._told == 0 else b""
            rest = self.wire.text(self._told, self.tokens, final=True)
            self._write(opening + self.wire.closing(rest, self.tokens))
        else:
            self._connection.send_json(200, self.wire.body(self.tokens))
        self._connection.on_answered()


class Connection(asyncio.Protocol):
    """One client's connection; requests are served one after the other."""

    def __init__(self, site: Site) -> None:
        self.paused = False
        self._site = site
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[_Received] = deque()
        self._receiving = _Received()
        self._current: _Received | None = None
        self._job: Any = None
        self._stream: Stream | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._serving = False
        self._reading_paused = False

    # What the event loop tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._site.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._site.connections.discard(self)
        self._transport = None
        self._cancel_idle()
        if self._job is not None:
            self._site.engine.abort(self._job)
            self._job = self._stream = None

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
        if self._stream is not None:
            self._stream.flush()

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
        self._receiving.body.append(body)
        self._receiving.size += len(body)
        if self._receiving.size > LARGEST_BODY:
            self._refuse_and_close("The body is larger than 64 MiB.")

    def on_message_complete(self) -> None:
        self._waiting.append(self._receiving)
        self._receiving = _Received()
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
                    self._send(refusal.status, refusal.body(), "application/json", allow=refusal.allow)
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

    def _serve(self, received: "_Received") -> None:
        try:
            path = (httptools.parse_url(received.url).path or b"").decode("latin-1")
        except httptools.HttpParserInvalidURLError:
            raise Refusal(400, "Invalid HTTP request received.", "Bad Request") from None
        if path.startswith("/v1") and not self._site.allows(received.headers.get("authorization")):
            raise unauthorized()
        route = _ROUTES.get(path)
        if route is None:
            raise not_found()
        method, serve = route
        if received.method != method and (method, received.method) != ("GET", "HEAD"):
            raise wrong_method(method)
        getattr(self, serve)(received)

    def serve_health(self, _: "_Received") -> None:
        self._send(200, b"")
        self.on_answered()

    def serve_version(self, _: "_Received") -> None:
        self.send_json(200, json.dumps({"version": self._site.version}, separators=(",", ":")).encode())
        self.on_answered()

    def serve_models(self, _: "_Received") -> None:
        site = self._site
        card = {
            "id": site.served.model,
            "object": "model",
            "created": site.started,
            "owned_by": "vllm",
            "root": site.served.root,
            "parent": None,
            "max_model_len": site.served.max_model_len,
            "permission": [_permission(site.started)],
        }
        self.send_json(200, json.dumps({"object": "list", "data": [card]}, separators=(",", ":")).encode())
        self.on_answered()

    def serve_metrics(self, _: "_Received") -> None:
        engine = self._site.engine
        text = show_metrics(
            engine.meters,
            engine.gauges(),
            model=self._site.served.model,
            kv_blocks=engine.kv_blocks,
            block_tokens=engine.block_tokens,
        )
        self._send(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")
        self.on_answered()

    def serve_chat(self, received: "_Received") -> None:
        self._generate(received, chat=True)

    def serve_completion(self, received: "_Received") -> None:
        self._generate(received, chat=False)

    def _generate(self, received: "_Received", *, chat: bool) -> None:
        site = self._site
        if received.headers.get("content-type", "").lower().split(";")[0].strip() != "application/json":
            message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
            raise Refusal(400, message, "Bad Request")
        ask = parse_ask(b"".join(received.body), chat=chat, served=site.served)
        wire = AnswerWire(
            ask,
            request_id=received.headers.get("x-request-id") or secrets.token_hex(8),
            model=site.served.model,
            created=int(site.clock.wall()),
            fingerprint=site.fingerprint,
            chunked=received.http_1_1,
        )
        stream = Stream(self, wire)
        job = None if site.closing else site.engine.submit(ask, stream)
        if job is None:
            raise queue_full()
        self._job, self._stream = job, stream
        if ask.stream:  # as under vLLM, the headers leave when the request is admitted, not with the first token
            self._start_stream(received)

    def _start_stream(self, received: "_Received") -> None:
        framing = "transfer-encoding: chunked\r\n" if received.http_1_1 else "connection: close\r\n"
        self.write(
            f"HTTP/1.1 200 OK\r\n{self._common_headers()}content-type: text/event-stream; charset=utf-8\r\n"
            f"{framing}\r\n".encode("latin-1")
        )

    # Answering

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def send_json(self, status: int, body: bytes) -> None:
        self._send(status, body, "application/json")

    def _send(self, status: int, body: bytes, content_type: str | None = None, *, allow: str | None = None) -> None:
        kind = f"content-type: {content_type}\r\n" if content_type else ""
        kind += f"allow: {allow}\r\n" if allow else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{self._common_headers()}"
            f"content-length: {len(body)}\r\n{kind}"
        )
        if self._current is not None and not self._current.keep_alive:
            head += "connection: close\r\n"
        if self._current is not None and self._current.method == "HEAD":
            body = b""
        self.write(f"{head}\r\n".encode("latin-1") + body)

    def _common_headers(self) -> str:
        asked = self._current.headers.get("x-request-id") if self._current is not None else None
        echo = f"x-request-id: {asked}\r\n" if asked else ""
        date = formatdate(self._site.clock.wall(), usegmt=True)
        return f"date: {date}\r\nserver: atoll-emulate\r\n{EMULATED_HEADER}: 1\r\n{echo}"

    def on_answered(self) -> None:
        """The current answer is complete: go on with the next request, or wait for it, or close."""
        received, self._current = self._current, None
        self._job = self._stream = None
        stays = received is not None and received.keep_alive and not self._site.closing
        if self._transport is None:
            return
        if not stays:
            self._transport.close()
        elif self._waiting:
            self._serve_next()
        else:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._site.keep_alive_s, self.close_if_idle)

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


def _permission(created: int) -> dict[str, Any]:
    allowed = {"create_engine": False, "sampling": True, "logprobs": True, "search_indices": False, "view": True}
    return {
        "id": f"modelperm-{secrets.token_hex(8)}",
        "object": "model_permission",
        "created": created,
        **{f"allow_{what}": answer for what, answer in allowed.items()},
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }


class _Received:
    """A request as far as it has come in."""

    __slots__ = ("body", "head_size", "headers", "http_1_1", "keep_alive", "method", "size", "url")

    def __init__(self) -> None:
        self.url = b""
        self.method = ""
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.size = 0
        self.head_size = 0
        self.http_1_1 = True
        self.keep_alive = True


_ROUTES = {  # path -> method, and the method of Connection that serves it
    "/health": ("GET", "serve_health"),
    "/ping": ("GET", "serve_health"),
    "/version": ("GET", "serve_version"),
    "/metrics": ("GET", "serve_metrics"),
    "/v1/models": ("GET", "serve_models"),
    "/v1/chat/completions": ("POST", "serve_chat"),
    "/v1/completions": ("POST", "serve_completion"),
}
