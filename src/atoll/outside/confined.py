"""A function of somebody else's data, called in a process of its own that may take so much memory and time, no more.

The processes are forked from a server that is started with the first call and has imported what they need, so that a
call costs some 20 ms. Linux only, like the boxes.
"""

import multiprocessing
import resource
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from threading import BoundedSemaphore
from typing import Any, TypeVar

from atoll.errors import AtollError, InputError

T = TypeVar("T")

MEMORY_BYTES = 512 << 20  # beyond what the process has when it begins
CPU_S, WALL_S = 10, 40  # the second for a machine that is busy with other things
_TURN = BoundedSemaphore(2)  # so many at a time; the others wait


def call_confined(
    function: Callable[..., T],
    *arguments: Any,
    what: str,
    memory_bytes: int = MEMORY_BYTES,
    cpu_s: int = CPU_S,
    wall_s: float = WALL_S,
    preload: Sequence[str] = (),
) -> T:
    """What the function gives, whose arguments and result can be pickled.

    Args:
        function: of a module, so that another process finds it.
        arguments: its arguments.
        what: is looked at, for the sentence when it takes too much.
        memory_bytes: address space that it may take.
        cpu_s: seconds of CPU.
        wall_s: seconds after which it is ended.
        preload: modules that the server of all calls imports; those of the first call hold.

    Raises:
        InputError: it took more than that.
        AtollError: what the function raised.
    """
    with _TURN:
        answer = _ask(_context(tuple(preload)), (memory_bytes, cpu_s, function, arguments), wall_s)
    if answer is None:
        raise InputError(
            f"{what} took more than the {cpu_s} seconds or {memory_bytes >> 20} MiB that are given to it, and was left"
            " unread. Give fewer or smaller files."
        )
    good, value = answer
    if not good:
        raise value
    result: T = value
    return result


def _ask(context: ForkServerContext, given: tuple[Any, ...], wall_s: float) -> tuple[bool, Any] | None:
    """What the process answers; None where it was ended."""
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, *given), daemon=True)
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(wall_s) else None
    except EOFError:  # ended by its limits
        return None
    finally:
        here.close()
        process.kill()
        process.join()
        process.close()


_CONTEXTS: dict[str, ForkServerContext] = {}


def _context(preload: tuple[str, ...]) -> ForkServerContext:
    if not _CONTEXTS:
        made = multiprocessing.get_context("forkserver")
        made.set_forkserver_preload(list(preload))
        _CONTEXTS["one"] = made
    return _CONTEXTS["one"]


def _work(
    answer: Connection, memory_bytes: int, cpu_s: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - the kernel's own
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory_bytes, now + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it reads; it writes nothing
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer.send((True, function(*arguments)))
    except AtollError as error:
        answer.send((False, error))
    except MemoryError:
        return
