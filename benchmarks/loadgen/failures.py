"""Provoke every class of failure and show what `atoll bench` counted: the failure table.

    python benchmarks/loadgen/failures.py             # a table in Markdown; exit 1 when a row is not as it should be

Each row is a run of the command line against the server of the tests that misbehaves on purpose. The disk that is full
needs root, for a file system of 64 kB.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from atoll.store.folder import read_run
from stand_ins.naughty import Naughty, full_backlog

SMALL = ("--users", "2", "--requests", "6", "--output", "4")
LONG = ("--users", "3", "--duration", "60s", "--output", "20")


@dataclass(frozen=True)
class Row:
    """What is provoked and how, and the class and exit code that should come of it."""

    word: str
    how: str
    code: int
    seen: dict[str, Any]
    exit: int
    note: str = ""

    @property
    def is_right(self) -> bool:
        counts = self.seen.get("requests", {"sent": 0, "ok": 0, "failed": 0, "cancelled": 0})
        adds_up = counts["sent"] == counts["ok"] + counts["failed"] + counts["cancelled"]
        known = self.word in {**self.seen.get("errors", {}), **{name: 1 for name, count in counts.items() if count}}
        known = known or self.word in self.note or self.code != 1
        return adds_up and known and self.exit == self.code

    def line(self) -> str:
        counts = self.seen.get("requests", {"sent": 0, "ok": 0, "failed": 0, "cancelled": 0})
        errors = ", ".join(f"{name} {count}" for name, count in self.seen.get("errors", {}).items())
        cells = [f"`{self.word}`", self.how, *(str(counts[name]) for name in ("sent", "ok", "failed", "cancelled"))]
        return "| " + " | ".join([*cells, errors or self.note, str(self.exit), "yes" if self.is_right else "NO"]) + " |"


MANNERS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("connection_reset", "reset", "RST instead of an answer", ()),
    ("connection_reset", "reset_midway", "RST in the middle of the stream", ()),
    ("connection_closed", "close", "closed without an answer", ()),
    ("http_503", "busy", "503 with vLLM's error body", ()),
    ("http_400", "bad_request", "400 with vLLM's error body", ()),
    ("truncated", "cut", "closed in the middle of the stream", ()),
    ("truncated", "no_finish", "whole HTTP, but no finish reason and no [DONE]", ()),
    ("bad_sse", "malformed", "an event that is no JSON", ()),
    ("stream_error", "engine_error", "an error inside the stream", ()),
    ("line_too_long", "gigantic", "an event of 10 MiB", ()),
    ("bad_http", "other_protocol", "an SSH server", ()),
    ("wrong_content_type", "web_page", "a web page with status 200", ()),
    ("bad_answer", "no_choices", "JSON with status 200 that is no completion", ("--no-stream",)),
    ("stall", "stall", "silence after the first token", ("--token-timeout", "300ms")),
    ("slow_drip", "drip", "a byte at a time, and no text", ("--token-timeout", "300ms")),
    ("timeout", "drip", "an answer without end", ("--timeout", "400ms")),
    ("redirect", "redirect_away", "308 to another server", ()),
    ("redirect_loop", "loop_redirect", "307 round and round", ()),
)
SIGNALS: tuple[tuple[str, str, list[signal.Signals], int], ...] = (
    ("interrupted", "SIGINT", [signal.SIGINT], 130),
    ("interrupted", "SIGINT twice: ended at once, read from the tail", [signal.SIGINT] * 2, -signal.SIGINT),
    ("terminated", "SIGTERM", [signal.SIGTERM], 143),
)


def command(url: str, *more: str, out: Path) -> list[str]:
    program = [sys.executable, "-m", "atoll", "bench", url, "--model", "m", "--prompt", "8", "--json", "-o", str(out)]
    return [*program, *more]


def run(word: str, how: str, url: str, *more: str, code: int = 1, folder: Path) -> Row:
    out = folder / f"run-{time.monotonic_ns()}"
    done = subprocess.run(command(url, *more, out=out), capture_output=True, text=True, cwd=folder, check=False)
    return _row(word, how, code, done)


def _row(word: str, how: str, code: int, done: subprocess.CompletedProcess[str], seen: dict | None = None) -> Row:
    said = json.loads(done.stdout) if done.stdout.strip() else {}
    note = " ".join(done.stderr.split()).removeprefix("atoll: ")
    return Row(word, how, code, seen or said, done.returncode, note if len(note) < 90 else f"{note[:60]} ...")


def connections(folder: Path) -> Iterator[Row]:
    """No connection at all."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        yield run("connection_refused", "nobody listens", url, *SMALL, folder=folder)
    with full_backlog() as port:
        more = (*SMALL, "--connect-timeout", "300ms")
        url = f"http://127.0.0.1:{port}"
        yield run("connect_timeout", "the server's queue is full", url, *more, folder=folder)
    yield run("network", "no route (a multicast address)", "http://224.0.0.1:80", *SMALL, folder=folder)
    yield run("dns", "a name that nobody knows", "http://nope.invalid:80", *SMALL, folder=folder)
    with _naughty("ok", tls=True) as server:
        yield run("tls", "a certificate nobody vouches for", server.url, *SMALL, folder=folder)


