"""More cores: a load carried out by several processes of this machine.

Each worker is `python -m atoll.load.workers` with its Orders on standard input. All tell when they are ready; then all
get the same start, a time of CLOCK_MONOTONIC, which the processes of a machine share. A worker whose parent is gone
ends too.
"""

import asyncio
import contextlib
import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from atoll.errors import AtollError, RunFailed
from atoll.load.orders import Orders, SenderResult, Share
from atoll.load.progress import Progress, join_progress
from atoll.load.run import LoadControl
from atoll.load.sender import Sender
from atoll.load.watch import Watch
from atoll.outside.clock import Clock, SystemClock

_LENGTH = struct.Struct("<Q")
_HEAD_START_S = 0.1  # between the last worker's word that it is ready and the start


class Processes:
    """Workers that are processes."""

    def __init__(self, count: int) -> None:
        self.notes: tuple[str, ...] = ()
        self._count = count

    async def carry_out(
        self,
        orders: Orders,
        *,
        watch: Watch,
        control: LoadControl,
        on_progress: Callable[[Progress], None] | None,
        clock: Clock,
    ) -> list[SenderResult]:
        """Raises RunFailed when a worker dies, and what the worker raised when it cannot begin."""
        workers = [await _start_worker() for _ in range(self._count)]
        try:
            for number, worker in enumerate(workers):
                worker.tell(replace(orders, share=Share(index=number, count=self._count)))
            await asyncio.gather(*(worker.hear("ready") for worker in workers))
            origin = clock.now() + _HEAD_START_S
            for worker in workers:
                worker.tell(("go", origin))
            watch.start(origin)

            def stop(reason: str) -> None:
                for worker in workers:
                    worker.tell(("stop", reason))

            control.attach(stop)
            board = Board(len(workers), on_progress)
            hearing = (worker.hear("result", board.place(number)) for number, worker in enumerate(workers))
            results: list[SenderResult] = await asyncio.gather(*hearing)
            return results
        finally:
            await watch.stop()
            for worker in workers:
                await worker.end()


class Board:
    """Puts the workers' looks at the run together."""

    def __init__(self, count: int, show: Callable[[Progress], None] | None) -> None:
        self._last: list[Progress | None] = [None] * count
        self._show = show

    def place(self, number: int) -> Callable[[Progress], None]:
        def take(progress: Progress) -> None:
            self._last[number] = progress
            known = [one for one in self._last if one is not None]
            if self._show is not None and number == 0 and len(known) == len(self._last):
                self._show(join_progress(known))

        return take


class _Worker:
    """The parent's end of one worker."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def tell(self, message: object) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(_packed(message))

    async def hear(self, wanted: str, on_progress: Callable[[Progress], None] | None = None) -> Any:
        """Wait for a message of this kind; raises the worker's own error, or RunFailed when it is gone."""
        assert self._process.stdout is not None
        while True:
            try:
                (length,) = _LENGTH.unpack(await self._process.stdout.readexactly(_LENGTH.size))
                kind, content = pickle.loads(await self._process.stdout.readexactly(length))  # noqa: S301 - our child
            except asyncio.IncompleteReadError:
                code = await self._process.wait()
                raise RunFailed(f"A load worker ended with {code} in the middle of the run.") from None
            if kind == wanted:
                return content
            if kind == "error":
                raise content
            if kind == "progress" and on_progress is not None:
                on_progress(content)

    async def end(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def _start_worker() -> _Worker:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(  # noqa: TID251 - ours, and spoken to through its pipes
        sys.executable, "-m", "atoll.load.workers", stdin=pipe, stdout=pipe, limit=2**24
    )
    return _Worker(process)


def _packed(message: object) -> bytes:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


# The worker's side.


class _Parent(asyncio.Protocol):
    """Hears what the parent says; a parent that is gone ends us."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.on_stop: Callable[[str], None] = lambda _: None
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if len(self._buffer) < _LENGTH.size + length:
                return
            message = pickle.loads(self._buffer[_LENGTH.size : _LENGTH.size + length])  # noqa: S301 - our parent
            del self._buffer[: _LENGTH.size + length]
            if isinstance(message, tuple) and message[0] == "stop":
                self.on_stop(message[1])
            else:
                self.messages.put_nowait(message)

    def connection_lost(self, _error: Exception | None) -> None:
        os._exit(1)


def _say(kind: str, content: object) -> None:
    data = memoryview(_packed((kind, content)))
    while data:
        data = data[os.write(1, data) :]


async def _work() -> None:
    parent = _Parent()
    await asyncio.get_running_loop().connect_read_pipe(lambda: parent, sys.stdin)
    orders = await parent.messages.get()
    try:
        sender = Sender(orders, clock=SystemClock(), on_progress=lambda progress: _say("progress", progress))
        parent.on_stop = sender.stop
        await sender.prepare()
        _say("ready", None)
        _, origin = await parent.messages.get()
        result = await sender.run(origin)
    except AtollError as error:
        _say("error", error)
        return
    _say("result", result)


def main(_arguments: Sequence[str] = ()) -> None:
    """Be a worker."""
    import uvloop

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells us, after the same Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work())
    os._exit(0)  # standard input is still being listened to


if __name__ == "__main__":
    main()
