"""Records of other machines, copied while they are written."""

from array import array

import pytest

from atoll.load import records
from atoll.load.mirror import Mirror, grown
from atoll.load.records import RecordLog
from atoll.load.recover import read_records


def add(log, number, *, start, replica="r"):
    log.add(
        number=number,
        user=number,
        turn=0,
        due=float("nan"),
        sent=start + number,
        first_byte=start + number + 0.1,
        times=array("d", [start + number + 0.2, start + number + 0.3]),
        done=start + number + 0.3,
        prompt_tokens=8,
        output_tokens=2,
        cached_tokens=0,
        status=200,
        error=None,
        detail=None,
        replica=replica and f"{replica}{number % 3}",
        outcome=0,
        counted=False,
    )


def wait(log):
    """Until the log's thread has written all that it was given."""
    log._tail._thread.submit(lambda: None).result()


def test_a_kill_of_the_driver_leaves_what_both_nodes_had_told_by_one_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_ROWS_A_TAIL", 20)
    starts = (1000.0, 5.0)  # the clocks of the nodes are far apart
    mirror = Mirror(tmp_path / "run", 1000.0, starts)
    logs = [RecordLog(start, tmp_path / f"node{node}", name=f"worker{node}-tail") for node, start in enumerate(starts)]
    for number in range(90):
        add(logs[number % 2], number, start=starts[number % 2])
        logs[number % 2].flush()
        logs[number % 2].end_of_cycle([])
        if number % 7 == 0:
            for node, log in enumerate(logs):
                wait(log)
                mirror.take(grown(tmp_path / f"node{node}" / "records", mirror.known(node)))
    for log in logs:
        log.close()
    kept = read_records(tmp_path / "run")
    assert len(kept) >= 80
    assert kept.number.tolist() == list(range(len(kept)))
    assert kept.sent_s == pytest.approx(range(len(kept)))
    assert kept.token_times(3) == pytest.approx([3.2, 3.3])
    assert kept.replica[:4] == ("r0", "r1", "r2", "r0")
    assert mirror.trouble is None


def test_a_piece_that_comes_twice_is_taken_once(tmp_path):
    mirror = Mirror(tmp_path / "run", 0.0, [0.0])
    log = RecordLog(0.0, tmp_path / "node", name="worker0-tail")
    add(log, 0, start=0.0, replica=None)
    log.flush()
    wait(log)
    pieces = grown(tmp_path / "node" / "records", {})
    for _again in range(2):
        mirror.take(pieces)
    log.close()
    assert len(read_records(tmp_path / "run")) == 1
