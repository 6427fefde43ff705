"""The catalogue remembers finished runs, and costs nobody a measurement."""

import os
import shutil

import pytest

from atoll.analyse.summary import summarise
from atoll.store.catalog import Query
from atoll.store.folder import RunInfo, start_run, with_id
from atoll.traffic import RecordTable
from atoll.workflows import runs
from atoll.workflows.runs import forget_run, list_runs, reindex_runs, remember, tag_run

SUMMARY = summarise(RecordTable.from_records([]))


@pytest.fixture
def catalog(tmp_path):
    return f"sqlite:{tmp_path / 'runs.db'}"


def run_in(folder, catalog):
    info = with_id(folder, RunInfo(name="a", engine="emulated", atoll_version="0"))
    start_run(folder, info, layout=None, workload=None)
    assert remember(folder, info, SUMMARY, catalog=catalog) is None
    return info.run_id


def listed(catalog):
    return {entry.run_id for entry in list_runs(Query(), catalog=catalog)}


def test_folders_of_the_same_last_parts_are_two_runs(tmp_path, catalog):
    ids = {run_in(tmp_path / name / "a" / "b" / "c", catalog) for name in ("p", "q")}
    assert listed(catalog) == ids
    assert len(ids) == 2


def test_a_run_is_replaced_by_the_next_one_in_its_folder(tmp_path, catalog):
    run_in(tmp_path / "a", catalog)
    assert run_in(tmp_path / "a", catalog) in listed(catalog)  # gone on with
    shutil.rmtree(tmp_path / "a")
    assert {run_in(tmp_path / "a", catalog)} == listed(catalog)  # begun again


def test_two_boxes_with_the_same_folder_are_two_runs(tmp_path, catalog, monkeypatch):
    first = run_in(tmp_path / "a", catalog)
    shutil.rmtree(tmp_path / "a")
    monkeypatch.setattr(runs, "hostname", lambda: "another")
    assert listed(catalog) | {run_in(tmp_path / "a", catalog)} == listed(catalog)
    assert first in listed(catalog)


@pytest.mark.parametrize("name", ["실험", "a b", "🚀", ".hidden", "-x", "[x]", "a\nb", os.fsdecode(b"\xff")])
def test_a_folder_of_any_name_is_remembered(tmp_path, catalog, name):
    assert run_in(tmp_path / name, catalog) in listed(catalog)


@pytest.mark.parametrize(
    "error", [UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), OverflowError("too large"), OSError(28, "full")]
)
def test_whatever_goes_wrong_in_the_catalogue_is_one_sentence(tmp_path, monkeypatch, error):
    def fail(_):
        raise error

    monkeypatch.setattr(runs, "open_runs", fail)
    info = with_id(tmp_path, RunInfo(name="a", engine="emulated", atoll_version="0"))
    trouble = remember(tmp_path, info, SUMMARY)
    assert trouble.startswith(f"The run is not in the catalogue: {type(error).__name__}: ")
    assert len(trouble.splitlines()) == 1


def test_a_file_that_is_no_catalogue_is_one_sentence(tmp_path):
    (tmp_path / "runs.db").write_text("this is no database, whatever its name says")
    info = with_id(tmp_path, RunInfo(name="a", engine="emulated", atoll_version="0"))
    trouble = remember(tmp_path, info, SUMMARY, catalog=f"sqlite:{tmp_path / 'runs.db'}")
    assert "The run is not in the catalogue" in trouble
    assert "cannot be used as a catalogue" in trouble


def test_a_catalogue_is_made_anew_from_the_folders_with_tags_and_studies(tmp_path, catalog):
    study = tmp_path / "work" / "cards"
    first, second = run_in(study / "one", catalog), run_in(study / "two", catalog)
    (study / "study.yaml").write_text("name: cards\n")
    tag_run(first, "밤", catalog=catalog)
    elsewhere = run_in(tmp_path / "elsewhere", catalog)
    forget_run(second, catalog=catalog)
    gone = run_in(tmp_path / "work" / "gone", catalog)
    shutil.rmtree(tmp_path / "work" / "gone")
    (tmp_path / "work" / "broken").mkdir()
    (tmp_path / "work" / "broken" / "run.yaml").write_text("name: [")
    (tmp_path / "work" / "link").symlink_to(tmp_path / "elsewhere")
    for address in (catalog, f"sqlite:{tmp_path / 'new.db'}"):
        done = reindex_runs(tmp_path / "work", catalog=address)
        assert (done.found, done.gone) == (2, 1 if address == catalog else 0)
        assert len(done.troubles) == 1
        assert "broken" in done.troubles[0]
        found = {entry.run_id: entry for entry in list_runs(Query(), catalog=address)}
        assert set(found) == {first, second} | ({elsewhere} if address == catalog else set())
        assert gone not in found
        assert (found[first].tags, found[first].study, found[second].tags) == (("밤",), "cards", ())
        assert [entry.run_id for entry in list_runs(Query(tag="밤"), catalog=address)] == [first]


def test_the_catalogue_of_a_workspace_is_found_from_any_folder_in_it(tmp_path, monkeypatch):
    monkeypatch.delenv(runs.VARIABLE, raising=False)
    inside = tmp_path / "work" / "bundle" / "logs"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert runs.catalog_address() == runs.DEFAULT
    monkeypatch.chdir(tmp_path / "work")
    first = run_in(tmp_path / "work" / "runs" / "a", None)
    monkeypatch.chdir(inside)
    assert listed(None) == {first}
    assert runs.catalog_address("sqlite:mine.db") == "sqlite:mine.db"
    (tmp_path / "work").chmod(0o777)  # where anybody may write, anybody could lay a catalogue
    assert runs.catalog_address() == runs.DEFAULT
