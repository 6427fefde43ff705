"""Heavy questions are answered by processes of their own, kept warm, so that whoever asks stays responsive.

A worker is a module that calls `answer_questions(run)` with the file descriptor of its argv. A question and all that is
said about it travel as pickles between two ends of a socket that nobody else has. When nobody listens any more, the
worker gets SIGUSR1 and drops what it was doing, which takes milliseconds; it is then free for the next question.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import Popen
from typing import Any

from atoll.errors import AtollError, RunFailed
from atoll.outside.processes import spawn
from atoll.outside.shell import environment

LOOK_S = 0.02  # between two looks whether something was said
CLOSE_S = 5.0  # a worker that does not end by itself in this time is killed
NICENESS = 5  # below the server, which answers first

Say = Callable[[Any], None]
Run = Callable[[Any, Say], None]
Sleep = Callable[[float], Awaitable[None]]


@dataclass
class _Worker:
    """One process and our end of its line."""

    process: "Popen[bytes]"
    line: Connection
    asked: bool = False  # a question was given and its end has not been heard yet
    taken: bool = False  # somebody listens to it

    def hear(self) -> tuple[str, Any]:
        """The next word; EOFError when the process is gone."""
        try:
            kind, value = self.line.recv()
        except OSError:
            raise EOFError from None
        self.asked = self.asked and kind == "said"
        return kind, value

    def is_free(self) -> bool:
        """Whether it may be asked; what it still had to say about a question that nobody waits for is thrown away."""
        with contextlib.suppress(EOFError, OSError):
            while self.asked and self.line.poll():
                self.hear()
        return not self.taken and not self.asked

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def drop(self) -> None:
        """Stop working on the question."""
        if self.asked and self.is_alive():
            self.process.send_signal(signal.SIGUSR1)


class Workers:
    """At most so many workers of one module, started when they are first needed."""

    def __init__(self, module: str, *, most: int, log: Path, sleep: Sleep) -> None:
        """`module` is run as `python -m MODULE DESCRIPTOR`; `log` takes what a worker prints."""
        self._module, self._most, self._log, self._sleep = module, most, log, sleep
        self._workers: list[_Worker] = []

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(worker.process.pid for worker in self._workers if worker.is_alive())

    def warm(self) -> None:
        """Start the first worker, so that the first question does not wait for its imports."""
        if not self._workers:
            self._workers.append(self._start())

    async def ask(self, question: object) -> AsyncGenerator[Any]:
        """What a worker says about a question, as it says it. Leaving early stops the work.

        Raises:
            AtollError: what the work raised.
            RunFailed: the worker ended in the middle.
        """
        worker = await self._take()
        worker.asked = True
        try:
            worker.line.send(question)
            while worker.asked:
                if not worker.line.poll():
                    await self._sleep(LOOK_S)
                    continue
                kind, value = worker.hear()
                if kind == "failed":
                    raise value
                if kind == "said":
                    yield value
        except (EOFError, OSError):
            worker.asked = False
            raise RunFailed("The process that calculated this ended in the middle; ask again.") from None
        finally:
            worker.taken = False
            worker.drop()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.drop()
            worker.line.close()  # a worker without a line ends
        for worker in self._workers:
            try:
                worker.process.wait(CLOSE_S)
            except Exception:  # noqa: BLE001 - whatever kept it, it has to go
                worker.process.kill()
                worker.process.wait()
        self._workers.clear()

    async def _take(self) -> _Worker:
        while True:
            self._workers[:] = [worker for worker in self._workers if worker.is_alive() or worker.taken]
            free = next((worker for worker in self._workers if worker.is_free()), None)
            if free is None and len(self._workers) < self._most:
                free = self._start()
                self._workers.append(free)
            if free is not None:
                free.taken = True
                return free
            await self._sleep(LOOK_S)

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        descriptor = theirs.fileno()
        argv = [sys.executable, "-m", self._module, str(descriptor)]
        try:
            process = spawn(argv, log=self._log, env=environment(), kept_open=(descriptor,))
        finally:
            theirs.close()
        return _Worker(process=process, line=Connection(ours.detach()))


class _Dropped(BaseException):
    """Nobody waits for this question any more. No `except Exception` may swallow it."""


class _Attention:
    """Whether a signal may break in: never while words are being sent, which would cut one in two."""

    def __init__(self) -> None:
        self.working = self.speaking = self.dropped = False
        signal.signal(signal.SIGUSR1, self._signalled)

    def _signalled(self, *_: object) -> None:
        self.dropped = self.working
        if self.working and not self.speaking:
            raise _Dropped

    @contextlib.contextmanager
    def to_work(self) -> Iterator[None]:
        self.dropped, self.working = False, True
        try:
            yield
        finally:
            self.working = False

    @contextlib.contextmanager
    def to_speech(self) -> Iterator[None]:
        self.speaking = True
        try:
            yield
        finally:
            self.speaking = False
        if self.dropped and self.working:
            raise _Dropped


def answer_questions(run: Run, descriptor: int) -> None:
    """A worker's life: answer what comes over the line until it is closed."""
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, whose end closes the line
    attention = _Attention()
    line = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        while True:
            _answer(run, line.recv(), line, attention)


def _answer(run: Run, question: object, line: Connection, attention: _Attention) -> None:
    def say(value: object) -> None:
        with attention.to_speech():
            line.send(("said", value))

    end: tuple[str, object] = ("done", None)
    try:
        with attention.to_work():
            run(question, say)
    except _Dropped:
        end = ("dropped", None)
    except AtollError as error:
        end = ("failed", error)
    except (BrokenPipeError, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 - the asker is told; the worker lives on
        end = ("failed", RunFailed(f"atoll itself failed here ({type(error).__name__}: {error})."))
    line.send(end)
