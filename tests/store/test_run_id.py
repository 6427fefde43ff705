"""Run ids: made once, readable, of any script, alike on no two boxes."""

import os
from pathlib import Path

import pytest

from atoll.store.catalog import RunEntry
from atoll.store.folder import RunInfo, read_info, start_run, with_id
from atoll.store.run_id import derived_run_id, new_run_id

INFO = RunInfo(name="a", engine="emulated", atoll_version="0")


def test_an_id_names_the_studys_folder_and_the_variant():
    assert new_run_id(Path("/srv/four-h100-nvl-vllm/2xTP2"), chance=lambda _: "1f") == "four-h100-nvl-vllm:2xTP2:1f"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("실험", "실험"),
        ("हिन्दी", "हिन्दी"),
        ("🚀", "🚀"),
        ("a b", "a-b"),
        (".hidden", "hidden"),
        ("--help", "help"),
        ("$(x)`'\"", "x"),
        ("a\nb", "a-b"),
        (os.fsdecode(b"\xff\xfe"), ""),
        ("가" * 80, "가" * 40),
    ],
)
def test_every_name_that_the_file_system_takes_is_a_name(name, shown):
    run_id = new_run_id(Path("/srv/x") / name, chance=lambda _: "1f")
    assert run_id.split(":") == ["x", *filter(None, [shown]), "1f"]
    assert RunEntry(run_id=run_id, name="n", engine="emulated").run_id == run_id


def test_a_name_is_one_however_its_accents_were_typed():
    ids = {new_run_id(Path(name), chance=lambda _: "1f") for name in ("/é", "/e\u0301")}
    assert ids == {"é:1f"}


def test_two_boxes_with_the_same_folder_have_two_ids(tmp_path):
    assert with_id(tmp_path, INFO).run_id != with_id(tmp_path, INFO).run_id


def test_a_run_keeps_its_id_when_it_goes_on_and_when_it_is_moved(tmp_path):
    info = with_id(tmp_path / "here", INFO)
    start_run(tmp_path / "here", info, layout=None, workload=None)
    assert with_id(tmp_path / "here", INFO) == info
    (tmp_path / "here").rename(tmp_path / "there")
    assert read_info(tmp_path / "there").run_id == info.run_id


def test_a_run_that_was_written_without_an_id_has_the_same_one_at_every_reading(tmp_path):
    for name in ("one", "two"):
        start_run(tmp_path / name, INFO, layout=None, workload=None)
    assert "run_id" not in (tmp_path / "one" / "run.yaml").read_text()
    ids = [read_info(tmp_path / name).run_id for name in ("one", "one", "two")]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] == with_id(tmp_path / "one", INFO).run_id


def test_a_derived_id_tells_runs_of_one_folder_apart_by_what_they_were():
    assert derived_run_id(Path("/srv/a"), "x", 1.0) != derived_run_id(Path("/srv/a"), "x", 2.0)
