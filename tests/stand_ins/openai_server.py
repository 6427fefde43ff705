"""An OpenAI-shaped server on loopback that misbehaves when asked to.

`Manners` says what goes wrong; without, every request gets `tokens` words, one a chunk.
"""

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Self

from stand_ins.patience import PATIENCE_S
from stand_ins.turns import take_in_what_came


@dataclass
class Manners:
    tokens: int = 5
    gap_s: float = 0.0
    fail_after: int | None = None  # so many requests are served, then 500
    refuse_with: int | None = None  # this status to everybody
    cut_after_chunks: int | None = None  # the connection is reset in the middle
    stall_after_chunks: int | None = None  # nothing more comes, the connection stays
    close_after: int | None = None  # so many requests are served, then nobody listens
    unhealthy: bool = False  # /health answers 503
    usage: bool = True
    headers: dict[str, str] = field(default_factory=dict)


class OpenAiServer:
    """Runs in a thread from `with OpenAiServer(Manners(...)) as server:`; `served` counts, `asked` keeps bodies."""

    def __init__(self, manners: Manners | None = None) -> None:
        self.manners = manners or Manners()
        self.asked: list[dict] = []
        self.served = 0
        self._ready = threading.Event()
        self._talks: dict[asyncio.Future[None], asyncio.StreamWriter] = {}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        await take_in_what_came()
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        for writer in self._talks.values():  # also where the talk was ended before it began
            writer.transport.abort()
        await take_in_what_came()

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._talks[asyncio.ensure_future(self._talk(reader, writer))] = writer

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and await self._answer(head.decode(), reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        manners, (method, path, _) = self.manners, head.split(" ", 2)
        length = next(
            (int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")), 0
        )
        body = await reader.readexactly(length)
        if method == "GET":
            self._plain(writer, 503 if manners.unhealthy and path == "/health" else 200, {"object": "list", "data": []})
            return True
        self.asked.append(json.loads(body))
        if manners.refuse_with or (manners.fail_after is not None and self.served >= manners.fail_after):
            status = manners.refuse_with or 500
            self._plain(
                writer, status, {"error": {"message": "as told", "type": "Told", "param": None, "code": status}}
            )
            return True
        self.served += 1
        if manners.close_after is not None and self.served >= manners.close_after:
            self._server.close()
        return await self._stream(writer)

    async def _stream(self, writer: asyncio.StreamWriter) -> bool:
        manners = self.manners
        extra = "".join(f"{name}: {value}\r\n" for name, value in manners.headers.items())
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{extra}transfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        self._event(writer, {"delta": {"role": "assistant", "content": ""}, "finish_reason": None})
        for place in range(manners.tokens):
            if place == manners.cut_after_chunks:
                writer.transport.abort()
                return False
            if place == manners.stall_after_chunks:
                await self._stop.wait()
            last = place == manners.tokens - 1
            self._event(writer, {"delta": {"content": " word"}, "finish_reason": "length" if last else None})
            await writer.drain()
            await asyncio.sleep(manners.gap_s)
        if manners.usage:
            usage = {"prompt_tokens": 3, "completion_tokens": manners.tokens, "total_tokens": 3 + manners.tokens}
            self._event(writer, None, usage=usage)
        self._chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _event(self, writer: asyncio.StreamWriter, choice: dict | None, **more: object) -> None:
        choices = [{"index": 0, "logprobs": None, **choice}] if choice else []
        plain = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
        self._chunk(writer, b"data: " + json.dumps(plain | more).encode() + b"\n\n")

    @staticmethod
    def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    @staticmethod
    def _plain(writer: asyncio.StreamWriter, status: int, plain: dict) -> None:
        data = json.dumps(plain).encode()
        head = f"HTTP/1.1 {status} As-Told\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