def answers(folder: Path) -> Iterator[Row]:
    for word, manner, how, more in MANNERS:
        with _naughty(manner) as server:
            yield run(word, how, server.url, *SMALL, *more, folder=folder)
    with _naughty("busy_at_first") as server:
        row = run("http_503", "two refusals, then good answers", server.url, *SMALL, code=0, folder=folder)
        yield row


def ends(folder: Path) -> Iterator[Row]:
    """The run is ended from outside."""
    with _naughty("ok") as server:
        server.gap_s = 0.02
        for word, how, signals, code in SIGNALS:
            yield _signalled(word, how, code, server.url, signals=signals, folder=folder)
        yield _killed(server.url, folder)
        server.gap_s = 0.1
        more = ("--users", "3", "--duration", "500ms", "--output", "100", "--drain", "300ms")
        yield run("cancelled", "--drain cuts long answers", server.url, *more, folder=folder)
        server.gap_s = 0.001
        if os.geteuid() == 0:
            yield _full_disk(server.url, folder)


def _signalled(word: str, how: str, code: int, url: str, *, signals: list[signal.Signals], folder: Path) -> Row:
    out = folder / f"run-{time.monotonic_ns()}"
    with subprocess.Popen(
        command(url, *LONG, out=out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        _wait_for_rows(out)
        for number in signals:
            running.send_signal(number)
            time.sleep(0.01)
        said, errors = running.communicate(timeout=30)
    done = subprocess.CompletedProcess(running.args, running.returncode, said, errors)
    return _row(word, how, code, done, None if said.strip() else _kept(out))


def _killed(url: str, folder: Path) -> Row:
    """What is readable after kill -9."""
    out = folder / "killed"
    with subprocess.Popen(command(url, *LONG, out=out), stdout=subprocess.DEVNULL) as running:
        _wait_for_rows(out)
        running.kill()
    return Row("killed", "kill -9; read from the tail", -9, _kept(out), running.wait())


def _kept(folder: Path) -> dict[str, Any]:
    """What can be read of a run that was cut short."""
    summary = read_run(folder).summary
    counts = {name: getattr(summary.requests, name) for name in ("sent", "ok", "failed", "cancelled")}
    return {"requests": counts, "errors": summary.errors}


def _full_disk(url: str, folder: Path) -> Row:
    place = folder / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], check=True)
    try:
        more = ("--users", "8", "--requests", "400", "--output", "60")
        done = subprocess.run(
            command(url, *more, out=place / "run"), capture_output=True, text=True, cwd=folder, check=False
        )
        done.stderr = done.stderr[-60:]
        return _row("No space left", "a disk of 64 kB", 1, done)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _wait_for_rows(folder: Path) -> None:
    tail = folder / "records" / "tail-00001.rows"
    while not (tail.exists() and tail.stat().st_size > 0):
        time.sleep(0.05)
    time.sleep(1.0)


@contextlib.contextmanager
def _naughty(manner: str, *, tls: bool = False) -> Iterator[Naughty]:
    server = Naughty(tls=tls)
    server.manner = manner
    try:
        yield server
    finally:
        server.close()


def main() -> None:
    logging.getLogger("asyncio").disabled = True  # of the server that misbehaves
    print("| class | provoked by | sent | ok | failed | cancelled | errors, or what is said | exit | as it should be |")
    print("|---|---|---|---|---|---|---|---|---|")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="atoll-failures-") as name:
        for part in (connections, answers, ends):
            for row in part(Path(name)):
                print(row.line(), flush=True)
                wrong += not row.is_right
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
