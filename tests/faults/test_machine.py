"""What the machine refuses becomes one sentence: a full disk, no right, few file handles, IPv6 alone, a taken port."""

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from atoll.store.folder import read_run
from stand_ins.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
SIMULATE = ["simulate", "--gpu", "H100-NVL-94GB", "--gpus", "2", "--model", "Qwen/Qwen2.5-7B-Instruct", "--tp", "2"]
LOAD = ["--users", "20", "--requests", "4000", "--prompt", "20", "--output", "20"]
BENCH = ["--users", "2", "--requests", "4", "--prompt", "8", "--output", "4"]
TABLE = ROOT / "docs" / "faults.md"
STUDY = """name: small
model: Qwen/Qwen2.5-7B-Instruct
box: {gpu: H100-NVL-94GB, gpus: 2}
workload: {users: 20, requests: 2000, prompt: 50, output: 20}
variants:
  - {name: a, replicas: 1, tensor_parallel: 2}
  - {name: b, replicas: 2, tensor_parallel: 1}
"""
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk or become somebody else")


def atoll(*words, before=(), limit=None, **settings):
    """Run the command; gives its code and what it said to the person."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "atoll", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        preexec_fn=limit,
        **settings,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode != 70, done.stderr
    return done.returncode, done.stderr


@needs_root
def test_a_full_disk_is_a_sentence_and_leaves_no_litter(tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1)")
    mount = f'mount -t tmpfs -o size=64k none {tmp_path} && cd {tmp_path} && "$@"; code=$?; ls -A; exit $code'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-m", "atoll", *SIMULATE, *LOAD, "-o", "run"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if "mount:" in done.stderr:
        pytest.skip("no right to mount here")
    assert done.returncode in {1, 2}
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@needs_root
def test_a_folder_that_may_not_be_written_is_a_sentence(tmp_path):
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv(1)")
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o755)
    os.chown(shut, NOBODY, NOBODY)
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    code, said = atoll(*SIMULATE, *LOAD, "-o", shut / "run", before=without)
    assert code == 2
    assert "Permission denied" in said


def test_few_file_handles_are_a_sentence(naughty, tmp_path):
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (40, 40))
    words = [
        "bench",
        naughty.url,
        *BENCH,
        "--model",
        "m",
        "--users",
        "200",
        "--requests",
        "400",
        "-o",
        tmp_path / "run",
    ]
    code, said = atoll(*words, limit=few)
    assert code in {1, 2}
    assert re.search(r"open files|Too many open files|ulimit", said)


def test_ipv6_alone_is_enough(tmp_path):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 on loopback here")
        port = probe.getsockname()[1]
    words = ["emulate", "--gpu", "H100-NVL-94GB", "--model", "Qwen/Qwen2.5-7B-Instruct", "--host", "::1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "atoll", *words, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        for line in server.stdout:
            if b"listening" in line:
                break
        code, said = atoll("bench", f"http://[::1]:{port}", *BENCH, "-o", tmp_path / "run")
        assert code == 0, said
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_two_servers_on_one_port_are_a_sentence():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        code, said = atoll("serve", "--port", holder.getsockname()[1])
    assert code in {1, 2}
    assert "port" in said


def test_two_studies_in_one_folder_are_one_and_a_sentence(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    study = ["study", "run", "study.yaml", "--engine", "simulated", "-o", "both"]
    both = at_once(study, cwd=tmp_path)
    assert sorted(code for code, _ in both) in ([0, 2], [0, 0])  # the second may find it all done
    for code, said in both:
        assert code == 0 or "Another atoll is running the study" in said or "already" in said, said
    assert (tmp_path / "both" / "report.html").exists()


def test_two_runs_into_one_folder_are_one_and_a_sentence(naughty, tmp_path):
    """Neither mixes its records with the other's; what the one wrote stays."""
    bench = ["bench", naughty.url, *BENCH, "--model", "m", "-o", "run"]
    both = at_once(bench, cwd=tmp_path)
    assert sorted(code for code, _ in both) == [0, 2], both
    assert read_run(tmp_path / "run").summary.requests.sent == 4
    both = at_once([*SIMULATE, *LOAD, "-o", "simulated"], cwd=tmp_path)
    assert sorted(code for code, _ in both) == [0, 2], both
    assert read_run(tmp_path / "simulated").summary.requests.ok == 4000


def at_once(words, *, cwd):
    """Code and words of the same command, started twice."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "atoll", *words],
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in "ab"
    ]
    said = [process.communicate(timeout=PATIENCE_S)[1] for process in started]
    assert "Traceback" not in "".join(said)
    return [(process.returncode, words) for process, words in zip(started, said, strict=True)]


@needs_root
@pytest.mark.parametrize("how", ["not there", "full"])
def test_without_dev_shm_the_workers_work(how, tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1)")
    size = "mount -t tmpfs -o size=4k none /dev/shm && dd if=/dev/zero of=/dev/shm/x 2>/dev/null"
    lost = "mkdir -p gone && mount --bind gone /dev/shm && umount /dev/shm; mount -t tmpfs -o mode=000,size=4k none /dev/shm"
    script = f'{size if how == "full" else lost}; "$@"'
    plan = ["plan", *SIMULATE[1:-2], "--users", "20", "--prompt", "20", "--output", "20", "--json"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", "setpriv", "--bounding-set=-dac_override", sys.executable,
         "-m", "atoll", *plan],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    if "mount:" in done.stderr:
        pytest.skip("no right to mount here")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_control_plane_that_is_killed_leaves_its_jobs_and_comes_back(naughty, tmp_path):
    serve = [sys.executable, "-m", "atoll", "serve", ".", "--port", "0"]
    env = os.environ | {"XDG_STATE_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    for _ in "ab":  # the second time over what the first left
        server = subprocess.Popen(
            serve, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            link = next(word for line in server.stdout for word in line.split() if "?token=" in word)
            with httpx.Client(follow_redirects=True, trust_env=False, timeout=PATIENCE_S) as client:
                assert client.get(link).status_code == 200
                assert client.get(httpx.URL(link).join("/health")).status_code == 200
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


@pytest.mark.parametrize("words", [["serve", "--port", "0"], ["plan", *SIMULATE[1:-2], *BENCH[:2]]], ids=lambda w: w[0])
def test_with_hardly_a_file_handle_a_command_is_a_sentence(words, tmp_path):
    """Even where what prints the sentence cannot be read; Python itself needs a few."""
    for handles in (9, 14):
        limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (handles, handles))
        done = subprocess.run(
            [sys.executable, "-m", "atoll", *words], cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, (handles, done.stderr)
        assert done.returncode in {0, 1, 2}, (handles, done.returncode, done.stderr)


def test_every_fault_of_the_table_has_its_test():
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ") and "`tests/" in line]
    named = [(path, name) for row in rows for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)]
    assert len(rows) >= 20
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"
    assert len(named) >= len(rows)
