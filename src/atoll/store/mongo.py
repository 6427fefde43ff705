"""The catalogue in a MongoDB database, for a control plane that several people share."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from atoll.errors import CatalogFailed, InputError, MissingProgram
from atoll.store.catalog import Overview, Paper, Query, RunEntry, no_paper, not_there

if TYPE_CHECKING:
    from pymongo.collection import Collection

_NEWEST_FIRST = (("started_at", -1), ("_id", 1))


class MongoCatalog:
    """One document a run; `_id` is the run_id. Writes are acknowledged from the journal."""

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        try:
            from pymongo import MongoClient, WriteConcern
            from pymongo.errors import PyMongoError
        except ImportError:
            raise MissingProgram("MongoDB needs pymongo. Run `pip install 'atoll[mongo]'`.") from None
        try:
            self._client: MongoClient[dict[str, Any]] = MongoClient(
                url, serverSelectionTimeoutMS=round(timeout_s * 1000), appname="atoll"
            )
            database = self._client.get_default_database("atoll")
            self._runs: Collection[dict[str, Any]] = database.get_collection(
                "runs", write_concern=WriteConcern(w=1, j=True)
            )
            self._runs.create_index(list(_NEWEST_FIRST))
            for field in ("tags", "model", "study", "source"):
                self._runs.create_index(field)
            self._papers: Collection[dict[str, Any]] = database.get_collection(
                "papers", write_concern=WriteConcern(w=1, j=True)
            )
            self._papers.create_index([("kind", 1), ("changed_at", -1), ("key", 1)])
        except PyMongoError as error:
            if hasattr(self, "_client"):
                self._client.close()
            raise InputError(f"The catalogue's MongoDB cannot be used: {error}") from None

    def save(self, entry: RunEntry) -> None:
        """Keep an entry; one with the same run_id is replaced."""
        with self._told():
            self._runs.replace_one({"_id": entry.run_id}, entry.to_plain() | {"_id": entry.run_id}, upsert=True)

    def load(self, run_id: str) -> RunEntry:
        """Raises InputError when there is none."""
        with self._told():
            found = self._runs.find_one({"_id": run_id})
        if found is None:
            raise not_there(run_id)
        return _entry(found)

    def find(self, query: Query) -> tuple[RunEntry, ...]:
        """Newest first; of the same age by run_id."""
        with self._told():
            found = self._runs.find(_condition(query)).sort(list(_NEWEST_FIRST)).skip(query.skip).limit(query.limit)
            return tuple(map(_entry, found))

    def overview(self, query: Query) -> Overview:
        """What there is to choose from, and how many the query finds."""
        with self._told():
            count = self._runs.count_documents(_condition(query))
            names = [sorted(filter(_is_name, self._runs.distinct(field))) for field in ("model", "study", "tags")]
        models, studies, tags = map(tuple, names)
        return Overview(count=count, models=models, studies=studies, tags=tags)

    def tag(self, run_id: str, tag: str) -> RunEntry:
        """The entry with the tag added."""
        entry = self.load(run_id).with_tag(tag)
        with self._told():
            self._runs.update_one({"_id": run_id}, {"$addToSet": {"tags": tag}})
        return entry

    def remove(self, run_id: str) -> None:
        """Forget an entry; its folder stays. Raises InputError when there is none."""
        with self._told():
            removed = self._runs.delete_one({"_id": run_id}).deleted_count
        if removed == 0:
            raise not_there(run_id)

    def keep(self, paper: Paper) -> None:
        """Keep a paper; one of the same kind and key is replaced."""
        place = f"{paper.kind}:{paper.key}"
        document = paper.to_plain() | {"_id": place, "found_by": paper.words.casefold()}
        with self._told():
            self._papers.replace_one({"_id": place}, document, upsert=True)

    def papers(self, kind: str, *, words: str = "", limit: int = 100) -> tuple[Paper, ...]:
        """The last changed first; of the same age by key."""
        wanted: dict[str, Any] = {"kind": kind}
        if words:
            wanted["found_by"] = {"$regex": re.escape(words.casefold())}
        order = [("changed_at", -1), ("key", 1)]
        with self._told():
            found = list(self._papers.find(wanted).sort(order).limit(limit))
        return tuple(map(_paper, found))

    def paper(self, kind: str, key: str) -> Paper:
        """Raises NotThere when there is none."""
        with self._told():
            found = self._papers.find_one({"_id": f"{kind}:{key}"})
        if found is None:
            raise no_paper(kind, key)
        return _paper(found)

    def discard(self, kind: str, key: str) -> None:
        """Raises NotThere when there is none."""
        with self._told():
            gone = self._papers.delete_one({"_id": f"{kind}:{key}"}).deleted_count
        if gone == 0:
            raise no_paper(kind, key)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong between here and the server is told in a sentence."""
        from pymongo.errors import PyMongoError

        try:
            yield
        except PyMongoError as error:
            raise CatalogFailed(f"The catalogue's MongoDB could not be used: {error}") from None

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_name(value: object) -> bool:
    """Whoever else writes to the database may have put anything there."""
    return isinstance(value, str) and value != ""


def _entry(found: dict[str, Any]) -> RunEntry:
    return RunEntry.from_plain({name: value for name, value in found.items() if name != "_id"}, origin="catalogue")


def _paper(found: dict[str, Any]) -> Paper:
    plain = {name: value for name, value in found.items() if name not in {"_id", "found_by"}}
    return Paper.from_plain(plain, origin="catalogue")


def _condition(query: Query) -> dict[str, Any]:
    wanted = {"study": query.study, "model": query.model, "engine": query.engine, "folder": query.folder}
    wanted |= {"tags": query.tag, "source": None if query.source is None else str(query.source)}
    return {name: value for name, value in wanted.items() if value is not None}
