"""Heavy questions are answered by processes of their own, kept warm, so that whoever asks stays responsive.

A worker is a module that calls `answer_questions(run)` with the file descriptor of its argv. A question and all that is
said about it travel as pickles between two ends of a socket that nobody else has. When nobody listens any more, the
worker gets SIGUSR1 and drops what it was doing, which takes milliseconds; it is then free for the next question.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import Popen
from types import FrameType
from typing import Any

from atoll.errors import AtollError, InputError, RunFailed
from atoll.outside.clock import Clock
from atoll.outside.processes import spawn
from atoll.outside.shell import environment

LOOK_S = 0.02  # between two looks whether something was said
CLOSE_S = 5.0  # a worker that does not stop by itself in this time is killed
MOST_S = 120.0  # a question may take
MOST_BYTES = 4 << 30  # of memory; a document that grows without end ends its worker, and nothing else
NICENESS = 5  # below the server, which answers first

Say = Callable[[Any], None]
Run = Callable[[Any, Say], None]


@dataclass
class _Worker:
    """One process and our end of its line."""

    process: "Popen[bytes]"
    line: Connection
    asked: bool = False  # a question was given and its end has not been heard yet
    taken: bool = False  # somebody listens to it
    dropped_at: float | None = None  # by the clock, when nobody wanted its answer any more

    def hear(self) -> tuple[str, Any]:
        """The next word; EOFError when the process is gone."""
        try:
            kind, value = self.line.recv()
        except OSError:
            raise EOFError from None
        if kind != "said":
            self.asked, self.dropped_at = False, None
        return kind, value

    def is_free(self) -> bool:
        """Whether it may be asked; what it still had to say about a question that nobody waits for is thrown away."""
        with contextlib.suppress(EOFError, OSError):
            while self.asked and self.line.poll():
                self.hear()
        return not self.taken and not self.asked

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def drop(self, now: float) -> None:
        """Stop working on the question."""
        if self.asked and self.is_alive():
            self.dropped_at = now
            self.process.send_signal(signal.SIGUSR1)

    def is_stuck(self, now: float) -> bool:
        """Whether it was told to stop and did not, as in a loop outside Python."""
        return self.dropped_at is not None and now - self.dropped_at > CLOSE_S


class Workers:
    """At most so many workers of one module, started when they are first needed."""

    def __init__(self, module: str, *, most: int, log: Path, clock: Clock) -> None:
        """`module` is run as `python -m MODULE DESCRIPTOR`; `log` takes what a worker prints."""
        self._module, self._most, self._log, self._clock = module, most, log, clock
        self._workers: list[_Worker] = []

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(worker.process.pid for worker in self._workers if worker.is_alive())

    def warm(self) -> None:
        """Start the first worker, so that the first question does not wait for its imports."""
        if not self._workers:
            self._workers.append(self._start())

    async def ask(self, question: object, *, most_s: float = MOST_S) -> AsyncGenerator[Any]:
        """What a worker says about a question, as it says it. Leaving early stops the work.

        Raises:
            AtollError: what the work raised.
            InputError: it took longer than `most_s`, from when a worker was free for it.
            RunFailed: the worker ended in the middle.
        """
        worker = await self._take()
        worker.asked = True
        ends = self._clock.now() + most_s
        try:
            worker.line.send(question)
            while worker.asked:
                if not worker.line.poll():
                    if self._clock.now() > ends:
                        worker.process.kill()  # it may be in a loop outside Python, and taking memory meanwhile
                        raise InputError(f"This took longer than the {most_s:g} s that it may; ask for less at once.")
                    await self._clock.sleep(LOOK_S)
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
            worker.drop(self._clock.now())

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.drop(self._clock.now())
            worker.line.close()  # a worker without a line ends
        for worker in self._workers:
            try:
                worker.process.wait(CLOSE_S)
            except Exception:  # noqa: BLE001 - whatever kept it, it has to go
                worker.process.kill()
                worker.process.wait()
        self._workers.clear()

    async def one(self, question: object, *, most_s: float = MOST_S) -> Any:
        """What a worker says first, for questions that have one answer."""
        async with contextlib.aclosing(self.ask(question, most_s=most_s)) as said:
            async for answer in said:
                return answer
        raise RunFailed("The process that calculated this gave no answer; ask again.")

    async def _take(self) -> _Worker:
        while True:
            free = next((worker for worker in self._workers if worker.is_alive() and worker.is_free()), None)
            for worker in self._workers:
                if worker.is_stuck(self._clock.now()):
                    worker.process.kill()
            self._workers[:] = [worker for worker in self._workers if worker.is_alive() or worker.taken]
            if free is None and len(self._workers) < self._most:
                free = self._start()
                self._workers.append(free)
            if free is not None:
                free.taken = True
                return free
            await self._clock.sleep(LOOK_S)

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
    """Whether a signal may break in.

    Never while words are being sent, which would cut one in two, nor while a module is being imported: some can be
    imported once only, and half of one is none. It is tried again a moment later then.
    """

    def __init__(self) -> None:
        self.working = self.speaking = self.dropped = False
        for number in (signal.SIGUSR1, signal.SIGALRM):
            signal.signal(number, self._signalled)

    def _signalled(self, _: int, frame: FrameType | None) -> None:
        self.dropped = self.working
        if not self.working or self.speaking:
            return
        if _imports(frame):
            signal.setitimer(signal.ITIMER_REAL, LOOK_S)
            return
        raise _Dropped

    @contextlib.contextmanager
    def to_work(self) -> Iterator[None]:
        self.dropped, self.working = False, True
        try:
            yield
        finally:
            self.working = False
            signal.setitimer(signal.ITIMER_REAL, 0)  # what was to be tried again is not for the next question

    @contextlib.contextmanager
    def to_speech(self) -> Iterator[None]:
        self.speaking = True
        try:
            yield
        finally:
            self.speaking = False
        if self.dropped and self.working:
            raise _Dropped


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported further up."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def answer_questions(run: Run, descriptor: int) -> None:
    """A worker's life: answer what comes over the line until it is closed."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
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
        attention.working = False
        end = ("dropped", None)
    except AtollError as error:
        end = ("failed", error)
    except (BrokenPipeError, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 - the asker is told; the worker lives on
        end = ("failed", RunFailed(f"atoll itself failed here ({type(error).__name__}: {error})."))
    line.send(end)
