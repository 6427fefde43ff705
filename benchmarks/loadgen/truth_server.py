"""A server that knows the truth: OpenAI-shaped streams of a given TTFT and ITL, and what they really were.

Every stream is paced by one timer wheel of 1 ms. For each request the server notes when its last byte came, when each
chunk was handed to the socket, and how many streams were open meanwhile. `GET /truth` gives the sums; `GET /reset`
forgets them.

    python truth_server.py --port 9000 --ttft 0.2 --itl 0.02 --tokens 50 --core 0
"""

import argparse
import asyncio
import gc
import json
import os
import resource
import socket
import sys
import time
from array import array

import httptools
import uvloop

NAME = "truth"
_ID = "chatcmpl-0123456789abcdef0123456789abcdef"
now = time.monotonic


def _frame(payload: bytes) -> bytes:
    body = b"data: " + payload + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(body), body)


def _chunk(delta: str, finish: str) -> bytes:
    return _frame(
        (
            f'{{"id":"{_ID}","object":"chat.completion.chunk","created":1700000000,"model":"{NAME}","choices":'
            f'[{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}]}}'
        ).encode()
    )


def _text_chunk(delta: str, finish: str) -> bytes:
    return _frame(
        (
            f'{{"id":"{_ID}","object":"text_completion","created":1700000000,"model":"{NAME}","choices":'
            f'[{{"index":0,"text":"{delta}","logprobs":null,"finish_reason":{finish}}}]}}'
        ).encode()
    )


HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: truth\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
ROLE = _chunk('"role":"assistant","content":""', "null")
TEXT = _chunk('"content":" word"', "null")
LAST = _chunk('"content":" word"', '"length"')
TEXT_PLAIN = _text_chunk(" word", "null")
LAST_PLAIN = _text_chunk(" word", '"length"')


def _usage(prompt: int, tokens: int, kind: str) -> bytes:
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}
    plain = {"id": _ID, "object": kind, "created": 1700000000, "model": NAME, "choices": [], "usage": usage}
    return _frame(json.dumps(plain, separators=(",", ":")).encode()) + _frame(b"[DONE]") + b"0\r\n\r\n"


