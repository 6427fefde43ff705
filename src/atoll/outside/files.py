"""Read; write whole or not at all; temporary folders."""

import os
import sys
import tempfile
from pathlib import Path

from atoll.errors import InputError


def read_text(path: Path | str) -> str:
    """The text of a file, `-` for standard input; bytes that are no UTF-8 are shown as replacement characters.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    if str(path) == "-":
        return sys.stdin.buffer.read().decode("utf-8", errors="replace")
    try:
        return Path(path).read_bytes().decode("utf-8", errors="replace")
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; a file is expected.") from None
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


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


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o644, sync: bool = True) -> None:
    """Write all of it or nothing: a reader, a crash or a full disk never meets half a file.

    Args:
        path: the file; its folder is made when it is not there.
        content: all of it.
        mode: of the file.
        sync: wait until the disk has it, so that a power cut cannot take it; a busy disk may need seconds for that.

    Raises:
        InputError: the place cannot be written; the file that was there before is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
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
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
