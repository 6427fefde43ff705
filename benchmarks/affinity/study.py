"""The figures of docs/affinity.md: `python benchmarks/affinity/study.py` prints its tables, in a minute or so."""

import argparse
from collections.abc import Iterator

from atoll.analyse.summary import Summary, summarise
from atoll.inventory.catalog import make_box
from atoll.inventory.islands import best_groups
from atoll.layout.affinity import prefix_bytes
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.traffic.workload import Workload
from atoll.workflows.simulate import simulate

MODEL, KIND, GPUS = "Qwen/Qwen2.5-14B-Instruct", "H100-SXM-80GB", 4
FLAGS = EngineFlags(max_num_seqs=128, max_num_batched_tokens=8192, gpu_memory_utilization=0.92)
POLICIES = (Policy.LEAST_CONN, Policy.SESSION_AFFINITY, Policy.PREFIX_AFFINITY)
# What users do: turns of a session, seconds between them, users of four cards, tokens that all begin with.
LOADS = {
    "one question each, 60 users": Workload(users=60, prompt=1500, output=300, duration_s=240),
    "4 turns, think 2 s, 60 users": Workload(users=60, turns=4, think_s=2, prompt=1500, output=300, duration_s=240),
    "12 turns, think 2 s, 8 users": Workload(users=8, turns=12, think_s=2, prompt=1500, output=300, duration_s=240),
    "12 turns, think 2 s, 30 users": Workload(users=30, turns=12, think_s=2, prompt=1500, output=300, duration_s=240),
    "12 turns, think 2 s, 60 users": Workload(users=60, turns=12, think_s=2, prompt=1500, output=300, duration_s=240),
    "12 turns, think 20 s, 120 users": Workload(
        users=120, turns=12, think_s=20, prompt=1500, output=300, duration_s=480
    ),
    "12 turns of 150 tokens, 60 users": Workload(users=60, turns=12, think_s=2, prompt=150, output=300, duration_s=240),
    "160 prompts again and again, 60 users": Workload(
        users=60, prompt=6000, output=100, distinct_prompts=160, duration_s=240
    ),
    "a head of 4000 that all share, 60 users": Workload(
        users=60, prompt=5000, output=300, shared_prefix_tokens=4000, duration_s=240
    ),
}
SHAPES = {"4 x TP1": 1, "2 x TP2": 2, "1 x TP4": 4}


def layout_of(tensor_parallel: int, policy: Policy, load: Workload) -> Layout:
    box = make_box(KIND, GPUS)
    groups = best_groups(box, [tensor_parallel] * (GPUS // tensor_parallel))
    replicas = tuple(Replica(gpus=group, tensor_parallel=tensor_parallel) for group in groups)
    router = Router(policy=policy, prefix_bytes=prefix_bytes(load) if policy.is_affine else None)
    return Layout(name="x", model=MODEL, box=box, replicas=replicas, router=router, flags=FLAGS, workload=load)


def run(tensor_parallel: int, policy: Policy, load: Workload) -> Summary:
    return summarise(simulate(layout_of(tensor_parallel, policy, load), load), workload=load)


def policies() -> Iterator[str]:
    """Four replicas under each load and policy."""
    yield "| four replicas (4 x TP1) | policy | TTFT p50 | p95 | answer p50 | tok/s | p95 of the slowest replica |"
    yield "|---|---|---|---|---|---|---|"
    for name, load in LOADS.items():
        for place, policy in enumerate(POLICIES):
            found = run(1, policy, load)
            worst = max(part.ttft_s.p95 or 0.0 for part in found.per_replica)
            shown = (found.ttft_s.p50, found.ttft_s.p95, found.e2e_s.p50)
            cells = [name if place == 0 else "", f"`{policy}`", *(f"{value or 0:.2f} s" for value in shown)]
            yield "| " + " | ".join([*cells, f"{found.output_tokens_per_s:,.0f}", f"{worst:.2f} s"]) + " |"


USERS = (8, 30, 60, 240)


def shapes(title: str, **load: float) -> Iterator[str]:
    """Replicas or a wider group: with affinity and without; the median of whole answers and the TTFT p95."""
    yield f"| {title} | policy | " + " | ".join(f"{users} users" for users in USERS) + " |"
    yield "|---|---|---|---|---|---|"
    loads = [Workload(users=users, prompt=1500, output=300, duration_s=240, **load) for users in USERS]
    for shape, size in SHAPES.items():
        for policy in POLICIES[:2] if size < GPUS else POLICIES[:1]:
            found = [run(size, policy, one) for one in loads]
            cells = [f"{one.e2e_s.p50 or 0:.2f} s, {one.ttft_s.p95 or 0:.2f} s" for one in found]
            yield f"| {shape} | `{policy}` | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    for table in (policies(), shapes("12 turns, think 2 s", turns=12, think_s=2), shapes("one question each")):
        print("\n".join(table), end="\n\n")
