"""A catalogue, an upload or a server's answer of any kind gives a result or one sentence of ours, from a seed.

`ATOLL_FUZZ_S=3600 pytest tests/laws/test_any_catalogue.py` goes on for so many seconds each; ATOLL_FUZZ_SEED chooses others.
"""

import contextlib
import io
import json
import random
import sqlite3
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from atoll.cli.commands.runs import list_ as list_runs
from atoll.errors import AtollError, NotThere
from atoll.store.catalog import Paper, Query, RunEntry
from atoll.store.mongo import MongoCatalog
from atoll.store.sqlite import SqliteCatalog
from atoll.workflows.uploads import Hints, accept, check_up, pack, text_of, unpack
from laws.test_any_input import FEWEST, ODD, SECONDS, SEED, mutant

ENTRY = RunEntry(
    run_id="a:b:4cc3d5b3f8", name="r", folder="/runs/r", started_at=5.5, study="s", model="m", engine="external",
    source="measured", tags=("good",), summary={"ttft_s": {"p95": 1.0}, "output_tokens_per_s": 9.0},
)  # fmt: skip
PAPER = Paper(kind="chat", key="k", changed_at=5.5, words="hello", content={"a": 1})


def use(catalogue) -> None:
    """Everything that is asked of a catalogue."""
    for ask in (
        lambda: catalogue.find(Query()),
        lambda: catalogue.find(Query(tag="good", study="s", folder="/runs/r")),
        lambda: catalogue.overview(Query()),
        lambda: catalogue.load(ENTRY.run_id),
        lambda: catalogue.papers("chat", words="hello"),
        lambda: catalogue.paper("chat", "k"),
        lambda: catalogue.tag(ENTRY.run_id, "x"),
        lambda: catalogue.save(ENTRY),
        lambda: catalogue.keep(PAPER),
        lambda: catalogue.remove(ENTRY.run_id),
        lambda: catalogue.discard("chat", "k"),
    ):
        told(ask)


ENDS: Counter[str] = Counter()


def told(call: Callable[[], object]) -> None:
    """A result or a sentence; anything else is the test's failure."""
    try:
        call()
        ENDS["accepted"] += 1
    except AtollError as error:
        ENDS["refused"] += 1
        assert str(error).strip()