class Truth:
    """What happened, in the server's own words."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.ttft, self.itl, self.tokens = args.ttft, args.itl, args.tokens
        self.wheel: dict[int, list[Stream]] = {}
        self.tick = int(now() * 1000)
        self.forget()

    def forget(self) -> None:
        self.firsts = array("d")  # last byte of the request in -> first text out
        self.gaps_sum = 0.0
        self.gaps = 0
        self.began = array("d")
        self.ended = array("d")
        self.chunks = 0
        self.connections = 0
        self.late = array("d")

    def later(self, due: float, stream: "Stream") -> None:
        self.wheel.setdefault(max(int(due * 1000) + 1, self.tick + 1), []).append(stream)

    def turn(self) -> None:
        """Serve every slot of the wheel that is due."""
        upto = int(now() * 1000)
        while self.tick < upto:
            self.tick += 1
            for stream in self.wheel.pop(self.tick, ()):
                if stream.left:  # else its client has gone
                    stream.step()

    def report(self) -> dict[str, object]:
        open_s = sum(self.ended) - sum(self.began[: len(self.ended)])
        return {
            "requests": len(self.ended),
            "chunks": self.chunks,
            "connections": self.connections,
            "ttft": list(self.firsts),
            "itl_mean": self.gaps_sum / self.gaps if self.gaps else None,
            "began": list(self.began),
            "ended": list(self.ended),
            "open_s": open_s,
            "cpu_s": time.process_time(),
        }


class Stream:
    """One answer under way."""

    __slots__ = ("arrived", "due", "index", "last", "left", "plain", "prompt", "protocol", "tokens", "truth")

    def __init__(self, truth: Truth, protocol: "Protocol", *, plain: bool, prompt: int, tokens: int) -> None:
        self.truth, self.protocol, self.plain, self.prompt = truth, protocol, plain, prompt
        self.arrived = self.last = now()
        self.tokens = self.left = tokens
        self.index = len(truth.began)
        truth.began.append(self.arrived)
        self.due = self.arrived + truth.ttft
        if truth.ttft <= 0 and truth.itl <= 0:
            self.flood()
        else:
            truth.later(self.due, self)

    def step(self) -> None:
        truth, write = self.truth, self.protocol.transport.write
        moment = now()
        first = self.left == self.tokens
        if first:
            truth.firsts.append(moment - self.arrived)
        else:
            truth.gaps_sum += moment - self.last
            truth.gaps += 1
        self.last = moment
        self.left -= 1
        truth.chunks += 1
        text, last = (TEXT_PLAIN, LAST_PLAIN) if self.plain else (TEXT, LAST)
        data = text if self.left else last
        if first:
            data = HEAD + (b"" if self.plain else ROLE) + data
        if self.left:
            write(data)
            self.due += truth.itl
            truth.later(self.due, self)
        else:
            kind = "text_completion" if self.plain else "chat.completion.chunk"
            write(data + _usage(self.prompt, self.tokens, kind))
            self.end()

    def flood(self) -> None:
        """TTFT 0 and ITL 0: the whole answer at once, one write a chunk as an engine would."""
        truth, write = self.truth, self.protocol.transport.write
        text, last = (TEXT_PLAIN, LAST_PLAIN) if self.plain else (TEXT, LAST)
        truth.firsts.append(now() - self.arrived)
        write(HEAD + (b"" if self.plain else ROLE))
        for _ in range(self.tokens - 1):
            write(text)
        write(last + _usage(self.prompt, self.tokens, "text_completion" if self.plain else "chat.completion.chunk"))
        truth.chunks += self.tokens
        self.left = 0
        self.end()

    def end(self) -> None:
        self.truth.ended.append(now())
        self.protocol.stream = None


class Protocol(asyncio.Protocol):
    """HTTP/1.1 with keep-alive."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.stream: Stream | None = None
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 20)
        self.truth.connections += 1

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url, self.body = b"", b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        path = self.url.decode()
        if path.endswith("/completions"):
            self._complete(path)
        elif path == "/truth":
            self._json(self.truth.report())
        elif path == "/reset":
            self.truth.forget()
            gc.collect()
            self._json({})
        elif path.endswith("/models"):
            self._json({"object": "list", "data": [{"id": NAME, "object": "model"}]})
        else:
            self._json({}, b"200 OK" if path == "/health" else b"404 Not Found")

    def _complete(self, path: str) -> None:
        ask = json.loads(self.body) if b'"max_' in self.body else {}
        tokens = ask.get("max_tokens") or ask.get("max_completion_tokens") or self.truth.tokens
        plain = not path.endswith("/chat/completions")
        stream = Stream(self.truth, self, plain=plain, prompt=len(self.body) // 5, tokens=tokens)
        self.stream = stream if stream.left else None

    def _json(self, plain: object, status: bytes = b"200 OK") -> None:
        body = json.dumps(plain).encode()
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        self.transport.write(head + body)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.stream is not None:
            self.stream.left = 0
            self.stream.end()


async def serve(args: argparse.Namespace) -> None:
    truth = Truth(args)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", args.port))
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(truth), sock=listener, backlog=4096)
    print(f"truth server on {listener.getsockname()[1]}", flush=True)
    gc.freeze()
    gc.disable()
    async with server:
        while True:
            truth.turn()
            await asyncio.sleep(0.001)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, default=9000)
    options.add_argument("--ttft", type=float, default=0.2)
    options.add_argument("--itl", type=float, default=0.02)
    options.add_argument("--tokens", type=int, default=50)
    options.add_argument("--core", type=int)
    args = options.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        uvloop.run(serve(args))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
