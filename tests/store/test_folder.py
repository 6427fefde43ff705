"""A run's folder gives back what was put in."""

import tempfile

import numpy as np
import pytest

from atoll.analyse import summarise
from atoll.errors import BadRun
from atoll.store.folder import (
    RunInfo,
    finish_run,
    keep_run,
    read_info,
    read_records,
    read_run,
    start_run,
    write_records,
)
from atoll.traffic import Outcome, Record, RecordTable, Workload

INFO = RunInfo(name="a", engine="emulated", atoll_version="0")


def measured():
    return RecordTable.from_records(
        [
            Record(number=0, user=0, sent_s=0.0, token_s=[0.2, 0.3], done_s=0.3, output_tokens=2, replica="0"),
            Record(number=1, user=1, sent_s=0.1, outcome=Outcome.FAILED, error="reset", detail="peer closed"),
        ]
    )


def simulated():
    """Two requests that share the clock of one batch."""
    table = measured()
    own = {name: getattr(table, name) for name in table.__slots__}
    clock = {"token_clock": np.array([0.2, 0.3, 0.4]), "span_row": np.array([0, 1])}
    return RecordTable(**(own | clock | {"span_start": np.array([0, 0]), "span_stop": np.array([2, 3])}))


@pytest.mark.parametrize("table", [measured(), simulated(), RecordTable.from_records([])])
def test_records_come_back_as_they_were_written(tmp_path, table):
    write_records(tmp_path, table)
    back = read_records(tmp_path)
    for name in table.__slots__:
        expected, found = getattr(table, name), getattr(back, name)
        if isinstance(expected, tuple):
            assert found == expected
        else:
            np.testing.assert_array_equal(found, expected)


def test_a_run_that_an_older_atoll_wrote_gets_its_source_from_its_engine(tmp_path):
    for engine, source in (("simulated", "simulated"), ("emulated", "emulated"), ("vllm", "measured")):
        (tmp_path / "run.yaml").write_text(f"schema_version: 1\nname: a\nengine: {engine}\natoll_version: 0.1.0\n")
        assert read_info(tmp_path).source == source


def test_another_reader_reads_the_parquet(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    write_records(tmp_path, measured())
    plain = pq.read_table(tmp_path / "records.parquet").to_pydict()
    assert plain["outcome"] == ["ok", "failed"]
    assert plain["token_s"] == [[0.2, 0.3], []]


def test_a_finished_run_is_read_whole(tmp_path):
    workload = Workload(users=2, prompt=10, output=2, duration="1s")
    start_run(tmp_path, INFO, layout=None, workload=workload)
    finish_run(tmp_path, INFO, measured(), summarise(measured()))
    run = read_run(tmp_path)
    assert run.info.complete
    assert run.workload == workload
    assert run.summary == summarise(measured())


def test_a_run_cut_before_its_end_says_so(tmp_path):
    start_run(tmp_path, INFO, layout=None, workload=None)
    run = read_run(tmp_path)
    assert not run.info.complete
    assert run.summary.requests.sent == 0


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(BadRun, match=r"has no run\.yaml"):
        read_run(tmp_path)


def test_a_damaged_record_file_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "records.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(BadRun, match="no readable Parquet"):
        read_records(tmp_path)


def test_a_run_that_its_folder_has_no_room_for_is_kept_whole_elsewhere(tmp_path, monkeypatch):
    spare = tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spare))
    folder = tmp_path / "run"
    (folder / "records.parquet" / "in the way").mkdir(parents=True)  # stands for a disk that refuses this file
    why = keep_run(folder, INFO, measured(), summarise(measured()))
    (kept,) = spare.iterdir()
    assert why == f"{folder / 'records.parquet'} cannot be written: Is a directory; all 2 records are in {kept}."
    assert len(read_run(kept).table) == 2
    assert (folder / "summary.json").is_file()


def test_without_room_anywhere_the_sentence_says_how_many_records_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    folder = tmp_path / "run"
    (folder / "records.parquet" / "in the way").mkdir(parents=True)
    why = keep_run(folder, INFO, measured(), summarise(measured()))
    assert why.endswith(f"; 0 of 2 records can be read from {folder}.")


def test_a_run_with_room_is_kept_in_its_folder(tmp_path):
    assert keep_run(tmp_path, INFO, measured(), summarise(measured())) is None
    assert read_run(tmp_path).info.complete
