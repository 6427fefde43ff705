"""Who did what, when: a line for each change, in the workspace and, to be searched, in the catalogue."""

import json
import secrets
import sys
from pathlib import Path

from atoll.documents import Document
from atoll.errors import AtollError, InputError
from atoll.store.catalog import Catalog, Paper

KIND = "audit"
FILE = "audit.jsonl"


class AuditLine(Document):
    """Who did what, when."""

    at: float  # seconds since 1970
    who: str
    what: str  # the command line, or the change in words


class Audit:
    """The audit log of a workspace: the file is the truth, the catalogue finds its lines again."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self._path, self._catalog = folder / FILE, catalog

    def note(self, line: AuditLine, *, insist: bool = True) -> None:
        """Write a line.

        Args:
            line: what is about to be done.
            insist: raise InputError where the file cannot be written. Else the server's own output gets the line: what
                ends work is done on a full disk too.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line.model_dump_json() + "\n")
        except OSError as error:
            if insist:
                raise InputError(
                    f"The audit log {self._path} cannot be written: {error.strerror}. Nothing was changed."
                ) from None
            sys.stderr.write(f"audit: {line.model_dump_json()}\n")
        try:
            self._catalog.keep(_paper(line))
        except AtollError:
            return  # it stands in the file

    def last(self, *, words: str = "", limit: int = 50) -> tuple[AuditLine, ...]:
        """The youngest first, of those that hold the words; raises CatalogFailed."""
        papers = self._catalog.papers(KIND, words=words, limit=limit)
        return tuple(AuditLine.from_plain(paper.content, origin="the audit log") for paper in papers)


def _paper(line: AuditLine) -> Paper:
    key = f"{line.at:.6f}-{secrets.token_hex(4)}"
    plain = json.loads(line.model_dump_json())
    return Paper(kind=KIND, key=key, changed_at=line.at, words=f"{line.who} {line.what}", content=plain)
