"""The files of a run's tail: see load/records.py. A thread writes them, so that a slow disk holds nobody up.

What the disk refuses is kept in order and tried again, about once a second, and once more at the end. A write that
failed half-way is taken back first, so that the files never hold a thing twice.
"""

import contextlib
import json
import os
from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from atoll.errors import AtollError, RunFailed
from atoll.load.rows import ROW, part_columns, start_text
from atoll.outside.files import write_whole

RESERVE = "reserve"  # a file whose room is given back when the disk is full, so that the run's folder can say so
_RESERVE_BYTES = 16 * 2**10
_TRIES_APART = 20  # flushes, which come twenty times a second


class Tail:
    """The files that grow while a run is under way."""

    def __init__(self, folder: Path, name: str, origin: float, *, ids: str | None = None) -> None:
        """Raises RunFailed when the folder cannot be written.

        Args:
            folder: of the records.
            name: of its files, when several processes write to one folder.
            origin: the clock's value at the start of the run.
            ids: what the requests' ids begin with.
        """
        self.folder = folder
        self.trouble: str | None = None  # the first thing that the disk refused
        self._name = name
        self._number = 0
        self._files: list[int] = []  # rows, tokens, words
        self._sizes: list[int] = []
        self._waiting: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._pause = 0  # until the disk is asked again
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="atoll-records")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "clock.json", start_text(origin, ids), sync=False)
        except OSError as error:
            raise RunFailed(f"{folder} cannot be written: {error.strerror}.") from None
        with contextlib.suppress(AtollError):
            write_whole(folder / RESERVE, bytes(_RESERVE_BYTES), sync=False)
        self.begin_next()

    @property
    def lost(self) -> str | None:
        """Why the files lack something now; None when they have all that was handed to them."""
        return self.trouble if self._waiting else None

    @property
    def _stem(self) -> Path:
        return self.folder / f"{self._name}-{self._number:05d}"

    def append(self, words: list[str], tokens: bytes, rows: bytes) -> None:
        self._later(self._write, words, tokens, rows)

    def begin_next(self) -> Path:
        """Close this tail and open the next; gives the old one's stem."""
        old = self._stem
        self._number += 1
        self._later(self._open, self._stem)
        return old

    def pack(self, old: Path, rows: bytes, tokens: "array[float]", words: list[str]) -> None:
        """Write the part, then remove the tail that it replaces."""
        self._later(_pack_part, old, rows, tokens, words)

    def close(self) -> None:
        """Try once more what was refused, and close the files."""
        self._thread.submit(self._end)
        self._thread.shutdown(wait=True)

    def _later(self, work: Callable[..., None], *arguments: object) -> None:
        self._thread.submit(self._try, work, arguments)

    # In the thread.

    def _try(self, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
        self._waiting.append((work, arguments))
        if self._pause > 0:
            self._pause -= 1
        else:
            self._catch_up()

    def _catch_up(self) -> None:
        """Everything that waits, in order, as far as the disk takes it."""
        while self._waiting:
            work, arguments = self._waiting[0]
            try:
                work(*arguments)
            except OSError as error:
                self.trouble = self.trouble or f"{self.folder}: {error.strerror}"
                self._pause = _TRIES_APART
                return
            except AtollError as error:
                self.trouble = self.trouble or str(error)
                self._pause = _TRIES_APART
                return
            self._waiting.popleft()

    def _end(self) -> None:
        self._catch_up()
        self._close()

    def _open(self, stem: Path) -> None:
        self._close()
        names = (stem.with_suffix(".rows"), stem.with_suffix(".tokens"), self.folder / f"{self._name}-words.jsonl")
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for name in names:
            self._files.append(os.open(name, how, 0o644))  # noqa: TID251 - they grow with the run
        self._sizes = [os.fstat(handle).st_size for handle in self._files]

    def _write(self, words: list[str], tokens: bytes, rows: bytes) -> None:
        """Words and times before the rows that need them; all of it or nothing."""
        rows_file, tokens_file, words_file = self._files
        said = "".join(json.dumps(word) + "\n" for word in words).encode()
        try:
            if said:
                _write_all(words_file, said)
            _write_all(tokens_file, tokens)
            _write_all(rows_file, rows)
        except OSError:
            for handle, size in zip(self._files, self._sizes, strict=True):
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size)
            raise
        added = (len(rows), len(tokens), len(said))
        self._sizes = [size + more for size, more in zip(self._sizes, added, strict=True)]

    def _close(self) -> None:
        for handle in self._files:
            with contextlib.suppress(OSError):
                os.close(handle)
        self._files = []


def _pack_part(old: Path, rows: bytes, tokens: "array[float]", words: list[str]) -> None:
    from atoll.outside.parquet import write_parquet

    columns = part_columns(np.frombuffer(rows, dtype=ROW), np.frombuffer(tokens, dtype=np.float64), words)
    write_parquet(old.with_name(old.name.replace("tail", "part")).with_suffix(".parquet"), columns)
    old.with_suffix(".rows").unlink(missing_ok=True)
    old.with_suffix(".tokens").unlink(missing_ok=True)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
