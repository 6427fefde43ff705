"""`atoll bench` as a user runs it: JSON, signals, exit codes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.store.folder import read_run
from atoll.traffic.workload import Workload
from stand_ins.patience import PATIENCE_S, started, wait_until


def command(url, *more, out):
    program = [sys.executable, "-m", "atoll", "bench", url, "--model", "m", "--prompt", "8", "-o", str(out)]
    return [*program, *more]


def bench(url, *more, out):
    return subprocess.run(
        command(url, *more, out=out), capture_output=True, text=True, timeout=PATIENCE_S, cwd=out.parent
    )


def wait_for_rows(folder):
    tail = folder / "records" / "tail-00001.rows"
    wait_until(lambda: tail.exists() and tail.stat().st_size > 0)


def test_json_is_one_document_and_nothing_else(naughty, tmp_path):
    done = bench(naughty.url, "--users", "3", "--requests", "9", "--output", "4", "--json", out=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    shown = json.loads(done.stdout)
    assert shown["requests"] == {"sent": 9, "ok": 9, "failed": 0, "cancelled": 0}
    assert shown["client"]["users_asked"] == 3
    assert shown["per_replica"][0]["replica"] == "1"
    assert 0 < shown["ttft_s"]["p50"] <= shown["e2e_s"]["p50"]
    assert {path.name for path in (tmp_path / "run").iterdir()} - {"live.jsonl"} == {
        "run.yaml",
        "workload.yaml",
        "records.parquet",
        "summary.json",
        "client.json",
    }


def test_runs_are_listed_and_found_again(naughty, tmp_path):
    for name in ("one", "two"):
        done = bench(naughty.url, "--users", "1", "--requests", "2", "--json", out=tmp_path / name)
        assert done.returncode == 0, done.stderr
    naughty.manner = "busy"
    assert bench(naughty.url, "--requests", "1", "--json", out=tmp_path / "bad").returncode == 1
    program = [sys.executable, "-m", "atoll", "runs", "list", "--json"]
    listed = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path, check=True)
    runs = {run["name"]: run["summary"]["requests"] for run in json.loads(listed.stdout)["runs"]}
    assert runs["two"] == {"sent": 2, "ok": 2, "failed": 0, "cancelled": 0}
    assert runs["bad"]["failed"] == 1
    assert runs.keys() == {"one", "two", "bad"}


def test_locusts_words_are_understood_and_no_option_is_cut_at_80_columns(naughty, tmp_path, monkeypatch):
    more = ("--users", "1", "--run-time", "1h", "--requests", "2", "--spawn-rate", "10", "--output", "2", "--json")
    shown = json.loads(bench(naughty.url, *more, out=tmp_path / "run").stdout)
    assert shown["requests"]["ok"] == 2
    load = Workload.parse((tmp_path / "run" / "workload.yaml").read_text(), origin="workload.yaml")
    assert (load.duration_s, load.start) == (3600, 0.1)
    monkeypatch.setenv("COLUMNS", "80")
    program = [sys.executable, "-m", "atoll", "bench", "--help"]
    said = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    assert "--spawn-rate" in said
    assert "…" not in said


def test_the_tables_name_the_clients_own_part(naughty, tmp_path):
    more = ("--users", "2", "--requests", "4", "--output", "3", "--slo-ttft", "5s", "--start", "at_once")
    done = bench(naughty.url, *more, out=tmp_path / "run")
    assert "client's own share" in done.stdout
    assert "4 sent = 4 ok" in done.stdout
    assert "Goodput: 4 of 4" in done.stdout


def test_ctrl_c_gives_the_summary_so_far(naughty, tmp_path):
    naughty.gap_s = 0.02
    more = ("--users", "3", "--start", "at_once", "--duration", "1h", "--output", "20", "--json")
    with started(
        command(naughty.url, *more, out=tmp_path / "run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_for_rows(tmp_path / "run")
        wait_until(lambda: len(naughty.asked) >= 6)  # of three users' six requests, three have been answered
        running.send_signal(signal.SIGINT)
        shown, said = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    counts = json.loads(shown)["requests"]
    assert counts["sent"] == counts["ok"] + counts["failed"] + counts["cancelled"]
    assert counts["ok"] >= 3
    assert counts["cancelled"] == 3
    assert "Stopped by hand" in said
    assert (tmp_path / "run" / "records.parquet").is_file()


def test_sigterm_keeps_the_records_too(naughty, tmp_path):
    naughty.gap_s = 0.02
    more = ("--users", "2", "--start", "at_once", "--duration", "1h", "--output", "20", "--json")
    with started(
        command(naughty.url, *more, out=tmp_path / "run"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        wait_for_rows(tmp_path / "run")
        running.terminate()
        shown, _ = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 143
    assert json.loads(shown)["stopped"] == "terminated"


def test_a_second_ctrl_c_ends_the_process_at_once(naughty, tmp_path, monkeypatch):
    """The second signal meets the system's default: shown here by holding the process where it sums up."""
    naughty.gap_s = 0.02
    hold = tmp_path / "sitecustomize.py"
    hold.write_text(
        "import atoll.workflows.bench as work, time\n"
        "real = work._finish\n"
        "def slow(*a, **k):\n"
        "    print('summing', flush=True); time.sleep(3600); return real(*a, **k)\n"
        "work._finish = slow\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    more = ("--users", "2", "--start", "at_once", "--duration", "1h", "--output", "20", "--json")
    with started(
        command(naughty.url, *more, out=tmp_path / "run"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        wait_for_rows(tmp_path / "run")
        running.send_signal(signal.SIGINT)
        assert running.stdout.readline().strip() == "summing"
        running.send_signal(signal.SIGINT)
        running.wait(timeout=PATIENCE_S)  # it would sum up for an hour
    assert running.returncode == -signal.SIGINT


def test_no_answer_at_all_is_a_failed_run_with_its_reason(naughty, tmp_path):
    naughty.manner = "busy"
    done = bench(naughty.url, "--users", "2", "--requests", "4", "--json", out=tmp_path / "run")
    assert done.returncode == 1
    assert json.loads(done.stdout)["errors"] == {"http_503": 4}
    assert "http_503 4" in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--prompt", "many"), "is no length"),
        (("--duration", "soon"), "is not a duration"),
        (("--rate", "5", "--users", "3"), "not both"),
        (("--header", "nonsense"), "is no header"),
        (("--endpoint", "speech"), "--endpoint"),
        (("--extra-body", "{"), "is no JSON"),
        (("--steps", "10"), "is no step"),
        (("--search",), "needs a target"),
        (("--prompts", "/nowhere"), "no file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(tmp_path, more, said):
    done = bench("http://127.0.0.1:9", *more, out=tmp_path / "run")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_run_that_did_not_begin_leaves_nothing_behind(tmp_path):
    program = [sys.executable, "-m", "atoll", "bench", "http://127.0.0.1:9", "--requests", "1", "-o", "run"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path)
    assert done.returncode == 1
    assert "connection_refused" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_sweep_without_one_answer_fails(tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        done = bench(url, "--sweep", "1,2", "--requests", "2", out=tmp_path / "levels")
    assert done.returncode == 1
    assert "No request to" in done.stderr
    assert (tmp_path / "levels" / "users-2" / "summary.json").is_file()


def test_a_sweep_that_did_not_begin_leaves_nothing_behind(tmp_path):
    done = bench("http://nope.invalid", "--sweep", "1,2", "--requests", "2", out=tmp_path / "levels")
    assert done.returncode == 1
    assert not (tmp_path / "levels").exists()
    assert tmp_path.exists()


def test_a_folder_with_a_run_is_not_overwritten(naughty, tmp_path):
    for code in (0, 2):
        done = bench(naughty.url, "--users", "1", "--requests", "1", "--json", out=tmp_path / "run")
        assert done.returncode == code


def test_a_full_disk_costs_the_folder_and_not_the_summary(naughty, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], check=False)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        more = ("--users", "8", "--requests", "400", "--output", "60", "--json")
        done = bench(naughty.url, *more, out=place / "run")
        shown = json.loads(done.stdout)
        assert shown["requests"]["ok"] == 400
        assert "No space left" in shown["trouble"]
        assert done.returncode == 1
        assert "is not whole" in done.stderr
        kept = Path(shown["trouble"].rpartition("all 400 records are in ")[2].rstrip("."))
        assert len(read_run(kept).table) == 400
        assert json.loads((place / "run" / "summary.json").read_text())["requests"]["ok"] == 400
        shutil.rmtree(kept)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_two_durations_that_differ_are_one_clear_error(tmp_path):
    done = bench("http://127.0.0.1:1", "--duration", "5s", "--run-time", "10s", out=tmp_path / "run")
    assert done.returncode == 2
    assert "--duration 5s and --run-time 10s are two words for one thing" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["결과", "a b", "🚀", ".hidden", "-x", os.fsdecode(b"caf\xe9")])
def test_a_run_may_have_any_name_that_the_file_system_takes(naughty, tmp_path, name):
    done = bench(naughty.url, "--users", "1", "--requests", "2", "--output", "2", out=tmp_path / name)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / name / "summary.json").is_file()
    program = [sys.executable, "-m", "atoll", "runs", "list", "--json"]
    listed = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path, check=True)
    assert [run["summary"]["requests"]["ok"] for run in json.loads(listed.stdout)["runs"]] == [2]
