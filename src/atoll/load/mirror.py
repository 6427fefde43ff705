"""Records that are written on other machines, copied to the run's folder once a second.

A worker on another node writes its tail there (see records.py). `grown` gives what its files got since the last look,
and a Mirror appends that to files of the same names in the run's folder, so a kill, here or there, costs a second.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from atoll.errors import RunFailed
from atoll.load.rows import start_text
from atoll.outside.files import write_whole

_ORDER = (".rows", ".tokens", ".jsonl", ".parquet")  # rows are read first: what they need is there by then


class Piece(NamedTuple):
    """New bytes of a file."""

    name: str
    start: int
    data: bytes


def grown(place: Path, known: Mapping[str, int]) -> list[Piece]:
    """What the files of a records folder have beyond the sizes that are known; parts before the tails they replace."""
    pieces: list[Piece] = []
    for suffix in _ORDER:
        for path in sorted(place.glob(f"*{suffix}")):
            start = known.get(path.name, 0)
            try:
                with path.open("rb") as stream:
                    stream.seek(start)
                    data = stream.read()
            except FileNotFoundError:  # a tail that has just become a part
                continue
            if data:
                pieces.append(Piece(path.name, start, data))
    return pieces[::-1]


class Mirror:
    """The copies, in the run's own folder."""

    def __init__(self, folder: Path, origin: float, origins: Sequence[float], *, ids: str | None = None) -> None:
        """Raises RunFailed when the folder cannot be written.

        Args:
            folder: the run's.
            origin: the start of the run by our clock.
            origins: the same moment by each worker's clock.
            ids: what the requests' ids begin with.
        """
        self.trouble: str | None = None
        self._place = folder / "records"
        self._known: dict[str, int] = {}
        try:
            self._place.mkdir(parents=True, exist_ok=True)
            write_whole(self._place / "clock.json", start_text(origin, ids), sync=False)
            for number, own in enumerate(origins):
                write_whole(self._place / f"worker{number}-clock.json", json.dumps({"origin": own}), sync=False)
        except OSError as error:
            raise RunFailed(f"{self._place} cannot be written: {error.strerror}.") from None

    def known(self, worker: int) -> dict[str, int]:
        """How much there is of the files of one worker."""
        return {name: size for name, size in self._known.items() if name.startswith(f"worker{worker}-")}

    def take(self, pieces: Sequence[Piece]) -> None:
        """Append them; what the disk refuses is not known afterwards, so that it comes again."""
        for piece in pieces:
            if piece.start != self._known.get(piece.name, 0):
                continue
            path = self._place / piece.name
            try:
                with path.open("ab") as stream:
                    stream.write(piece.data)
            except OSError as error:
                self.trouble = self.trouble or f"{self._place}: {error.strerror}"
                with suppress(OSError):
                    os.truncate(path, piece.start)
                return
            self._known[piece.name] = piece.start + len(piece.data)