def keeps_on(name: str, fewest: int, once: Callable[[random.Random], None]) -> None:
    dice = random.Random(f"{SEED} {name}")
    ENDS.clear()
    ends, done = time.monotonic() + SECONDS, 0
    while done < fewest or time.monotonic() < ends:
        state = dice.getstate()
        try:
            once(dice)
        except Exception as error:
            raise AssertionError(
                f"{name}: number {done} of seed {SEED} fell: {type(error).__name__}: {error}"
            ) from error
        assert state != dice.getstate()
        done += 1
    if SECONDS:
        print(f"{name}: seed {SEED}, {done} inputs, {dict(ENDS)}")
    assert ENDS["refused"]


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "good.db"
    with SqliteCatalog(str(path)) as catalogue:
        catalogue.save(ENTRY)
        catalogue.keep(PAPER)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def test_a_damaged_sqlite_file_is_a_sentence(good, tmp_path):
    """Bytes changed, cut off, doubled."""
    whole = good.read_bytes()

    def once(dice: random.Random) -> None:
        data = bytearray(whole)
        for _ in range(dice.randint(1, 40)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        path = tmp_path / "bad.db"
        for leftover in tmp_path.glob("bad.db*"):
            leftover.unlink()
        path.write_bytes(data)
        told(lambda: opened(path))

    keeps_on("sqlite bytes", 60, once)


def test_a_hostile_sqlite_file_is_a_sentence(good, tmp_path):
    """Rows and tables that are whole, and hold anything."""
    values = [*ODD, None, 5, 1e308, b"\\xff\\x00", "[]", "{}", json.dumps({"run_id": []})]

    def once(dice: random.Random) -> None:
        path = tmp_path / "bad.db"
        for leftover in tmp_path.glob("bad.db*"):
            leftover.unlink()
        path.write_bytes(good.read_bytes())
        connection = sqlite3.connect(path)
        table, column = dice.choice([("runs", "entry"), ("runs", "tags"), ("papers", "paper"), ("runs", "started_at"),
                                     ("papers", "changed_at"), ("tags", "tag")])  # fmt: skip
        text = json.dumps((ENTRY if table == "runs" else PAPER).to_plain(), indent=1)
        value = mutant(text, dice) if dice.random() < 0.6 else dice.choice(values)
        try:
            if dice.random() < 0.1:
                connection.execute(f"DROP TABLE {table}")
            elif dice.random() < 0.1:
                connection.execute(f"PRAGMA user_version = {dice.choice([0, 1, 2, 99, -1, 2**31 - 1])}")
            else:
                connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
            connection.commit()
        except (sqlite3.Error, UnicodeEncodeError):
            dice.random()
        connection.close()
        told(lambda: opened(path))

    keeps_on("sqlite rows", 60, once)


def opened(path: Path) -> None:
    with SqliteCatalog(str(path)) as catalogue:
        told(lambda: list_runs(catalog=f"sqlite:{path}"))
        use(catalogue)


def test_hostile_answers_of_a_mongodb_are_a_sentence():
    """What the driver would hand on of documents that somebody else wrote."""
    pytest.importorskip("pymongo")
    from pymongo.errors import PyMongoError

    class Answers:
        """A collection that says anything."""

        def __init__(self, dice: random.Random) -> None:
            self.dice = dice

        def document(self) -> object:
            plain = (ENTRY.to_plain() | {"_id": ENTRY.run_id}) if self.dice.random() < 0.5 else PAPER.to_plain()
            for _ in range(self.dice.randint(0, 3)):
                plain[self.dice.choice([*plain, "x"])] = self.dice.choice(
                    [*ODD, None, 5, 2**70, b"x", [], {}, [[]], {"$where": 1}, float("nan"), ENTRY, object]
                )
            return self.dice.choice([plain, plain, plain, {}, {"_id": plain}])

        def __getattr__(self, name: str) -> Callable[..., object]:
            def answer(*_args: object, **_more: object) -> object:
                if self.dice.random() < 0.1:
                    raise PyMongoError("the server said no")
                if name == "find":
                    return Found([self.document() for _ in range(self.dice.randint(0, 3))])
                if name == "distinct":
                    return self.dice.choice([["a"], [], [None, "a"], [5, "a"], [[], {}], ["a", None, 1.5]])
                if name == "count_documents":
                    return self.dice.choice([0, 5, -1])
                if name == "find_one":
                    return self.dice.choice([None, self.document()])
                return SimpleNamespace(deleted_count=self.dice.choice([0, 1]))

            return answer

    class Found(list):
        def sort(self, *_args: object) -> "Found":
            return self

        skip = limit = sort

    def once(dice: random.Random) -> None:
        catalogue = object.__new__(MongoCatalog)
        catalogue._runs = catalogue._papers = Answers(dice)
        use(catalogue)

    keeps_on("mongodb", FEWEST, once)


COMPOSE = "services:\n  a:\n    image: vllm/vllm-openai:v0.32.0\n    command: [m/x, --max-model-len, '5']\n"


def archive(members: dict[str, str]) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            for name, text in members.items():
                made.writestr(name, text.encode(errors="replace"))
        return file.getvalue()


def test_any_upload_is_a_checkup_or_a_sentence():
    """Files and archives with odd names and contents, whole and damaged, looked at and mended."""
    names = ["compose.yaml", "nginx.conf", "../x", "/etc/passwd", "a/../b.yaml", "", ".", "x" * 300, "a\0b", "가.yaml", "a\nb",
             "CON", "..\\x", "\udcff.yaml", "a.zip", "layout.yaml", "topo.txt"]  # fmt: skip

    def once(dice: random.Random) -> None:
        files = []
        for _ in range(dice.randint(1, 3)):
            text = mutant(COMPOSE, dice)
            if dice.random() < 0.5:
                files.append((dice.choice(names), text.encode(errors="replace")))
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a name twice
                usable = [name for name in names if name and name.isprintable()]
                data = bytearray(archive({dice.choice(usable): text for _ in range(dice.randint(1, 3))}))
            for _ in range(dice.choice([0, 0, 1, 5, 30])):
                data[dice.randrange(len(data))] = dice.randrange(256)
            files.append((dice.choice(["a.zip", "b.ZIP", "compose.yaml"]), bytes(data)))
        told(lambda: looked_at(files))

    keeps_on("uploads", FEWEST, once)


def looked_at(files: list[tuple[str, bytes]]) -> None:
    held = {name: text_of(data) for name, data in unpack(files).items()}
    checkup = check_up(held, Hints(), tuple(held))
    steps = [accept(held, Hints(), found.key, tuple(held)) for found in checkup.found[:2] if found.edits]
    with contextlib.suppress(NotThere):
        pack({name: text.encode() for name, text in held.items()}, steps[:1])
