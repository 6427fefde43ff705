"""Wait for an event. The seconds here end a test that hangs; no promise depends on them, however slow the machine is."""

import asyncio
import subprocess
import time
from contextlib import contextmanager

PATIENCE_S = 120.0


def wait_until(condition):
    """Until it is true; another thread or process brings it about."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        time.sleep(0.01)


@contextmanager
def started(argv, **options):
    """A process for as long as the block runs: a block that fails ends it, and does not wait for its own end."""
    with subprocess.Popen(argv, **options) as process:
        try:
            yield process
            process.wait(PATIENCE_S)
        except BaseException:
            process.kill()
            raise


async def until(condition):
    """Until it is true. Turns of the loop rather than timers, so that a loop whose time stands still can wait too."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        await turns(1)
        time.sleep(0.001)  # noqa: ASYNC251 - the machine is somebody else's meanwhile


async def turns(number):
    """What has come is taken in: so often does the loop look at its sockets and timers."""
    for _ in range(number):
        await asyncio.sleep(0)


async def beside(work, story):
    """What the work gives, while the story goes on beside it; a story that fails ends the work."""
    told = asyncio.ensure_future(story) if story is not None else None
    both = [asyncio.ensure_future(work), *([told] if told is not None else [])]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if told is not None and told.done():
            told.result()
        return await both[0]
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
