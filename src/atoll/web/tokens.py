"""Access tokens with roles, kept as hashes in MongoDB, or in a SQLite file of mode 600 outside the workspace."""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from threading import Lock

from pydantic import Field

from atoll.documents import Document
from atoll.errors import AtollError, InputError, NotThere
from atoll.outside.files import make_folder
from atoll.store.catalog import Catalog, Paper
from atoll.store.opening import open_catalog

KIND = "token"
PRINTED_LINK = "the printed link"  # the name of its token; pages translate it
MOST_TOKENS = 1000
FRESH_S = 1.0  # another server's change is seen after so long
FAILED_S = 10.0  # a catalogue that failed is not asked before


class Role(StrEnum):
    """An operator does everything; a viewer reads."""

    OPERATOR = "operator"
    VIEWER = "viewer"


class Token(Document):
    """One access token, without its secret."""

    id: str
    name: str
    role: Role
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    made_at: float  # seconds since 1970


class Tokens:
    """The tokens of one workspace. While their catalogue fails, those that were known last hold."""

    def __init__(
        self, catalog: Catalog, *, now: Callable[[], float], extra: Iterable[tuple[str, str, Role]] = ()
    ) -> None:
        """`extra`: (name, secret, role) that hold for this server only and are not written."""
        self._catalog, self._now = catalog, now
        self._extra = tuple(
            Token(id=f"here-{place}", name=name, role=role, sha256=_hash(secret), made_at=0.0)
            for place, (name, secret, role) in enumerate(extra)
        )
        self._kept: tuple[Token, ...] = ()
        self._fresh_until = 0.0
        self._reading = Lock()
        self._read()

    def all(self) -> tuple[Token, ...]:
        return (*self._extra, *self._kept)

    @property
    def stale(self) -> bool:
        """Whether `refresh` is due and nobody is at it."""
        return self._now() >= self._fresh_until and not self._reading.locked()

    def refresh(self) -> None:
        """Read them again; it may wait for a database. Whoever comes meanwhile goes by what is known."""
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._read()
        except AtollError:
            self._fresh_until = self._now() + FAILED_S
        finally:
            self._reading.release()

    def check(self, secret: str) -> Token | None:
        """The token with this secret, if there is one; takes the same time either way."""
        digest, found = _hash(secret), None
        for token in self.all():
            if secrets.compare_digest(token.sha256, digest):
                found = token
        return found

    def make(self, name: str, role: Role, *, now: float) -> tuple[Token, str]:
        """A new token and its secret, which is shown once and not kept."""
        if not name.strip() or len(name) > 80:
            raise InputError("A token needs a name of 1 to 80 characters, such as whose it is.")
        if len(self._kept) >= MOST_TOKENS:
            raise InputError(f"There are {MOST_TOKENS} tokens; revoke some that nobody needs any more.")
        secret = secrets.token_urlsafe(32)
        token = Token(id=secrets.token_hex(4), name=name.strip(), role=role, sha256=_hash(secret), made_at=now)
        self._catalog.keep(Paper(kind=KIND, key=token.id, changed_at=now, words=token.name, content=token.to_plain()))
        self._read()
        return token, secret

    def revoke(self, token_id: str) -> None:
        """Take a token away; raises InputError when there is none, or when it is the printed link's own."""
        try:
            self._catalog.discard(KIND, token_id)
        except NotThere:
            raise InputError(f"There is no token {token_id} that could be revoked.") from None
        self._kept = tuple(token for token in self._kept if token.id != token_id)

    def close(self) -> None:
        self._catalog.close()

    def _read(self) -> None:
        papers = self._catalog.papers(KIND, limit=MOST_TOKENS)
        self._kept = tuple(Token.from_plain(paper.content, origin="a token") for paper in reversed(papers))
        self._fresh_until = self._now() + FRESH_S


def open_private(path: Path) -> Catalog:
    """A SQLite catalogue that nobody else may read; its journal takes the file's mode."""
    make_folder(path.parent)
    try:
        path.touch(mode=0o600)
        path.chmod(0o600)
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}.") from None
    return open_catalog(f"sqlite:{path}")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
