"""The catalogue of runs: its shape, and the two that have it."""

from types import TracebackType
from typing import Annotated, Any, Protocol, Self

from pydantic import Field, model_validator

from atoll.documents import Document
from atoll.errors import NotThere
from atoll.store.run_id import RunId
from atoll.traffic.record import Source


def with_source(plain: Any) -> Any:
    """Plain data of a run; one that was written before runs said their source gets it from its engine."""
    if isinstance(plain, dict) and "source" not in plain and isinstance(plain.get("engine"), str):
        return plain | {"source": Source.of_engine(plain["engine"])}
    return plain


Moment = Annotated[float, Field(ge=0, lt=250_000_000_000)]  # seconds since 1970, up to what a calendar can show


class RunEntry(Document):
    """One run in the catalogue. The run's folder stays the truth; this is what finds it again."""

    run_id: RunId
    name: str
    engine: str
    source: Source  # where the figures come from
    study: str | None = None
    model: str | None = None
    gpu: str | None = None
    folder: str | None = None
    host: str | None = None  # the machine that the folder is on
    started_at: Moment = 0.0  # 0 for virtual time
    tags: tuple[str, ...] = ()
    summary: dict[str, Any] = Field(default_factory=dict)  # a Summary in plain form

    @model_validator(mode="before")
    @classmethod
    def _source_from_engine(cls, plain: Any) -> Any:
        return with_source(plain)

    def figure(self, *path: str) -> float | None:
        """A figure of the summary, as in `figure("ttft_s", "p50")`; None where there is none."""
        value: Any = self.summary
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def with_tag(self, tag: str) -> "RunEntry":
        return self if tag in self.tags else self.replace(tags=(*self.tags, tag))


class Query(Document):
    """Which entries are wanted; None: any."""

    study: str | None = None
    model: str | None = None
    engine: str | None = None
    folder: str | None = None
    tag: str | None = None
    source: Source | None = None
    skip: int = Field(default=0, ge=0)  # so many of the newest
    limit: int = Field(default=100, ge=1, le=10_000)


class Overview(Document):
    """What there is to choose from, over all entries, and how many a query finds."""

    count: int  # that the query finds, whatever its limit
    models: tuple[str, ...]
    studies: tuple[str, ...]
    tags: tuple[str, ...]


class Paper(Document):
    """Something else that is kept beside the runs: a conversation, a token. `words` is what it is searched by."""

    kind: str = Field(pattern=r"^[a-z]+$")
    key: str
    changed_at: Moment
    words: str = ""
    content: dict[str, Any] = Field(default_factory=dict)


class Catalog(Protocol):
    """What store/sqlite.py and store/mongo.py both are. What `save` has returned from survives a crash.

    Whatever is asked raises CatalogFailed when the catalogue is locked, full, broken or gone.
    """

    def save(self, entry: RunEntry) -> None:
        """Keep an entry; one with the same run_id is replaced."""
        ...

    def load(self, run_id: str) -> RunEntry:
        """Raises NotThere when there is none."""
        ...

    def find(self, query: Query) -> tuple[RunEntry, ...]:
        """Newest first; of the same age by run_id."""
        ...

    def overview(self, query: Query) -> Overview:
        """Without reading the entries: a page that shows a hundred of ten thousand asks this."""
        ...

    def tag(self, run_id: str, tag: str) -> RunEntry:
        """The entry with the tag added."""
        ...

    def remove(self, run_id: str) -> None:
        """Forget an entry; its folder stays. Raises NotThere when there is none."""
        ...

    def keep(self, paper: Paper) -> None:
        """Keep a paper; one of the same kind and key is replaced. What this has returned from survives a crash."""
        ...

    def papers(self, kind: str, *, words: str = "", limit: int = 100) -> tuple[Paper, ...]:
        """Those of a kind whose words hold these, whatever the case; the last changed first, by key where alike."""
        ...

    def paper(self, kind: str, key: str) -> Paper:
        """Raises NotThere when there is none."""
        ...

    def discard(self, kind: str, key: str) -> None:
        """Raises NotThere when there is none."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def not_there(run_id: str) -> NotThere:
    return NotThere(f"The catalogue has no run {run_id}. `atoll runs` lists those it has.")


def no_paper(kind: str, key: str) -> NotThere:
    return NotThere(f"There is no {kind} {key[:40]!r}.")
