"""Follow a file of lines that grows: what is there, then what comes, resumable at a byte."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.2
MOST_BYTES = 1 << 20  # read in one go


@dataclass(frozen=True, slots=True)
class TailLine:
    """A whole line and the byte after it, from which one goes on."""

    text: str
    offset: int


async def tail(
    path: Path,
    *,
    offset: int,
    sleep: Callable[[float], Awaitable[None]],
    ended: Callable[[], bool],
) -> AsyncIterator[TailLine | None]:
    """The lines of a file from a byte on. None where the file began anew, or is shorter than what was read of it.

    Args:
        path: the file; it may not be there yet.
        offset: the byte to begin at.
        sleep: waits between two looks.
        ended: whether nobody writes any more; what is there by then is still given.
    """
    inode: int | None = None
    while True:
        last = ended()
        data, now = _read(path, offset)
        if now is not None and ((now != inode and inode is not None) or _size(path) < offset):
            offset, inode = 0, now
            yield None
            continue
        inode = now if now is not None else inode
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines(keepends=True):
            offset += len(line)
            yield TailLine(line.decode("utf-8", errors="replace").rstrip("\n"), offset)
        if last and not whole:
            return
        if not whole:
            await sleep(POLL_S)


def _read(path: Path, offset: int) -> tuple[bytes, int | None]:
    """Bytes from the offset on and the file's inode; None while there is none."""
    try:
        with path.open("rb") as stream:
            inode = path.stat().st_ino
            stream.seek(offset)
            return stream.read(MOST_BYTES), inode
    except OSError:
        return b"", None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
