"""What a reader uploads to be looked at: kept in .atoll/uploads/ID of the workspace for a day, or until it is deleted.

A folder holds upload.json and the files by number, so that no name that came with them becomes one on this disk.
"""

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from atoll.documents import Document
from atoll.errors import AtollError, NotThere
from atoll.outside.files import read_bytes, read_text, remove_files, write_whole
from atoll.workflows.uploads import AcceptedFix, Hints, apply_steps, text_of

KEPT_S = 24 * 3600.0
MOST_KEPT = 200  # uploads; the oldest goes first
_NOTE = "upload.json"
_ID = re.compile(r"[0-9a-f]{16}")


class UploadNote(Document):
    """upload.json."""

    id: str
    title: str
    made_at: float  # seconds since 1970
    by: str
    names: tuple[str, ...]  # of the files 0, 1, 2 ...
    explicit: tuple[str, ...] = ()  # those that were given one by one
    left_out: tuple[str, ...] = ()  # of a download
    hints: Hints = Hints()
    steps: tuple[AcceptedFix, ...] = ()


class Uploads:
    """The uploads of a workspace."""

    def __init__(self, own: Path) -> None:
        self._root = own / "uploads"

    def keep(self, files: Mapping[str, bytes], note: UploadNote) -> UploadNote:
        """Keep files under a new id, for their owner's eyes only: they may hold keys."""
        kept = note.replace(id=secrets.token_hex(8), names=tuple(files))
        folder = self._root / kept.id
        folder.mkdir(parents=True, mode=0o700)
        for number, data in enumerate(files.values()):
            write_whole(folder / str(number), data, mode=0o600, sync=False)
        self.note(kept)
        return kept

    def note(self, note: UploadNote) -> None:
        """Keep what has become of an upload."""
        write_whole(self._root / note.id / _NOTE, note.to_json(), mode=0o600, sync=False)

    def find(self, upload_id: str) -> UploadNote:
        """Raises NotThere when there is none, or none any more."""
        known = _ID.fullmatch(upload_id) and (self._root / upload_id / _NOTE).is_file()
        if not known:
            raise NotThere(f"There is no upload {upload_id[:40]!r}; they are kept for a day. Upload the files again.")
        return self._read(self._root / upload_id)

    def files(self, note: UploadNote) -> dict[str, bytes]:
        """The files as they came."""
        return {name: read_bytes(self._root / note.id / str(number)) for number, name in enumerate(note.names)}

    def texts(self, note: UploadNote) -> dict[str, str]:
        """The files as texts, with the fixes that were accepted."""
        return apply_steps({name: text_of(data) for name, data in self.files(note).items()}, note.steps)

    def all(self, *, now: float) -> tuple[UploadNote, ...]:
        """The youngest first; those that are too old, or too many, are removed."""
        folders = list(self._root.iterdir()) if self._root.is_dir() else []
        found = []
        for folder in folders:
            try:
                found.append(self._read(folder))
            except (AtollError, OSError, ValueError):
                continue
        found.sort(key=lambda note: -note.made_at)
        kept = [note for note in found[:MOST_KEPT] if now - note.made_at < KEPT_S]
        for note in found:
            if note not in kept:
                self.remove(note)
        return tuple(kept)

    def remove(self, note: UploadNote) -> None:
        remove_files(self._root / note.id, [_NOTE, *(str(number) for number in range(len(note.names)))])

    def _read(self, folder: Path) -> UploadNote:
        return UploadNote.from_plain(json.loads(read_text(folder / _NOTE)), origin=str(folder / _NOTE))
