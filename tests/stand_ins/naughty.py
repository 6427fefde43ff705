"""A server on loopback that answers well, or badly in a way that it is told."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from math import inf
from pathlib import Path

from stand_ins.patience import PATIENCE_S
from stand_ins.turns import take_in_what_came

TLS = Path(__file__).parents[1] / "data" / "tls"


def event(plain):
    body = b"data: " + json.dumps(plain, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(body), body)


def text(words, finish=None):
    choice = {"index": 0, "delta": {"content": words}, "logprobs": None, "finish_reason": finish}
    return event({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})


def usage(tokens, prompt=11):
    counts = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    return event({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [], "usage": counts})


STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-atoll-replica: 1\r\ntransfer-encoding: chunked\r\n\r\n"
)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def plain(status, body, kind="application/json", more=""):
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


class Naughty:
    """One thread, one loop. `manner` says how it answers; `asked` keeps the JSON bodies it got."""

    def __init__(self, *, tls=False):
        self.manner = "ok"
        self.gap_s = 0.001
        self.tokens = None  # None: as many as are asked for
        self.asked = []
        self.heads = []
        self.dripped = []
        self.said = []  # pieces of text of each streamed answer, in the order of options
        self.connections = 0
        self.told = {}  # how often each request of manner told_to_wait came
        self.odd = {}  # the usage of manner odd_usage
        self.page = ""  # of /metrics
        self._tls = tls
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _serve(self):
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        self._loop, self._end, self._let_go = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._talks = set()
        self._ready.set()
        await self._end.wait()
        await take_in_what_came()
        server.close()
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def let_go(self):
        """Whoever is held gets an answer."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    def close(self):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE_S)

    async def _talk(self, reader, writer):
        self._talks.add(asyncio.current_task())
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
                )
                body = await reader.readexactly(length)
                self.heads.append(head)
                if head.startswith("GET /metrics"):
                    writer.write(
                        plain("200 OK" if self.page else "404 Not Found", self.page.encode(), kind="text/plain")
                    )
                    continue
                if head.startswith("GET"):
                    writer.write(plain("200 OK", json.dumps({"data": [{"id": "the-model"}]}).encode()))
                    continue
                ask = json.loads(body)
                self.asked.append(ask)
                if not await self._answer(ask, head, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            self._talks.discard(asyncio.current_task())
            writer.close()

    async def _answer(self, ask, head, writer):
        """Says whether the connection stays open."""
        return await getattr(self, f"_{self.manner}")(ask, head, writer)

    async def _ok(self, ask, _head, writer):
        tokens = self.tokens or ask["max_tokens"]
        if not ask.get("stream"):
            answer = {
                "choices": [{"message": {"content": "x"}, "finish_reason": "length"}],
                "usage": {"completion_tokens": tokens},
            }
            writer.write(plain("200 OK", json.dumps(answer).encode()))
            return True
        writer.write(STREAM + text(""))
        place = len(self.said)
        self.said.append(0)
        for number in range(tokens):
            await asyncio.sleep(self.gap_s)
            writer.write(text(f" w{number}", "length" if number == tokens - 1 else None))
            self.said[place] += 1
        writer.write(usage(tokens) + DONE)
        return True

    async def _close_after_answer(self, ask, head, writer):
        """The answer does not say that the connection ends with it."""
        await self._ok(ask, head, writer)
        return False

    async def _odd_usage(self, _ask, _head, writer):
        """A usage that cannot be, of `odd`; the answer is two chunks."""
        writer.write(STREAM + text(" a") + text(" b", "stop"))
        writer.write(event({"choices": [], "usage": self.odd}) + DONE)
        return True

    async def _no_usage(self, ask, _head, writer):
        writer.write(STREAM + text(" a") + text(" b", "stop") + DONE)
        return True

    async def _other_endpoints(self, ask, head, writer):
        """As OpenAI's responses and embeddings, and vLLM's rerank and score."""
        path = head.split(" ")[1]
        if path == "/v1/responses":
            for kind, more in (
                ("response.created", {"response": {"status": "in_progress", "usage": None}}),
                ("response.output_text.delta", {"delta": " a"}),
                ("response.output_text.delta", {"delta": " b"}),
                ("response.completed", {"response": {"usage": {"input_tokens": 8, "output_tokens": 4}}}),
            ):
                body = f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()
                writer.write(STREAM if kind == "response.created" else b"")
                writer.write(b"%x\r\n%s\r\n" % (len(body), body))
                await asyncio.sleep(self.gap_s)
            writer.write(b"0\r\n\r\n")
            return True
        held = "results" if path == "/v1/rerank" else "data"
        answer = {held: [{"index": 0}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}
        writer.write(plain("200 OK", json.dumps(answer).encode()))
        return True

    async def _failed_response(self, _ask, _head, writer):
        failed = {"type": "response.failed", "response": {"error": {"message": "the engine is dead"}}}
        writer.write(STREAM + event(failed) + b"0\r\n\r\n")
        return True

    async def _told_to_wait(self, ask, head, writer):
        """Whoever comes for the first time."""
        words = next((line for line in head.split("\r\n") if line.startswith("X-Request-Id")), "the probe")
        self.told[words] = self.told.get(words, 0) + 1
        if self.told[words] > 1:
            return await self._ok(ask, head, writer)
        writer.write(plain("429 Too Many Requests", b'{"error": "busy"}', more="retry-after: 0.01\r\n"))
        return True

    async def _busy_at_first(self, ask, head, writer):
        return await (self._busy if len(self.asked) <= 2 else self._ok)(ask, head, writer)

    async def _busy(self, _ask, _head, writer):
        said = {"error": {"message": "the server is overloaded", "type": "ServiceUnavailable", "code": 503}}
        writer.write(plain("503 Service Unavailable", json.dumps(said).encode()))
        return True

    async def _bad_request(self, _ask, _head, writer):
        said = {"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}}
        writer.write(plain("400 Bad Request", json.dumps(said).encode()))
        return True

    async def _reset(self, _ask, _head, writer):
        plain_socket = writer.get_extra_info("socket")
        plain_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()
        return False

    async def _reset_midway(self, ask, head, writer):
        writer.write(STREAM + text(" a"))
        await writer.drain()
        await asyncio.sleep(0.02)
        return await self._reset(ask, head, writer)

    async def _close(self, _ask, _head, _writer):
        return False

    async def _cut(self, _ask, _head, writer):
        writer.write(STREAM + text(" a") + text(" b"))
        await writer.drain()
        return False

    async def _no_finish(self, _ask, _head, writer):
        writer.write(STREAM + text(" a") + text(" b") + b"0\r\n\r\n")
        return True

    async def _malformed(self, _ask, _head, writer):
        writer.write(STREAM + text(" a") + b"d\r\ndata: {nope\n\n\r\n" + DONE)
        return True

    async def _engine_error(self, _ask, _head, writer):
        writer.write(STREAM + text(" a") + event({"error": {"message": "EngineDeadError", "code": 500}}) + DONE)
        return True

    async def _stall(self, _ask, _head, writer):
        writer.write(STREAM + text(" a"))
        await asyncio.Event().wait()

    async def _mute(self, _ask, _head, _writer):
        await asyncio.Event().wait()

    async def _held(self, ask, head, writer):
        await self._let_go.wait()
        return await self._ok(ask, head, writer)

    async def _drip(self, _ask, _head, writer):
        """Bytes without end, that are no text yet. `dripped` counts them, answer by answer."""
        writer.write(STREAM + text(" a"))
        place = len(self.dripped)
        self.dripped.append(0)
        writer.write(b"1\r\nd\r\n")
        while not writer.transport.is_closing():
            writer.write(b"1\r\n:\r\n")
            self.dripped[place] += 1
            await asyncio.sleep(0.001)
        self.dripped[place] = inf
        return False

    async def _loop_redirect(self, _ask, head, writer):
        there = "/v1/b" if " /v1/a" in head else "/v1/a"
        writer.write(plain("307 Temporary Redirect", b"", more=f"location: {there}\r\n"))
        return True

    async def _redirect_once(self, ask, head, writer):
        if " /elsewhere" in head:
            return await self._ok(ask, head, writer)
        writer.write(plain("307 Temporary Redirect", b"", more="location: /elsewhere\r\n"))
        return True

    async def _redirect_away(self, _ask, _head, writer):
        writer.write(plain("308 Permanent Redirect", b"", more="location: http://example.invalid/v1\r\n"))
        return True

    async def _web_page(self, _ask, _head, writer):
        writer.write(plain("200 OK", b"<html>Welcome</html>", kind="text/html"))
        return True

    async def _no_choices(self, _ask, _head, writer):
        writer.write(plain("200 OK", json.dumps({"object": "chat.completion", "id": "c"}).encode()))
        return True

    async def _gigantic(self, _ask, _head, writer):
        writer.write(STREAM + text(" a"))
        for _ in range(10):
            writer.write(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
            await writer.drain()
        return False

    async def _other_protocol(self, _ask, _head, writer):
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        await asyncio.sleep(0.2)
        return False


@contextlib.contextmanager
def full_backlog():
    """A port of loopback that listens and has no room left: further connections neither open nor fail."""
    with contextlib.ExitStack() as open_:
        listener = open_.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = open_.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
