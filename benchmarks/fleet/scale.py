"""How simulating a fleet grows: replicas, users and requests against CPU-seconds and memory; and what the door does.

Boxes of 8 x H100 SXM, 8 replicas of a 7B model each, 30 users a replica with prompts and answers of varying length,
four requests a user. Run it as `python benchmarks/fleet/scale.py`; each line is a process of its own.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

import numpy as np

from atoll.inventory.box import Box
from atoll.inventory.catalog import make_box
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.model.read import read_model
from atoll.plan.workbench import Workbench
from atoll.simulate.run import simulate_layout
from atoll.workflows.load import LoadOptions, load_of
from atoll.workflows.plan import kinds_of

MODEL = "Qwen/Qwen2.5-7B-Instruct"
USERS_A_REPLICA = 30
REQUESTS_A_USER = 4


def run(replicas: int, policy: str) -> str:
    card, box = read_model(MODEL), make_box("H100-SXM-80GB", 8)
    bench = Workbench(box=box, card=card, kinds=kinds_of(box))
    flags = EngineFlags(max_num_seqs=64, max_num_batched_tokens=8192, gpu_memory_utilization=0.9)
    one = Replica(gpus=(0,), tensor_parallel=1)
    gpus = tuple(box.gpus[0].model_copy(update={"index": index}) for index in range(replicas))
    layout = Layout(
        name="fleet", model=MODEL, box=box, replicas=(one,), router=Router(policy=Policy(policy)), flags=flags
    ).model_copy(
        update={  # a link for every two of 1,024 cards is half a million, and no replica has two
            "box": Box.model_construct(gpus=gpus, links=(), pcie_only=False, notes=()),
            "replicas": tuple(Replica(gpus=(index,), tensor_parallel=1) for index in range(replicas)),
        }
    )
    users = replicas * USERS_A_REPLICA
    asked = LoadOptions(
        users=users,
        requests=users * REQUESTS_A_USER,
        prompt="lognormal:1024:1",
        output="lognormal:512:0.7",
        start="8s",
    )
    workload = load_of(None, asked)
    started = time.process_time()
    table = simulate_layout(
        layout,
        card,
        workload,
        timers=[bench.timer(one, flags)] * replicas,
        kv_blocks=[bench.fit(one, flags).blocks_with(None)] * replicas,
        limits=[bench.spec(one, flags).limits] * replicas,
    )
    spent = time.process_time() - started
    rows = table.number >= users
    waited = (table.first_token_s - table.sent_s)[rows]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    p50, p95, p99 = (float(np.nanpercentile(waited, share)) for share in (50, 95, 99))
    return (
        f"| {replicas:,} | {users:,} | {len(table):,} | {policy} | {spent:.1f} | {1e6 * spent / len(table):,.0f}"
        f" | {peak:,.0f} | {p50 * 1000:.0f} | {p95 * 1000:.0f} | {p99 * 1000:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--replicas", type=int, nargs="*", default=[8, 64, 256, 1024])
    parser.add_argument("--policy", nargs="*", default=["round_robin", "least_conn", "random_two_least_conn"])
    given = parser.parse_args()
    if given.one:
        print(run(int(given.one[0]), given.one[1]))
        return
    print("| replicas | users | requests | door | CPU-s | us a request | MB | TTFT p50 ms | p95 | p99 |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for policy in given.policy:
        for replicas in given.replicas:
            argv = [sys.executable, os.fspath(__file__), "--one", str(replicas), policy]
            print(subprocess.run(argv, capture_output=True, text=True, check=True).stdout, end="", flush=True)


if __name__ == "__main__":
    main()
