"""Where the files lie that the doctor reads: a disk, or a dict of texts."""

import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from atoll.errors import InputError
from atoll.outside.files import read_text

T = TypeVar("T")


class Files(Protocol):
    """Where the files lie: a disk, or a dict of texts."""

    def read(self, path: str) -> str | None:
        """The text; None when there is no such file. Raises InputError when it may not be read."""
        ...

    def listing(self, path: str) -> tuple[str, ...] | None:
        """The names in a folder, in order; None when it is none. Raises InputError when it may not be read."""
        ...

    def identity(self, path: str) -> str:
        """One name for a file, by whatever path it is reached."""
        ...


class DiskFiles:
    """The files of this machine; a file of more than 4 MB is no configuration and counts as missing."""

    def read(self, path: str) -> str | None:
        place = Path(path)
        if path == "-" or _said(path, lambda: place.is_file() and place.stat().st_size <= 4 * 10**6):
            return read_text(place).removeprefix("\ufeff")
        return None

    def listing(self, path: str) -> tuple[str, ...] | None:
        place = Path(path)
        return _said(path, lambda: tuple(sorted(c.name for c in place.iterdir())) if place.is_dir() else None)

    def identity(self, path: str) -> str:
        try:
            return str(Path(path).resolve()) if path != "-" else path
        except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no file can have
            return path


def _said(path: str, look: Callable[[], T]) -> T | None:
    """What is seen of a file or folder; None for a name that no file can have. Raises InputError when it is closed."""
    try:
        return look()
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (OSError, ValueError):
        return None


class HeldFiles:
    """Texts by path, in memory, over the files of another place (if any)."""

    def __init__(self, texts: Mapping[str, str], below: Files | None = None) -> None:
        self._texts = {posixpath.normpath(path): text for path, text in texts.items()}
        self._below = below

    def read(self, path: str) -> str | None:
        held = self._texts.get(posixpath.normpath(path))
        return held if held is not None or self._below is None else self._below.read(path)

    def listing(self, path: str) -> tuple[str, ...] | None:
        folder = posixpath.normpath(path)
        prefix = "" if folder == "." else folder + "/"
        inside = {name[len(prefix) :].split("/")[0] for name in self._texts if name.startswith(prefix)}
        below = self._below.listing(path) if self._below is not None else None
        return tuple(sorted(inside | set(below or ()))) if inside or below is not None else None

    def identity(self, path: str) -> str:
        return posixpath.normpath(path) if self._below is None else self._below.identity(path)
