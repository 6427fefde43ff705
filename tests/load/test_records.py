"""What is on disk while a run is under way, and what a kill leaves."""

import asyncio
import os
import signal
import subprocess
import sys
from array import array
from dataclasses import dataclass, field

import numpy as np
import pytest

from atoll.errors import BadRun
from atoll.load import records, rounds, sender
from atoll.load.records import RecordLog
from atoll.load.recover import read_records
from atoll.load.run import LoadControl, measure_load
from atoll.load.target import RequestOptions
from atoll.traffic.workload import Workload
from stand_ins.clock import ClockLoop, ManualClock
from stand_ins.patience import beside, started, turns, until, wait_until


@dataclass
class Open:
    number: int
    times: array = field(default_factory=lambda: array("d"))
    user: int = 0
    turn: int = 0
    due: float = float("nan")
    sent: float = 100.5
    first_byte: float = 100.6
    prompt_tokens: int = 8
    status: int = 0
    replica: str | None = None
    logged: int = 0
    resent: int = 0


def add(log, number, times, **changes):
    row = {
        "user": number,
        "turn": 0,
        "due": float("nan"),
        "sent": 100.0 + number,
        "first_byte": 100.1 + number,
        "done": 101.0 + number,
        "prompt_tokens": 8,
        "output_tokens": len(times),
        "cached_tokens": 0,
        "status": 200,
        "error": None,
        "detail": None,
        "replica": "1",
        "outcome": 0,
        "counted": False,
    }
    log.add(number=number, times=array("d", times), **(row | changes))


def test_the_table_has_seconds_from_the_start_in_the_order_of_sending():
    log = RecordLog(100.0)
    add(log, 1, [101.5, 101.7])
    add(log, 0, [100.5], outcome=1, error="stall", detail="nothing came", replica=None)
    table = log.table()
    assert table.number.tolist() == [0, 1]
    assert table.outcome == ("failed", "ok")
    assert table.error == ("stall", None)
    assert table.replica == (None, "1")
    assert table.token_times(1) == pytest.approx([1.5, 1.7])
    assert table.first_token_s == pytest.approx([0.5, 1.5])
    assert table.done_s == pytest.approx([1.0, 2.0])


def test_what_is_on_disk_is_what_is_in_memory(tmp_path):
    log = RecordLog(100.0, tmp_path)
    for number in range(5):
        add(log, number, [100.5 + number, 100.6 + number], error="http_503" if number == 2 else None)
        log.flush()
    log.close()
    kept, table = read_records(tmp_path), log.table()
    assert kept.number.tolist() == table.number.tolist()
    assert kept.error == table.error
    assert kept.token_clock == pytest.approx(table.token_clock)
    assert kept.span_stop.tolist() == table.span_stop.tolist()


def test_a_request_under_way_is_there_as_cancelled_with_all_its_times(tmp_path):
    log = RecordLog(100.0, tmp_path)
    add(log, 0, [100.5])
    waiting = Open(7)
    for moment in (100.7, 100.8, 100.8, 100.9):
        waiting.times.append(moment)
        log.flush([waiting])
    log.close()
    kept = read_records(tmp_path)
    assert kept.number.tolist() == [0, 7]
    assert kept.outcome == ("ok", "cancelled")
    assert kept.error == (None, "killed")
    assert kept.token_times(1) == pytest.approx([0.7, 0.8, 0.8, 0.9])


def test_a_request_under_way_names_its_replica_once_the_header_was_seen(tmp_path):
    log = RecordLog(100.0, tmp_path)
    first, second = Open(1), Open(2)
    log.flush([first, second])
    second.replica, second.status = "gpu-3", 200
    log.flush([first, second])
    log.close()
    kept = read_records(tmp_path)
    assert kept.replica == (None, "gpu-3")
    assert kept.status.tolist() == [0, 200]
    assert kept.error == ("killed", "killed")


def test_a_request_that_ended_later_is_there_once(tmp_path):
    log = RecordLog(100.0, tmp_path)
    waiting = Open(3, times=array("d", [100.7]))
    log.flush([waiting])
    add(log, 3, [100.7, 100.8])
    log.close()
    kept = read_records(tmp_path)
    assert kept.outcome == ("ok",)
    assert kept.token_times(0) == pytest.approx([0.7, 0.8])


def test_long_tails_become_parts_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_TOKENS_A_TAIL", 20)
    log = RecordLog(100.0, tmp_path)
    waiting = Open(1000, times=array("d", [100.2]))
    for number in range(40):
        add(log, number, [100.5 + number, 100.6 + number], error="stall" if number % 7 == 0 else None)
        waiting.times.append(101.0 + number)
        log.flush([waiting])
        log.end_of_cycle([waiting])
    log.close()
    names = sorted(path.name for path in (tmp_path / "records").glob("*"))
    assert sum(name.startswith("part") for name in names) >= 2
    kept = read_records(tmp_path)
    assert sorted(kept.number.tolist()) == [*range(40), 1000]
    row = kept.number.tolist().index(1000)
    assert len(kept.token_times(row)) == 41
    assert len(kept.token_clock) == 40 * 2 + 41
    assert log.table().error.count("stall") == kept.error.count("stall") == 6


@pytest.mark.parametrize("cut", [1, 60, 153, 200])
def test_half_a_row_at_the_end_is_left_out(tmp_path, cut):
    log = RecordLog(100.0, tmp_path)
    for number in range(4):
        add(log, number, [100.5 + number] * 3)
    log.close()
    tail = tmp_path / "records" / "tail-00001.rows"
    tail.write_bytes(tail.read_bytes()[:-cut])
    assert read_records(tmp_path).number.tolist() == list(range(3 if cut < 153 else 2))


