"""The catalogue of runs: one set of tests, run on SQLite and over MongoDB's wire protocol.

The MongoDB side is stand_ins/mongo.py.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from atoll.errors import CatalogFailed, InputError
from atoll.store.catalog import Paper, Query, RunEntry
from atoll.store.opening import open_catalog
from atoll.store.sqlite import _m001_runs
from atoll.traffic.record import Source
from stand_ins.mongo import mongo_server
from stand_ins.patience import PATIENCE_S


def entry(run_id="a", **fields):
    return RunEntry(**({"run_id": run_id, "name": "2xTP2", "engine": "emulated", "started_at": 1.0} | fields))


@pytest.fixture(scope="module")
def mongo(tmp_path_factory):
    with mongo_server(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture(params=["sqlite", "mongodb"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'runs.db'}"
    name = "t" + str(abs(hash(request.node.name)))
    return request.getfixturevalue("mongo").url(name)


@pytest.fixture
def catalog(url):
    with open_catalog(url) as opened:
        yield opened


def test_a_saved_run_is_loaded_as_it_was(catalog):
    kept = entry(study="four", model="Qwen/Qwen2.5-32B-Instruct", tags=("best",), summary={"ttft_s": {"p50": 0.25}})
    catalog.save(kept)
    assert catalog.load("a") == kept


def test_saving_again_replaces(catalog):
    catalog.save(entry(tags=("old",)))
    catalog.save(entry(name="1xTP4"))
    assert catalog.load("a").name == "1xTP4"
    assert catalog.find(Query(tag="old")) == ()


def test_a_run_that_is_not_there_is_an_error_that_says_so(catalog):
    for call in (catalog.load, catalog.remove, lambda run_id: catalog.tag(run_id, "x")):
        with pytest.raises(InputError, match="no run nothing"):
            call("nothing")


def test_runs_are_found_newest_first(catalog):
    for run_id, age in (("old", 1.0), ("new", 3.0), ("mid", 2.0), ("mid-b", 2.0)):
        catalog.save(entry(run_id, started_at=age))
    assert [found.run_id for found in catalog.find(Query())] == ["new", "mid", "mid-b", "old"]
    assert [found.run_id for found in catalog.find(Query(limit=2))] == ["new", "mid"]


def test_a_page_of_many_runs_asks_for_its_part_and_what_there_is_to_choose_from(catalog):
    for number in range(10):
        model = None if number == 9 else f"m{number % 3}"
        source = Source.SIMULATED if number % 2 else Source.MEASURED
        study = "s" if number < 4 else None
        catalog.save(
            entry(f"r{number}", started_at=number, model=model, study=study, source=source, tags=(f"t{number % 2}",))
        )
    query = Query(source=Source.SIMULATED, skip=1, limit=2)
    assert [found.run_id for found in catalog.find(query)] == ["r7", "r5"]
    found = catalog.overview(query)
    assert (found.count, found.models, found.studies, found.tags) == (5, ("m0", "m1", "m2"), ("s",), ("t0", "t1"))
    assert catalog.overview(Query(tag="t0", model="m1")).count == 1
    assert catalog.overview(Query(model="none")).count == 0


@pytest.mark.parametrize("run_id", ["실험:2xTP2:1f", "हिन्दी", "🚀", ".hidden", "-x", "a b", "50%?#&", "a" * 600])
def test_a_run_is_found_by_a_name_of_any_script(catalog, run_id):
    kept = entry(run_id, folder=f"/srv/{run_id}")
    catalog.save(kept)
    assert catalog.load(run_id) == kept
    assert catalog.tag(run_id, "x").tags == ("x",)
    catalog.remove(run_id)
    assert catalog.find(Query()) == ()


@pytest.mark.parametrize("run_id", ["", ".", "..", "a/b", "a\nb", "\x1b[2J"])
def test_an_id_that_could_not_stand_in_an_address_is_refused(run_id):
    with pytest.raises(ValueError, match="run_id"):
        entry(run_id)


def test_a_run_is_found_by_its_folder(catalog):
    catalog.save(entry("a", folder="/srv/실험", host="one"))
    catalog.save(entry("b", folder="/srv/b"))
    assert [found.run_id for found in catalog.find(Query(folder="/srv/실험"))] == ["a"]


def test_runs_are_found_by_study_model_engine_and_tag(catalog):
    catalog.save(entry("a", study="one", model="m", tags=("x", "y")))
    catalog.save(entry("b", study="one", engine="vllm"))
    catalog.save(entry("c", study="two", model="m"))
    found = {
        "study": catalog.find(Query(study="one")), "model": catalog.find(Query(model="m")),
        "engine": catalog.find(Query(engine="vllm")), "tag": catalog.find(Query(tag="y")),
        "both": catalog.find(Query(study="one", model="m")), "none": catalog.find(Query(study="three")),
    }  # fmt: skip
    names = {key: sorted(one.run_id for one in value) for key, value in found.items()}
    assert names == {
        "study": ["a", "b"], "model": ["a", "c"], "engine": ["b"], "tag": ["a"], "both": ["a"], "none": []
    }  # fmt: skip


def test_a_tag_is_added_once(catalog):
    catalog.save(entry())
    catalog.tag("a", "keep")
    assert catalog.tag("a", "keep").tags == ("keep",)
    assert catalog.load("a").tags == ("keep",)
    assert len(catalog.find(Query(tag="keep"))) == 1


def test_a_removed_run_is_gone_with_its_tags(catalog):
    catalog.save(entry(tags=("x",)))
    catalog.remove("a")
    assert catalog.find(Query(tag="x")) == ()
    assert catalog.find(Query()) == ()


def test_what_was_saved_is_there_after_reopening(url):
    with open_catalog(url) as first:
        first.save(entry(tags=("x",)))
    with open_catalog(url) as second:
        assert second.load("a").tags == ("x",)


def test_text_of_any_script_survives(catalog):
    kept = entry(name="네 장의 H100", model="모델", tags=("최고",))
    catalog.save(kept)
    assert catalog.load("a") == kept
    assert catalog.find(Query(tag="최고")) == (kept,)


def test_a_killed_mongodb_server_has_what_it_acknowledged(mongo):
    with open_catalog(mongo.url("killed")) as catalog:
        catalog.save(entry("before"))
    mongo.kill()
    mongo.start()
    with open_catalog(mongo.url("killed")) as catalog:
        assert catalog.load("before").run_id == "before"
        catalog.save(entry("after"))
        assert len(catalog.find(Query())) == 2


def test_a_killed_sqlite_writer_leaves_what_was_acknowledged(tmp_path):
    """A process saves without end, prints each id once it is kept, and is killed: every printed id is there."""
    writer = textwrap.dedent("""
        import sys
        from atoll.store.catalog import RunEntry
        from atoll.store.opening import open_catalog
        catalog = open_catalog(sys.argv[1])
        for number in range(10**6):
            catalog.save(RunEntry(run_id=f"r{number}", name="n", engine="simulated", started_at=float(number)))
            print(f"r{number}", flush=True)
    """)
    url = f"sqlite:{tmp_path / 'runs.db'}"
    process = subprocess.Popen([sys.executable, "-c", writer, url], stdout=subprocess.PIPE, text=True)
    acknowledged = [process.stdout.readline().strip() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += process.stdout.read().split()
    process.wait(timeout=PATIENCE_S)
    process.stdout.close()
    with open_catalog(url) as catalog:
        kept = {found.run_id for found in catalog.find(Query(limit=10_000))}
    assert set(acknowledged) <= kept


def test_a_catalogue_that_another_program_holds_is_told_of_in_a_sentence(tmp_path):
    path = tmp_path / "runs.db"
    with open_catalog(f"sqlite:{path}") as catalog:
        catalog._connection.execute("PRAGMA busy_timeout = 1")  # the sentence is the point, not the five seconds
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CatalogFailed, match=r"runs\.db could not be used: database is locked"):
            catalog.save(entry())
        other.close()
        catalog.save(entry())


def test_a_file_of_the_first_schema_is_brought_up_to_date(tmp_path):
    path = tmp_path / "runs.db"
    old = sqlite3.connect(path)
    _m001_runs(old)
    old.execute("PRAGMA user_version = 1")
    old.execute("INSERT INTO runs VALUES ('a', 1.0, NULL, NULL, 'emulated', ?)", (entry().to_json(),))
    old.commit()
    old.close()
    with open_catalog(f"sqlite:{path}") as catalog:
        assert catalog.tag("a", "x") == entry(tags=("x",))


def test_a_file_of_a_newer_atoll_is_left_alone(tmp_path):
    path = tmp_path / "runs.db"
    new = sqlite3.connect(path)
    new.execute("PRAGMA user_version = 99")
    new.close()
    with pytest.raises(InputError, match="newer atoll"):
        open_catalog(f"sqlite:{path}")


@pytest.mark.parametrize("url", ["runs.db", "postgres://x/y", ""])
def test_an_address_of_another_kind_is_refused(url):
    with pytest.raises(InputError, match="is no catalogue"):
        open_catalog(url)


def test_a_mongodb_that_is_not_there_is_an_error_in_a_sentence():
    pytest.importorskip("pymongo")
    from atoll.store.mongo import MongoCatalog

    with pytest.raises(InputError, match="cannot be used"):
        MongoCatalog("mongodb://127.0.0.1:9/none", timeout_s=0.3)


def test_papers_are_kept_searched_and_discarded(url):
    with open_catalog(url) as catalog:
        catalog.keep(Paper(kind="conversation", key="a", changed_at=1.0, words="NVLink 질문", content={"n": [1, "二"]}))
        catalog.keep(Paper(kind="conversation", key="b", changed_at=2.0, words="a.b*c"))
        catalog.keep(Paper(kind="token", key="a", changed_at=3.0))
        catalog.keep(Paper(kind="conversation", key="a", changed_at=3.0, words="NVLink 질문", content={"n": [2, "二"]}))
    with open_catalog(url) as catalog:
        assert [paper.key for paper in catalog.papers("conversation")] == ["a", "b"]
        assert [paper.key for paper in catalog.papers("conversation", words="nvlink 질")] == ["a"]
        assert [paper.key for paper in catalog.papers("conversation", words="A.B*")] == ["b"]
        assert catalog.papers("conversation", words=".*") == ()
        assert [paper.key for paper in catalog.papers("conversation", limit=1)] == ["a"]
        assert catalog.paper("conversation", "a").content == {"n": [2, "二"]}
        catalog.discard("conversation", "a")
        for missing in (lambda: catalog.paper("conversation", "a"), lambda: catalog.discard("conversation", "a")):
            with pytest.raises(InputError, match="There is no conversation"):
                missing()
        assert catalog.paper("token", "a").changed_at == 3.0
