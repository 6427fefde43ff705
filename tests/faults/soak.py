"""A soak: two emulated replicas behind nginx under load, one of them killed and brought back over and over.

    python tests/faults/soak.py                 # ten minutes
    python tests/faults/soak.py --seconds 60 --every 15

At the end: sent = ok + failed + cancelled, nothing failed but what a kill can explain, the records on disk are those of the
summary, no process grew without end, nobody is left behind. One line of JSON; exit 1 where one of these does not hold.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from atoll.model.read import read_model  # noqa: E402
from atoll.outside.clock import SystemClock  # noqa: E402
from atoll.outside.processes import all_stats  # noqa: E402
from atoll.outside.shell import RealShell  # noqa: E402
from atoll.run.deployment import read_state  # noqa: E402
from atoll.run.process import down, prepare, up  # noqa: E402
from atoll.store.folder import read_run  # noqa: E402
from atoll.traffic.workload import Workload  # noqa: E402
from atoll.workflows.bench import bench  # noqa: E402
from stand_ins.layouts import MODEL, two_pairs  # noqa: E402

USERS = 16
MOST_GROWTH = 200 * 2**20  # bytes of this process, whose records stay in memory until the end


def resident(pid: int) -> int:
    """Bytes; 0 for a process that has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def killer(bundle: Path, every_s: float, until: float, kills: list[int]) -> None:
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


def soak(folder: Path, seconds: float, every_s: float) -> dict[str, object]:
    bundle = folder / "bundle"
    prepare(two_pairs(), read_model(MODEL), folder=bundle, free_router_port=True)
    deployment = asyncio.run(up(bundle, shell=RealShell(), clock=SystemClock(), timeout_s=120))
    load = Workload(users=USERS, duration_s=seconds, prompt=50, output=20)
    kills: list[int] = []
    thread = threading.Thread(target=killer, args=(bundle, every_s, time.monotonic() + seconds, kills), daemon=True)
    began_with = resident(os.getpid())
    thread.start()
    try:
        result = bench(deployment.url, load, folder=folder / "run")
        thread.join(120)
        largest = max((resident(one.pid) for one in read_state(bundle).replicas if one.pid), default=0)
    finally:
        asyncio.run(down(bundle, shell=RealShell(), clock=SystemClock()))
    kept = read_run(folder / "run")
    counts = result.summary.requests
    left = [one.name for one in all_stats() if one.alive and _works_in(one.id.pid, bundle)]
    grown = resident(os.getpid()) - began_with
    holds = {
        "adds up": counts.sent == counts.ok + counts.failed + counts.cancelled,
        "kept": len(kept.table) == counts.sent,
        "served": counts.ok > 0 and all(replica.requests.ok for replica in result.summary.per_replica[:2]),
        "only kills": bool(kills) or not counts.failed,
        "memory": grown < MOST_GROWTH and largest < 2**30,
        "nobody left": not left,
    }
    return {
        "seconds": seconds, "kills": len(kills), "sent": counts.sent, "ok": counts.ok, "failed": counts.failed,
        "cancelled": counts.cancelled, "grown_bytes": grown, "replica_bytes": largest, "holds": holds,
    }  # fmt: skip


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder.resolve()
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--every", type=float, default=60.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        said = soak(Path(folder), asked.seconds, asked.every)
    print(json.dumps(said))
    sys.exit(0 if all(said["holds"].values()) else 1)


if __name__ == "__main__":
    main()