def test_rows_without_their_times_are_left_out(tmp_path):
    log = RecordLog(100.0, tmp_path)
    for number in range(4):
        add(log, number, [100.5 + number] * 3)
    log.close()
    tail = tmp_path / "records" / "tail-00001.tokens"
    tail.write_bytes(tail.read_bytes()[:-9])
    assert read_records(tmp_path).number.tolist() == [0, 1, 2]


def test_a_kill_between_opening_the_files_of_a_tail_costs_nothing(tmp_path):
    log = RecordLog(0.0, tmp_path)
    log.close()
    (tmp_path / "records" / "tail-00001.tokens").unlink()
    assert len(read_records(tmp_path)) == 0


def test_a_folder_without_records_says_so(tmp_path):
    with pytest.raises(BadRun, match="holds no records"):
        read_records(tmp_path)


def test_a_full_disk_costs_the_file_and_not_the_records(tmp_path, monkeypatch):
    log = RecordLog(100.0, tmp_path)
    monkeypatch.setattr("atoll.load.tail.os.write", full)
    add(log, 0, [100.5])
    log.flush()
    log.close()
    assert "No space left" in log.lost
    assert len(log.table()) == 1


def full(*_):
    raise OSError(28, "No space left on device")


def test_what_the_disk_refused_is_there_when_it_has_room_again(tmp_path, monkeypatch):
    """Also a write that failed half-way: nothing is there twice."""
    monkeypatch.setattr("atoll.load.tail._TRIES_APART", 1)
    log, real, left = RecordLog(100.0, tmp_path), os.write, [200]

    def nearly_full(handle, data):
        if left[0] <= 0:
            full()
        left[0] -= len(data)
        return real(handle, data)

    monkeypatch.setattr("atoll.load.tail.os.write", nearly_full)
    for number in range(6):
        add(log, number, [100.5 + number, 100.6 + number], error=f"http_50{number}")
        log.flush()
        if number == 3:
            log._tail._thread.submit(lambda: None).result()
            assert log.lost is not None
            left[0] = 10**6
    log.close()
    assert log.lost is None
    assert "No space left" in log.trouble
    kept = read_records(tmp_path)
    assert kept.number.tolist() == list(range(6))
    assert kept.error == log.table().error
    assert kept.token_clock == pytest.approx(log.table().token_clock)


def test_the_tail_of_an_older_version_is_read(tmp_path):
    log = RecordLog(100.0, tmp_path, ids="run-")
    add(log, 7, [100.5, 100.6], error="stall")
    log.close()
    assert read_records(tmp_path).request_id == ("run-7",)
    place = tmp_path / "records"
    (place / "clock.json").write_text('{"origin": 100.0}')
    tail = place / "tail-00001.rows"
    tail.write_bytes(tail.read_bytes()[:128])
    kept = read_records(tmp_path)
    assert (kept.number.tolist(), kept.error, kept.request_id, kept.model) == ([7], ("stall",), (None,), (None,))


def test_removed_when_the_run_is_whole(tmp_path):
    log = RecordLog(100.0, tmp_path)
    add(log, 0, [100.5])
    log.close()
    records.remove(tmp_path)
    assert not (tmp_path / "records").exists()


def test_every_request_under_way_is_written_within_a_second_of_ticks(naughty, monkeypatch):
    """Each of them is seen once in a cycle, and a cycle is shorter than a second."""
    assert sender._TICK_S * rounds._TICKS_A_CYCLE < 1
    written = []
    real = RecordLog.flush

    def flush(log, waiting=()):
        seen = list(waiting)
        written.append({connection.request.number for connection in seen})
        real(log, seen)

    monkeypatch.setattr(RecordLog, "flush", flush)
    naughty.manner = "stall"

    control, clock = LoadControl(), ManualClock()

    async def tick():
        await until(lambda: len(naughty.asked) == 40)
        written.clear()
        while len(written) < 6 * rounds._TICKS_A_CYCLE:
            clock.advance(sender._TICK_S)
            await turns(2)
        control.stop("interrupted")

    async def story():
        load = Workload(users=40, duration_s=3600, start="at_once", prompt=8, output=4)
        work = measure_load(naughty.url, load, options=RequestOptions(model="m"), control=control, clock=clock)
        await beside(work, tick())

    with asyncio.Runner(loop_factory=lambda: ClockLoop(clock)) as runner:
        runner.run(story())
    cycle = rounds._TICKS_A_CYCLE
    for start in range(cycle, 5 * cycle):
        assert set().union(*written[start : start + cycle]) == set(range(40))


def test_kill_9_leaves_what_had_been_said_some_cycles_ago(naughty, tmp_path):
    naughty.gap_s = 0.02
    folder = tmp_path / "run"
    program = [sys.executable, "-m", "atoll", "bench", naughty.url, "--model", "m", "--json", "-o", str(folder)]
    argv = [*program, "--users", "4", "--start", "at_once", "--duration", "1h", "--output", "500000"]
    with started(argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
        wait_until(lambda: len(naughty.said) == 4 and min(naughty.said) >= 20)
        said = min(naughty.said)
        wait_until(lambda: fewest_kept(folder) >= said)  # while it runs, it is on the disk
        os.kill(bench.pid, signal.SIGKILL)
    kept = read_records(folder)
    assert len(kept) == 4
    assert set(kept.outcome) == {"cancelled"}
    assert fewest_kept(folder) >= said
    assert (np.diff(kept.token_times(0)) >= 0).all()  # what comes in one read has one time


def fewest_kept(folder):
    """How many tokens of the four requests the disk has, of the one with the fewest."""
    if not records.has_records(folder):
        return 0
    kept = read_records(folder)
    return min((len(kept.token_times(row)) for row in range(len(kept))), default=0) if len(kept) == 4 else 0
