"""The catalogue in one SQLite file: the default, nothing to install."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from types import TracebackType
from typing import Self

from atoll.errors import CatalogFailed, InputError
from atoll.store.catalog import Overview, Paper, Query, RunEntry, no_paper, not_there


def _m001_runs(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE runs (run_id TEXT PRIMARY KEY, started_at REAL NOT NULL, study TEXT, model TEXT, engine TEXT,"
        " entry TEXT NOT NULL)"
    )
    connection.execute("CREATE INDEX runs_by_age ON runs (started_at DESC, run_id)")


def _m002_tags(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE tags (run_id TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, tag TEXT NOT NULL,"
        " PRIMARY KEY (run_id, tag))"
    )
    connection.execute("CREATE INDEX tags_by_tag ON tags (tag)")


def _m003_papers(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE papers (kind TEXT NOT NULL, key TEXT NOT NULL, changed_at REAL NOT NULL, words TEXT NOT NULL,"
        " paper TEXT NOT NULL, PRIMARY KEY (kind, key))"
    )
    connection.execute("CREATE INDEX papers_by_age ON papers (kind, changed_at DESC, key)")


def _m004_source(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE runs ADD COLUMN source TEXT")
    rows = connection.execute("SELECT run_id, entry FROM runs").fetchall()
    sources = [(str(_entry(text).source), run_id) for run_id, text in rows]
    connection.executemany("UPDATE runs SET source = ? WHERE run_id = ?", sources)
    for column in ("source", "model", "study"):
        connection.execute(f"CREATE INDEX runs_by_{column} ON runs ({column}, started_at DESC, run_id)")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_m001_runs, _m002_tags, _m003_papers, _m004_source)


# SQLite's own, and what its Python makes of a damaged page: text that is none, a number that no Python float holds.
_OF_THE_FILE = (sqlite3.Error, UnicodeDecodeError, OverflowError)


class SqliteCatalog:
    """Entries as JSON beside the columns they are found by. Threads may share it: one is served at a time."""

    def __init__(self, path: str) -> None:
        self._path, self._turn = path, RLock()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # what save() has returned from survives a power cut
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.execute("PRAGMA busy_timeout = 5000")
            self._migrate()
        except (*_OF_THE_FILE, CatalogFailed) as error:
            raise InputError(f"{path} cannot be used as a catalogue: {str(error).rstrip('.')}.") from None

    def _migrate(self) -> None:
        """Bring an older file up to date, one numbered step at a time."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise sqlite3.DatabaseError(f"it was written by a newer atoll (schema {version})")
        for number, migrate in enumerate(MIGRATIONS[version:], start=version + 1):
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                migrate(self._connection)
                self._connection.execute(f"PRAGMA user_version = {number}")

    def save(self, entry: RunEntry) -> None:
        """Keep an entry; one with the same run_id is replaced."""
        with self._told(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(
                "INSERT INTO runs (run_id, started_at, study, model, engine, entry, source)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (run_id) DO UPDATE SET started_at = excluded.started_at, study = excluded.study,"
                " model = excluded.model, engine = excluded.engine, entry = excluded.entry, source = excluded.source",
                (
                    entry.run_id,
                    entry.started_at,
                    entry.study,
                    entry.model,
                    entry.engine,
                    json.dumps(entry.to_plain(), ensure_ascii=False),
                    str(entry.source),
                ),
            )
            self._connection.execute("DELETE FROM tags WHERE run_id = ?", (entry.run_id,))
            self._connection.executemany("INSERT INTO tags VALUES (?, ?)", [(entry.run_id, tag) for tag in entry.tags])

    def load(self, run_id: str) -> RunEntry:
        """Raises InputError when there is none."""
        with self._told():
            row = self._connection.execute("SELECT entry FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            raise not_there(run_id)
        return _entry(row[0])

    def find(self, query: Query) -> tuple[RunEntry, ...]:
        """Newest first; of the same age by run_id."""
        where, values = _condition(query)
        statement = f"SELECT entry FROM runs {where} ORDER BY started_at DESC, run_id LIMIT ? OFFSET ?"  # noqa: S608
        with self._told():
            rows = self._connection.execute(statement, (*values, query.limit, query.skip)).fetchall()
        return tuple(_entry(row[0]) for row in rows)

    def overview(self, query: Query) -> Overview:
        """What there is to choose from, and how many the query finds."""
        where, values = _condition(query)
        with self._told():
            (count,) = self._connection.execute(f"SELECT COUNT(*) FROM runs {where}", values).fetchone()  # noqa: S608
            models, studies, tags = (
                tuple(row[0] for row in self._connection.execute(_DISTINCT.format(column, table)).fetchall())
                for column, table in (("model", "runs"), ("study", "runs"), ("tag", "tags"))
            )
        return Overview(count=count, models=models, studies=studies, tags=tags)

    def tag(self, run_id: str, tag: str) -> RunEntry:
        """The entry with the tag added."""
        with self._turn:
            entry = self.load(run_id).with_tag(tag)
            self.save(entry)
        return entry

    def remove(self, run_id: str) -> None:
        """Forget an entry; its folder stays. Raises InputError when there is none."""
        with self._told():
            removed = self._connection.execute("DELETE FROM runs WHERE run_id = ?", (run_id,)).rowcount
        if removed == 0:
            raise not_there(run_id)

    def keep(self, paper: Paper) -> None:
        """Keep a paper; one of the same kind and key is replaced."""
        row = (paper.kind, paper.key, paper.changed_at, paper.words.casefold(), json.dumps(paper.to_plain()))
        with self._told():
            self._connection.execute("INSERT OR REPLACE INTO papers VALUES (?, ?, ?, ?, ?)", row)

    def papers(self, kind: str, *, words: str = "", limit: int = 100) -> tuple[Paper, ...]:
        """The last changed first; of the same age by key."""
        statement = (
            "SELECT paper FROM papers WHERE kind = ? AND instr(words, ?) > 0 ORDER BY changed_at DESC, key LIMIT ?"
            if words
            else "SELECT paper FROM papers WHERE kind = ? AND ? = '' ORDER BY changed_at DESC, key LIMIT ?"
        )
        with self._told():
            rows = self._connection.execute(statement, (kind, words.casefold(), limit)).fetchall()
        return tuple(Paper.from_plain(_plain(row[0]), origin="catalogue") for row in rows)

    def paper(self, kind: str, key: str) -> Paper:
        """Raises NotThere when there is none."""
        with self._told():
            row = self._connection.execute(
                "SELECT paper FROM papers WHERE kind = ? AND key = ?", (kind, key)
            ).fetchone()
        if row is None:
            raise no_paper(kind, key)
        return Paper.from_plain(_plain(row[0]), origin="catalogue")

    def discard(self, kind: str, key: str) -> None:
        """Raises NotThere when there is none."""
        with self._told():
            gone = self._connection.execute("DELETE FROM papers WHERE kind = ? AND key = ?", (kind, key)).rowcount
        if gone == 0:
            raise no_paper(kind, key)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """One thread at a time; what goes wrong in SQLite is told in a sentence."""
        try:
            with self._turn:
                yield
        except _OF_THE_FILE as error:
            raise CatalogFailed(f"The catalogue {self._path} could not be used: {error}.") from None

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# The next greater one at each step, so that the index is jumped along: 12 names of 10,000 rows cost 12 looks.
_DISTINCT = (
    "WITH RECURSIVE found (name) AS (SELECT MIN({0}) FROM {1} WHERE {0} IS NOT NULL UNION ALL"
    " SELECT (SELECT MIN({0}) FROM {1} WHERE {0} > name) FROM found WHERE name IS NOT NULL)"
    " SELECT name FROM found WHERE name IS NOT NULL AND name != ''"
)


def _condition(query: Query) -> tuple[str, list[object]]:
    """The WHERE of a query and its values."""
    wanted = {"study": query.study, "model": query.model, "engine": query.engine, "source": query.source}
    given = {name: str(value) for name, value in wanted.items() if value is not None}
    terms = [f"{name} = ?" for name in given]
    values: list[object] = list(given.values())
    if query.folder is not None:
        terms.append("json_extract(entry, '$.folder') = ?")
        values.append(query.folder)
    if query.tag is not None:
        terms.append("run_id IN (SELECT run_id FROM tags WHERE tag = ?)")
        values.append(query.tag)
    return (f"WHERE {' AND '.join(terms)}" if terms else ""), values


def _entry(text: object) -> RunEntry:
    return RunEntry.from_plain(_plain(text), origin="catalogue")


def _plain(text: object) -> object:
    """What a row holds; raises CatalogFailed for what no save of ours has written."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        raise CatalogFailed(
            "The catalogue is damaged: a row holds no JSON. `atoll runs reindex` makes it anew from the runs' folders."
        ) from None
