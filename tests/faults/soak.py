"""A soak: two emulated replicas behind nginx under load, one of them killed and another put in its place, over and over.

    python tests/faults/soak.py                 # ten minutes
    python tests/faults/soak.py --seconds 60 --every 15
    python tests/faults/soak.py --whole         # after each kill the whole deployment goes down and comes up

At the end: sent = ok + failed + cancelled, each failure has a class and a reason, nothing failed but what a killed replica was
answering, the records on disk are those of the summary, no process grew without end, nobody is left behind. One line of
JSON; exit 1 where one of these does not hold.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from atoll.model.read import read_model  # noqa: E402
from atoll.outside.clock import SystemClock  # noqa: E402
from atoll.outside.processes import all_stats  # noqa: E402
from atoll.outside.shell import RealShell  # noqa: E402
from atoll.run.deployment import read_state  # noqa: E402
from atoll.run.process import down, prepare, read_plan, up  # noqa: E402
from atoll.store.folder import read_run  # noqa: E402
from atoll.traffic.record import RecordTable  # noqa: E402
from atoll.traffic.workload import Workload  # noqa: E402
from atoll.workflows.bench import bench  # noqa: E402
from stand_ins.layouts import MODEL, two_pairs  # noqa: E402
from stand_ins.patience import wait_until  # noqa: E402

USERS = 16
MOST_GROWTH = 200 * 2**20  # bytes of this process, whose records stay in memory until the end


def resident(pid: int) -> int:
    """Bytes; 0 for a process that has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def kill_all_in_turn(bundle: Path, every_s: float, until: float, kills: list[int]) -> None:
    """End a replica with -9 each so often, the other one the next time, and start both anew as `atoll up` would."""
    number = 0
    while time.monotonic() + every_s < until:
        time.sleep(every_s)
        os.kill(read_state(bundle).replicas[number].pid, signal.SIGKILL)
        kills.append(number)
        time.sleep(every_s / 3)
        asyncio.run(down(bundle, shell=RealShell(), clock=SystemClock()))
        asyncio.run(up(bundle, shell=RealShell(), clock=SystemClock(), timeout_s=120))
        number = 1 - number


def kill_one_at_a_time(bundle: Path, every_s: float, until: float, kills: list[int]) -> None:
    """End a replica with -9 each so often and put another in its place, while nginx and the other replica go on."""
    plan, place = read_plan(bundle), os.environ | {"PYTHONUNBUFFERED": "1"}
    instead: dict[int, subprocess.Popen[bytes]] = {}
    number = 0
    try:
        while time.monotonic() + every_s < until:
            time.sleep(every_s)
            os.kill(
                instead[number].pid if number in instead else read_state(bundle).replicas[number].pid, signal.SIGKILL
            )
            kills.append(number)
            time.sleep(every_s / 3)
            if number in instead:
                instead.pop(number).wait()
            argv = [sys.executable, *plan.replicas[number].argv[1:]]
            log = (bundle / f"instead-{number}.log").open("ab")
            instead[number] = subprocess.Popen(argv, cwd=bundle, env=place, stdout=log, stderr=log)
            wait_until(partial(_answers, plan.replicas[number].url))
            number = 1 - number
        time.sleep(max(0.0, until - time.monotonic()) + every_s)  # the last answers are still under way
    finally:
        for process in instead.values():
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def soak(folder: Path, seconds: float, every_s: float, *, whole: bool) -> dict[str, object]:
    bundle = folder / "bundle"
    prepare(two_pairs(), read_model(MODEL), folder=bundle, free_router_port=True)
    deployment = asyncio.run(up(bundle, shell=RealShell(), clock=SystemClock(), timeout_s=120))
    load = Workload(users=USERS, duration_s=seconds, prompt=50, output=20)
    kills: list[int] = []
    kill = kill_all_in_turn if whole else kill_one_at_a_time
    thread = threading.Thread(target=kill, args=(bundle, every_s, time.monotonic() + seconds, kills), daemon=True)
    began_with = resident(os.getpid())
    thread.start()
    try:
        result = bench(deployment.url, load, folder=folder / "run")
        largest = max((resident(one.pid) for one in read_state(bundle).replicas if one.pid), default=0)
        thread.join(120 + every_s)
    finally:
        asyncio.run(down(bundle, shell=RealShell(), clock=SystemClock()))
    kept = read_run(folder / "run")
    counts, errors = result.summary.requests, dict(result.summary.errors)
    left = [one.name for one in all_stats() if one.alive and _works_in(one.id.pid, bundle)]
    grown = resident(os.getpid()) - began_with
    holds = {
        "adds up": counts.sent == counts.ok + counts.failed + counts.cancelled,
        "every failure has a class": counts.failed == sum(errors.values()),
        "kept": len(kept.table) == counts.sent,
        "served": counts.ok > 0 and all(replica.requests.ok for replica in result.summary.per_replica[:2]),
        "only kills": bool(kills) or not counts.failed,
        # nginx asks the other replica for what reaches a dead one, so only what was being answered is lost
        "only what was being answered": whole or counts.failed <= USERS * len(kills),
        "memory": grown < MOST_GROWTH and largest < 2**30,
        "nobody left": not left,
    }
    return {
        "seconds": seconds, "kills": len(kills), "sent": counts.sent, "ok": counts.ok, "failed": counts.failed,
        "cancelled": counts.cancelled, "errors": errors, "why": _reasons(kept.table), "grown_bytes": grown,
        "replica_bytes": largest, "holds": holds,
    }  # fmt: skip


def _reasons(table: RecordTable) -> dict[str, int]:
    """What was said of the requests that failed, and of how many."""
    return dict(Counter(f"{error}: {detail}" for error, detail in zip(table.error, table.detail, strict=True) if error))


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder.resolve()
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--every", type=float, default=60.0)
    parser.add_argument("--whole", action="store_true", help="take all of it down and up after each kill")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        said = soak(Path(folder), asked.seconds, asked.every, whole=asked.whole)
    print(json.dumps(said))
    sys.exit(0 if all(said["holds"].values()) else 1)


if __name__ == "__main__":
    main()
