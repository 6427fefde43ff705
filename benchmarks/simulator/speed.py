"""How fast the simulator is: requests and output tokens per CPU-second, on three cases, and what the time goes to.

    python benchmarks/simulator/speed.py [--profile a|b|c] [--json]

CPU-seconds are `time.process_time` around one run, the best of as many as fit into four of them (a shared machine has
slow moments that last longer than a run), after one run that fills the step timers' memory. Imports are not counted,
`summarise` has a column of its own.

    a  30 users for 10 minutes on 2 replicas, mixed lengths
    b  3,000 requests of 2000/1500 tokens by 30 users on 2 replicas
    b' the same on 1 replica, and with lognormal answers, where no two requests end in the same step
    c  100,000 requests by 1,000 users on 16 replicas
"""

import argparse
import cProfile
import json
import pstats
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from atoll.analyse.summary import summarise
from atoll.inventory.catalog import make_box
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.traffic.record import RecordTable
from atoll.traffic.workload import Workload
from atoll.workflows.simulate import layouts_of_study, read_layout_or_study, simulate

MODEL = "Qwen/Qwen2.5-32B-Instruct"
MEASURED_S = 4.0  # CPU-seconds for each case
STUDY = Path(__file__).parents[2] / "examples" / "four-h100-nvl" / "study.yaml"


@dataclass(frozen=True)
class Case:
    name: str
    layout: Layout
    workload: Workload


def replicas_of(count: int, *, tensor_parallel: int, gpu: str = "H100-SXM-80GB") -> Layout:
    gpus = count * tensor_parallel
    return Layout(
        name=f"{count}xTP{tensor_parallel}",
        model=MODEL,
        box=make_box(gpu, gpus),
        replicas=tuple(
            Replica(gpus=tuple(range(at, at + tensor_parallel)), tensor_parallel=tensor_parallel)
            for at in range(0, gpus, tensor_parallel)
        ),
        router=Router(policy=Policy.LEAST_CONN),
        flags=EngineFlags(max_model_len=16384),
    )


def lognormal(mean: float, sigma: float, high: int) -> dict[str, object]:
    return {"kind": "lognormal", "mean": mean, "sigma": sigma, "high": high}


def cases() -> list[Case]:
    two, one, many = (
        replicas_of(2, tensor_parallel=2),
        replicas_of(1, tensor_parallel=2),
        replicas_of(16, tensor_parallel=1, gpu="H200-SXM-141GB"),
    )
    mixed = Workload(
        users=30, start="at_once", duration_s=600, prompt=lognormal(1500, 0.6, 8000), output=lognormal(1500, 0.5, 8000)
    )
    even = Workload(users=30, start="at_once", requests=3000, prompt=2000, output=1500)
    return [
        Case("a  30 users, 2 replicas, 10 min, lognormal", two, mixed),
        Case("b  3,000 x 2000/1500, 30 users, 2 replicas", two, even),
        Case("b' the same, 1 replica", one, even),
        Case("b' the same, 2 replicas, lognormal answers", two, even.replace(output=lognormal(1500, 0.5, 8000))),
        Case(
            "c  100,000 requests, 1,000 users, 16 replicas",
            many,
            Workload(users=1000, start="at_once", requests=100_000, prompt=1000, output=lognormal(300, 0.5, 2000)),
        ),
    ]


def measure(case: Case) -> dict[str, object]:
    """Best of many runs, in CPU-seconds."""
    table, best, summed = simulate(case.layout, case.workload), float("inf"), float("inf")
    stop = time.process_time() + MEASURED_S
    while (begun := time.process_time()) < stop:
        table = simulate(case.layout, case.workload)
        best = min(best, time.process_time() - begun)
        begun = time.process_time()
        summarise(table)
        summed = min(summed, time.process_time() - begun)
    return row(case.name, table, best, summed)


def row(name: str, table: RecordTable, seconds: float, summed: float) -> dict[str, object]:
    tokens = int(table.output_tokens.sum())
    return {
        "case": name,
        "requests": len(table),
        "output_tokens": tokens,
        "cpu_s": seconds,
        "requests_per_cpu_s": len(table) / seconds,
        "output_tokens_per_cpu_s": tokens / seconds,
        "summarise_cpu_s": summed,
    }


def measure_study() -> dict[str, object]:
    """All variants of the example study, from the first thought of a layout to the last summary."""
    study = read_layout_or_study(STUDY)
    layouts = layouts_of_study(study, STUDY.parent)
    begun = time.process_time()
    tables = [simulate(layout, study.workload) for layout in layouts]
    simulated = time.process_time()
    for table in tables:
        summarise(table)
    return {
        "case": f"example study, {len(layouts)} variants x 10 min, timers built too",
        "requests": sum(len(table) for table in tables),
        "output_tokens": int(sum(table.output_tokens.sum() for table in tables)),
        "cpu_s": simulated - begun,
        "summarise_cpu_s": time.process_time() - simulated,
    }


def profile(letter: str) -> None:
    """What takes one case's time: by module, and the twenty functions that take most."""
    case = next(case for case in cases() if case.name.startswith(letter))
    simulate(case.layout, case.workload)
    with cProfile.Profile() as profiler:
        simulate(case.layout, case.workload)
    stats = pstats.Stats(profiler)
    shares: Counter[str] = Counter()
    for (file, _, name), (_, _, own_s, _, _) in stats.stats.items():
        place = Path(file)
        known = place.parent.name in {"simulate", "traffic", "cost"}
        shares[
            f"{place.parent.name}/{place.name}" if known else "NumPy" if "numpy" in f"{file}{name}" else "other"
        ] += own_s
    for module, own_s in shares.most_common():
        print(f"{module:24} {own_s / shares.total():6.1%}")
    stats.sort_stats("tottime").print_stats(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=["a", "b", "c"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.profile:
        profile(options.profile)
        return
    rows = [measure_study()] + [measure(case) for case in cases()]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'case':58} {'requests':>9} {'CPU-s':>8} {'requests/s':>11} {'M tokens/s':>11} {'summarise':>10}")
    for one in rows:
        rate = one["output_tokens"] / one["cpu_s"] / 1e6
        print(
            f"{one['case']:58} {one['requests']:9,} {one['cpu_s']:8.3f} {one['requests'] / one['cpu_s']:11,.0f}"
            f" {rate:11.1f} {one['summarise_cpu_s']:9.3f}s"
        )


if __name__ == "__main__":
    main()
