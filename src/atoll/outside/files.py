"""Read; write whole or not at all; remove; temporary folders; one at a time."""

import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from atoll.errors import InputError

PIECE = 2**20  # bytes of one read
TAIL = 64 * 2**20  # bytes of a log that are looked at for its last lines
LARGEST_FILE = 256 * 2**20  # a trace of a million requests has some 50 MB


def read_text(path: Path | str) -> str:
    """The text of a file, `-` for standard input; bytes that are no UTF-8 are shown as replacement characters.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    if str(path) == "-":
        return _bounded(sys.stdin.buffer, "standard input").decode("utf-8", errors="replace")
    return read_bytes(path).decode("utf-8", errors="replace")


def read_bytes(path: Path | str, *, largest: int = LARGEST_FILE) -> bytes:
    """All of a file of at most so many bytes; raises InputError when there is none, or it cannot be read."""
    try:
        kind = Path(path).stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise InputError(f"{path} is no file but a device or a pipe; give `-` to read standard input.")
        with Path(path).open("rb") as stream:
            return _bounded(stream, path, largest)
    except IsADirectoryError:
        raise InputError(_why_no_file(Path(path))) from None
    except ValueError:
        raise InputError(f"There is no file {str(path)!r}.") from None
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


# What a folder is by a file in it.
_FOLDERS = {
    "run.yaml": "the folder of a run",
    "study-run.yaml": "the folder of a study that was run",
    "compose.yaml": "a bundle",
    "nginx.conf": "a bundle",
    "config.json": "the folder of a model",
}


def _why_no_file(folder: Path) -> str:
    what = next((noun for name, noun in _FOLDERS.items() if (folder / name).is_file()), "a folder")
    such = next((folder / name for name in ("study.yaml", "layout.yaml") if (folder / name).is_file()), None)
    return f"{folder} is {what}; a file is expected{'' if such is None else f', such as {such}'}."


def _bounded(stream: BinaryIO, name: Path | str, largest: int = LARGEST_FILE) -> bytes:
    """Piece by piece: for one read of all that is allowed the kernel's own files in /proc find no memory."""
    data = bytearray()
    while piece := stream.read(PIECE):
        data += piece
        if len(data) > largest:
            raise InputError(f"{name} is larger than {largest // 2**20} MiB, which nothing that atoll reads is.")
    return bytes(data)


def read_tail(path: Path, *, lines: int) -> tuple[bytes, int]:
    """The whole lines at the end of a file that may be of any size, and where in the file they end.

    It is read backwards until there are so many, or TAIL bytes; a line that is longer is cut. b"" where there is no
    such file.
    """
    try:
        with path.open("rb") as stream:
            end = start = stream.seek(0, os.SEEK_END)
            data = b""
            while start and data.count(b"\n") <= lines and len(data) < TAIL:
                size = min(PIECE, start)
                start -= size
                stream.seek(start)
                data = stream.read(size) + data
    except OSError:
        return b"", 0
    whole = data.rfind(b"\n") + 1
    return data[:whole], end - (len(data) - whole)


def read_piece(path: Path, start: int) -> bytes:
    """PIECE bytes of a file from `start` on, or fewer at its end; b"" where there is no such file."""
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            return stream.read(PIECE)
    except OSError:
        return b""


def path_text(path: Path) -> str:
    r"""A path as text that can be written; a name's bytes that are no UTF-8 are shown as `\xff`."""
    return os.fsencode(path).decode(errors="backslashreplace")


def make_folder(path: Path) -> Path:
    """The folder, made with its parents when it is not there; raises InputError when it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {path} cannot be made: {error.strerror}.") from None
    return path


def refuse_to_overwrite(path: Path, *, force: bool = False) -> None:
    """Raises InputError where a file, or a folder that holds something, is there; with `force` it may go.

    A device or a pipe is written to and not overwritten.
    """
    try:
        there = any(path.iterdir()) if path.is_dir() else path.is_file()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    if there and not force:
        holds = "already holds something" if path.is_dir() else "is there already"
        raise InputError(f"{path} {holds}. Choose another place with -o, or overwrite it with --force.")


def write_whole(
    path: Path, content: str | bytes, *, mode: int = 0o644, sync: bool = True, like: Path | None = None
) -> None:
    """Write all of it or nothing: a reader, a crash or a full disk never meets half a file.

    Args:
        path: the file; its folder is made when it is not there.
        content: all of it.
        mode: of the file.
        sync: wait until the disk has it, so that a power cut cannot take it; a busy disk may need seconds for that.
        like: a file whose mode, and whose owner and group where that is allowed, the new one gets.

    Raises:
        InputError: the place cannot be written; the file that was there before is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    if _is_stream(path):
        _write_through(path, data)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        temporary.chmod(mode if like is None else _take_after(temporary, like))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None


def write_over(path: Path, content: str) -> None:
    """Give the file that is there another text: it stays the same file for who has it mounted, and may be met half.

    Raises:
        InputError: the place cannot be written.
    """
    if not path.exists():
        write_whole(path, content)
        return
    try:
        with path.open("r+b") as stream:
            stream.write(content.encode())
            stream.truncate()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None


def _take_after(path: Path, like: Path) -> int:
    """Give a file the owner and group of another one, where that is allowed; the mode to set after it."""
    theirs = like.stat()
    with suppress(PermissionError):  # only root gives files away
        os.chown(path, theirs.st_uid, theirs.st_gid)
    return stat.S_IMODE(theirs.st_mode) & 0o777


def _is_stream(path: Path) -> bool:
    """Whether a terminal, /dev/null or a pipe is there, which must not be replaced by a file."""
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(kind) or stat.S_ISFIFO(kind) or stat.S_ISBLK(kind)


def _write_through(path: Path, data: bytes) -> None:
    if path.is_block_device():
        raise InputError(f"{path} is a disk; choose a file.")
    try:
        with path.open("wb") as stream:
            stream.write(data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None


def write_nowhere(stream: IO[str]) -> None:
    """For a stream whose reader has gone: what is buffered and what comes is dropped, and raises nothing at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)  # noqa: TID251 - this is that door
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def remove_files(folder: Path, names: Sequence[str] = ()) -> None:
    """Remove these files of a folder, and the folder too if it holds nothing then."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it holds other things, or is not there
        folder.rmdir()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of our own that is removed with all in it."""
    with tempfile.TemporaryDirectory(prefix="atoll-") as name:
        yield Path(name)


def lasting_folder() -> Path:
    """A new folder among the temporary ones, which stays; raises InputError where none can be made."""
    try:
        return Path(tempfile.mkdtemp(prefix="atoll-run-"))
    except OSError as error:
        raise InputError(f"No temporary folder can be made: {error.strerror}.") from None


@contextmanager
def alone_in(folder: Path, *, otherwise: str) -> Iterator[None]:
    """As `alone`, of a whole folder, which is made and gets no file of the lock's own.

    Where the file system locks no folders (NFS) nobody is kept out.
    """
    make_folder(folder)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # noqa: TID251 - the door itself
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(otherwise) from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def alone(path: Path, *, otherwise: str, mode: int = 0o644) -> Iterator[None]:
    """Hold a lock file while the block runs; the lock goes with this process, however it ends.

    Raises:
        InputError: somebody else holds it (the sentence is `otherwise`), or the file cannot be written.
    """
    make_folder(path.parent)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode)  # noqa: TID251 - the door itself
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(otherwise) from None
        yield
    finally:
        os.close(handle)
