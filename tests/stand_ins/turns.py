"""What a server on a loop of its own does before it ends."""

import asyncio


async def take_in_what_came() -> None:
    """What was accepted just now becomes a talk, so that it can be closed: a closed server would drop it unclosed.

    Turns of the loop rather than a time: on a busy machine a hundredth of a second is one turn or none.
    """
    for _ in range(10):
        await asyncio.sleep(0)
