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

import pytest

from stand_ins.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
SIMULATE = ["simulate", "--gpu", "H100-NVL-94GB", "--gpus", "2", "--model", "Qwen/Qwen2.5-7B-Instruct", "--tp", "2"]
LOAD = ["--users", "20", "--requests", "4000", "--prompt", "20", "--output", "20"]
BENCH = ["--users", "2", "--requests", "4", "--prompt", "8", "--output", "4"]
TABLE = ROOT / "docs" / "faults.md"
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


def test_every_fault_of_the_table_has_its_test():
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ") and "`tests/" in line]
    named = [(path, name) for row in rows for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)]
    assert len(rows) >= 20
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"
    assert len(named) >= len(rows)
