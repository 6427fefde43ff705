"""What all connections of a server share."""

import hashlib
import secrets
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol

from atoll.emulate.ask import Served
from atoll.emulate.engine import EmulatedEngine
from atoll.emulate.prompts import Desk
from atoll.emulate.vocabulary import Vocabulary
from atoll.layout.layout import ENGINE_VERSION
from atoll.outside.clock import Clock

KEEP_ALIVE_S = 5.0  # vLLM: VLLM_HTTP_TIMEOUT_KEEP_ALIVE
GUARDED = ("/v1", "/v2", "/inference", "/cohere")  # vLLM: entrypoints/serve/middleware/authenticate.py


class Guest(Protocol):
    """A connection, as the server's end sees it."""

    def close_if_idle(self) -> None: ...
    def abandon(self) -> None: ...


@dataclass(kw_only=True)
class Site:
    """Engine, clock and settings; `load` is how many requests are being answered."""

    served: Served
    engine: EmulatedEngine
    clock: Clock
    version: str = ENGINE_VERSION
    fingerprint: str = "emulated"
    api_key: str | None = None
    keep_alive_s: float = KEEP_ALIVE_S
    started: int = 0  # seconds since 1970, shown as the model's `created`
    closing: bool = False
    load: int = 0
    connections: set[Guest] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._dated = (-1, "")
        self.vocabulary = Vocabulary(self.served.vocab_size)
        self.desk = Desk(served=self.served, vocabulary=self.vocabulary, admits=self.engine.admits)

    def allows(self, path: str, authorization: str | None) -> bool:
        """Compare the bearer token in constant time, as vLLM's middleware does."""
        if self.api_key is None or not path.startswith(GUARDED):
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        return secrets.compare_digest(hashlib.sha256(token.encode()).digest(), self._key_digest)

    def date(self) -> str:
        """The time of day as HTTP writes it, made once a second."""
        now = int(self.clock.wall())
        if now != self._dated[0]:
            self._dated = (now, formatdate(now, usegmt=True))
        return self._dated[1]

    @property
    def _key_digest(self) -> bytes:
        return hashlib.sha256((self.api_key or "").encode()).digest()
