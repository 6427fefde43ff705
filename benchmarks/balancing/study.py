"""Which way of balancing is best when answers take 30 to 150 seconds? Tables and charts for docs/balancing.md.

    python benchmarks/balancing/study.py [--seeds 24] [--only SCENARIO] [--docs docs]

Two replicas of Qwen2.5-32B-Instruct, each on a bridged pair of H100 NVL, in virtual time. Every policy meets the same
requests: the seed decides them, not the policy. Tables stand between the markers of docs/balancing.md, single figures
in its text between <!--=name--> and <!--/-->; charts are written to docs/img.
"""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import vl_convert

from atoll.analyse.summary import summarise
from atoll.inventory.parse import parse_box
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.simulate.run import Conditions, Outage
from atoll.traffic.record import RecordTable
from atoll.traffic.workload import Workload
from atoll.workflows.boxes import with_gpu_names
from atoll.workflows.simulate import simulate

CAPTURE = Path(__file__).parents[2] / "examples" / "four-h100-nvl" / "topo.txt"
POLICIES = (Policy.ROUND_ROBIN, Policy.LEAST_CONN, Policy.RANDOM_TWO, Policy.SHORTEST_QUEUE)
NAMES = {
    Policy.ROUND_ROBIN: "round robin",
    Policy.LEAST_CONN: "least_conn",
    Policy.RANDOM_TWO: "random two",
    Policy.SHORTEST_QUEUE: "fewest tokens*",
}
FLAGS = EngineFlags(max_num_seqs=32, max_num_batched_tokens=8192, max_model_len=32768)
# At some 15 ms a token 2,000 tokens take 30 s and 10,000 take 150 s.
EQUAL = 4000
SPREAD = {"kind": "lognormal", "mean": 4500, "sigma": 0.5, "low": 2000, "high": 10000}
CLOSED = {"users": 30, "duration_s": 600, "start": 20, "warmup_s": 120}


AS_IT_SHOULD_BE = Conditions()


@dataclass(frozen=True)
class Scenario:
    """A load on the two replicas, and what is not as it should be."""

    name: str
    title: str
    workload: Workload
    conditions: Conditions = AS_IT_SHOULD_BE
    flags: EngineFlags = FLAGS
    policies: tuple[Policy, ...] = POLICIES
    router: dict[str, object] = field(default_factory=dict)


def scenarios() -> list[Scenario]:
    spread = Workload(**CLOSED, prompt=1500, output=SPREAD)
    mixed = {"kind": "lognormal", "mean": 4000, "sigma": 1.3, "low": 64, "high": 20000}
    nginx = (Policy.ROUND_ROBIN, Policy.LEAST_CONN, Policy.RANDOM_TWO)
    short = FLAGS.replace(max_num_seqs=16)
    return [
        Scenario("equal", "equal lengths: 1,500 / 4,000 tokens", Workload(**CLOSED, prompt=1500, output=EQUAL)),
        Scenario("lognormal", "answers of 2,000-10,000 tokens (30-150 s)", spread),
        Scenario("prompts", "the same, prompts of 64-20,000 tokens", spread.replace(prompt=mixed)),
        Scenario("slow", "replica 1 takes 1.5 times as long a step", spread, Conditions(slowdown=(1.0, 1.5))),
        Scenario(
            "restart",
            "replica 1 dies at 4:00 and is back at 5:30",
            spread.replace(warmup_s=240),
            Conditions(outages=(Outage(replica=1, at_s=240, back_s=330),)),
        ),
        Scenario(
            "workers",
            "8 nginx workers without a zone",
            spread,
            policies=nginx,
            router={"shared_zone": False, "workers": 8},
        ),
        Scenario("seats", "30 users on 2 x 16 seats (max_num_seqs 16)", spread, flags=short),
        Scenario(
            "seats-workers",
            "2 x 16 seats and 8 workers without a zone",
            spread,
            flags=short,
            policies=nginx,
            router={"shared_zone": False, "workers": 8},
        ),
        Scenario("open", "open loop at 90 % of what 2 x 32 seats serve", open_loop(0.9)),
        Scenario("open70", "open loop at 70 %", open_loop(0.7)),
    ]


def open_loop(share: float) -> Workload:
    """An hour of Poisson arrivals at a share of what the replicas serve with all seats taken."""
    full = Workload(users=64, requests=1500, start="at_once", prompt=1500, output=SPREAD)
    summary = summarise(simulate(layout_of(Policy.LEAST_CONN, FLAGS), full))
    rate = share * summary.requests_per_s
    return Workload(rate=rate, duration_s=3600, warmup_s=600, prompt=1500, output=SPREAD)


def layout_of(policy: Policy, flags: EngineFlags, router: dict[str, object] | None = None) -> Layout:
    box = with_gpu_names(parse_box(CAPTURE.read_text(), origin=str(CAPTURE)), "H100-NVL-94GB")
    return Layout(
        name="2xTP2",
        model="Qwen/Qwen2.5-32B-Instruct",
        box=box,
        replicas=(Replica(gpus=(0, 1), tensor_parallel=2), Replica(gpus=(2, 3), tensor_parallel=2)),
        router=Router(policy=policy, **(router or {})),
        flags=flags,
    )


def run(scenario: Scenario, policy: Policy, seed: int) -> RecordTable:
    layout = layout_of(policy, scenario.flags, scenario.router)
    return simulate(layout, scenario.workload.replace(seed=seed), conditions=scenario.conditions)


# What is measured of a run.


@dataclass(frozen=True)
class InFlight:
    """How many requests each replica had after each event, oldest event first."""

    at_s: np.ndarray
    counts: np.ndarray  # (events, replicas)


def in_flight(table: RecordTable, replicas: int = 2) -> InFlight:
    served = np.array([-1 if name is None else int(name) for name in table.replica])
    known = served >= 0
    ends = np.where(np.isnan(table.done_s), np.inf, table.done_s)
    times = np.concatenate([table.sent_s[known], ends[known]])
    change = np.concatenate([np.ones(known.sum()), -np.ones(known.sum())])
    which = np.concatenate([served[known], served[known]])
    order = np.lexsort((change, times))  # at one moment answers end before the next are sent
    steps = np.zeros((len(order), replicas))
    steps[np.arange(len(order)), which[order]] = change[order]
    return InFlight(times[order], np.cumsum(steps, axis=0))


def measures(table: RecordTable, workload: Workload, conditions: Conditions = AS_IT_SHOULD_BE) -> dict[str, float]:
    summary, warmup_s = summarise(table, workload=workload), workload.warmup_s or 0.0
    flight = in_flight(table)
    stop = workload.duration_s or float(table.sent_s.max())
    inside = (flight.at_s >= warmup_s) & (flight.at_s < stop)
    weight = np.diff(np.append(flight.at_s, np.inf))[inside]
    weight[-1] = max(0.0, stop - flight.at_s[inside][-1])
    ahead = (flight.counts[:, 0] - flight.counts[:, 1])[inside]
    chosen = [name for name, sent in zip(table.replica, table.sent_s, strict=True) if sent >= warmup_s]
    return {
        "ttft_p50": summary.ttft_s.p50 or math.nan,
        "ttft_p95": summary.ttft_s.p95 or math.nan,
        "ttft_p99": summary.ttft_s.p99 or math.nan,
        "e2e_p50": summary.e2e_s.p50 or math.nan,
        "e2e_p99": summary.e2e_s.p99 or math.nan,
        "tokens_per_s": summary.output_tokens_per_s,
        "apart": float(np.average(np.abs(ahead), weights=weight)),
        "most_apart": float(np.abs(ahead).max()),
        "swings": float(swings(ahead)),
        "in_a_row": float(longest_run(chosen)),
        "uneven": float(weight[np.abs(ahead) > 2].sum() / weight.sum()),
        "level_after": level_after(flight, conditions),
    }


def level_after(flight: InFlight, conditions: Conditions) -> float:
    """Seconds from a replica's return until both sides have as many requests, or one more; NaN without an outage."""
    back = next((outage.back_s for outage in conditions.outages if outage.back_s is not None), math.nan)
    level = (np.abs(flight.counts[:, 0] - flight.counts[:, 1]) <= 1) & (flight.at_s > back)
    return float(flight.at_s[level][0] - back) if level.any() else math.nan


def swings(ahead: np.ndarray, *, least: int = 4) -> int:
    """How often the lead passes from one side by at least `least` requests to the other by as many."""
    sides = np.sign(ahead[np.abs(ahead) >= least])
    return int((np.diff(sides) != 0).sum())


def longest_run(names: Sequence[str | None]) -> int:
    """The most requests in a row that one replica got."""
    longest = current = 0
    before: str | None = None
    for name in names:
        current = current + 1 if name == before else 1
        longest, before = max(longest, current), name
    return longest


# What it comes to over all seeds.


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval over seeds."""
    rng = np.random.default_rng(7)
    means = values[rng.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def study(scenario: Scenario, seeds: Sequence[int]) -> dict[Policy, dict[str, np.ndarray]]:
    """Per policy and measure one value a seed."""
    results = {}
    for policy in scenario.policies:
        rows = [measures(run(scenario, policy, seed), scenario.workload, scenario.conditions) for seed in seeds]
        results[policy] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return results


COLUMNS = (
    *("policy", "TTFT p50", "TTFT p95", "TTFT p99", "p99 against round robin", "E2E p50", "E2E p99"),
    *("tokens/s", "apart, mean (most)", "swings", "in a row"),
)


def table_of(scenario: Scenario, results: dict[Policy, dict[str, np.ndarray]]) -> str:
    """A Markdown table: mean over seeds, its interval, and whether round robin differs."""
    lines = [
        f"**{scenario.title}**",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    base = results[Policy.ROUND_ROBIN]
    for policy, values in results.items():
        apart = f"{values['apart'].mean():.1f} ({values['most_apart'].mean():.0f})"
        cells = [
            NAMES[policy],
            *(seconds(values[name]) for name in ("ttft_p50", "ttft_p95", "ttft_p99")),
            "-" if policy is Policy.ROUND_ROBIN else difference(values["ttft_p99"], base["ttft_p99"]),
            *(seconds(values[name]) for name in ("e2e_p50", "e2e_p99")),
            f"{values['tokens_per_s'].mean():,.0f}",
            apart,
            f"{values['swings'].mean():.1f}",
            f"{values['in_a_row'].mean():.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def seconds(values: np.ndarray) -> str:
    mean, low, high = interval(values)
    digits = 0 if mean >= 100 else 1 if mean >= 10 else 2
    return f"{mean:.{digits}f} s ({low:.{digits}f}-{high:.{digits}f})"


def difference(values: np.ndarray, base: np.ndarray) -> str:
    """The mean difference of the same seeds, or that there is none to speak of."""
    mean, low, high = interval(values - base)
    if low <= 0 <= high:
        return "no clear difference"
    if max(abs(low), abs(high)) < 0.01:
        return "under 0.01 s"
    digits = 1 if abs(mean) >= 10 else 2
    return f"{mean:+.{digits}f} s ({low:+.{digits}f} to {high:+.{digits}f})"


# What the page says in words.

Results = dict[str, dict[Policy, dict[str, np.ndarray]]]


def facts(results: Results) -> dict[str, str]:
    """Figures in the page's text, by the name that stands before them there."""

    def mean(case: str, policy: Policy, measure: str) -> float:
        return float(results[case][policy][measure].mean())

    def gain(case: str, measure: str) -> float:
        """How much more least_conn gives than round robin, as a share."""
        return mean(case, Policy.LEAST_CONN, measure) / mean(case, Policy.ROUND_ROBIN, measure) - 1

    def less(case: str, measure: str) -> float:
        return mean(case, Policy.ROUND_ROBIN, measure) - mean(case, Policy.LEAST_CONN, measure)

    def middle(policy: Policy) -> str:
        low, high = np.nanquantile(results["restart"][policy]["level_after"], [0.1, 0.9])
        return f"{low:.0f}-{high:.0f} s"

    turns, looking = Policy.ROUND_ROBIN, Policy.LEAST_CONN
    worst = max(-less(case, "ttft_p99") for case in results if "workers" not in case)  # those have no zone
    return {
        "apart": f"{mean('lognormal', turns, 'apart'):.1f}",
        "most-apart": f"{mean('lognormal', turns, 'most_apart'):.0f}",
        "spare-tokens": f"{abs(gain('lognormal', 'tokens_per_s')):.1%}",
        "spare-ttft": f"{abs(less('lognormal', 'ttft_p99')):.2f} s",
        "seats-wait": f"{mean('seats', turns, 'ttft_p99'):.0f} s",
        "seats-uneven": f"{mean('seats', turns, 'uneven'):.0%}",
        "slow-tokens": f"{gain('slow', 'tokens_per_s'):.0%}",
        "slow-answers": f"{less('slow', 'e2e_p99'):.0f} s",
        "restart-least-conn": middle(looking),
        "restart-round-robin": middle(turns),
        "open-p99": f"{-gain('open', 'ttft_p99'):.0%}",
        "workers-least-conn": f"{mean('seats-workers', looking, 'ttft_p99'):.0f} s",
        "workers-round-robin": f"{mean('seats-workers', turns, 'ttft_p99'):.0f} s",
        "workers-zone": f"{mean('seats', looking, 'ttft_p99'):.1f} s",
        "one-prompt": f"{mean('equal', turns, 'ttft_p50'):.2f} s",
        "never-worse": f"{worst:.2f} s",
        "seeds": f"{len(results['equal'][turns]['apart'])}",
    }


def write_facts(page: Path, found: dict[str, str]) -> None:
    """Between <!--=name--> and <!--/-->; KeyError for a name that has no figure."""
    text = page.read_text(encoding="utf-8")
    put = re.sub(r"<!--=([\w-]+)-->.*?<!--/-->", lambda mark: f"<!--={mark[1]}-->{found[mark[1]]}<!--/-->", text)
    page.write_text(put, encoding="utf-8")


# Charts.


def draw(spec: dict[str, object], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")


def ttft_chart(everything: dict[str, tuple[Scenario, dict[Policy, dict[str, np.ndarray]]]]) -> dict[str, object]:
    """TTFT p99 of every policy in every scenario, with its interval; a logarithmic axis."""
    rows = []
    for scenario, results in everything.values():
        for policy, values in results.items():
            mean, low, high = interval(values["ttft_p99"])
            rows.append({"scenario": scenario.title, "policy": NAMES[policy], "p99": mean, "low": low, "high": high})
    order = [scenario.title for scenario, _ in everything.values()]
    shared = {
        "y": {"field": "scenario", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 330}},
        "yOffset": {"field": "policy", "sort": list(NAMES.values())},
        "color": {"field": "policy", "type": "nominal", "sort": list(NAMES.values()), "title": "policy"},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": 480,
        "height": {"step": 11},
        "data": {"values": rows},
        "layer": [
            {
                "mark": {"type": "point", "filled": True, "size": 45},
                "encoding": shared
                | {
                    "x": {
                        "field": "p99",
                        "type": "quantitative",
                        "scale": {"type": "log"},
                        "title": "TTFT p99, seconds: mean over seeds and 95 % interval",
                    }
                },
            },
            {
                "mark": {"type": "rule"},
                "encoding": shared | {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
            },
        ],
    }


def queue_chart(scenario: Scenario, policies: Sequence[Policy], *, seed: int, upto_s: float) -> dict[str, object]:
    """Requests on each replica over time, one row a policy."""
    rows = []
    for policy in policies:
        flight = in_flight(run(scenario, policy, seed))
        seen = np.searchsorted(flight.at_s, np.arange(0.0, upto_s, upto_s / 600), side="right") - 1
        for number in range(2):
            counts = np.where(seen >= 0, flight.counts[seen, number], 0)
            changed = np.flatnonzero(np.diff(counts, prepend=-1, append=-1)[:-1] != 0)
            for place in [*changed, len(counts) - 1]:  # a step stands until the next change
                minute = place * upto_s / 600 / 60
                rows.append(
                    {"policy": NAMES[policy], "minute": minute, "replica": str(number), "requests": counts[place]}
                )
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": rows},
        "facet": {
            "row": {
                "field": "policy",
                "type": "nominal",
                "sort": [NAMES[p] for p in policies],
                "title": None,
                "header": {"labelAngle": 0, "labelAlign": "left"},
            }
        },
        "spec": {
            "width": 560,
            "height": 100,
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.3},
            "encoding": {
                "x": {"field": "minute", "type": "quantitative", "title": "minute"},
                "y": {"field": "requests", "type": "quantitative", "title": "requests"},
                "color": {"field": "replica", "type": "nominal", "title": "replica"},
            },
        },
    }


QUEUE_CHARTS = {"lognormal": 600, "slow": 600, "restart": 600, "workers": 600, "seats": 600, "open": 3600}


def write_tables(page: Path, tables: Sequence[str]) -> None:
    """Between the markers of the page; what stands around them is left alone."""
    begin, end = "<!-- tables: begin -->", "<!-- tables: end -->"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"{begin}\n{end}\n"
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    page.write_text(f"{before}{begin}\n\n" + "\n".join(tables) + f"\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--only", action="append", help="these scenarios; the tables are printed then")
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[2] / "docs")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    everything = {}
    for scenario in scenarios():
        if options.only and scenario.name not in options.only:
            continue
        everything[scenario.name] = (scenario, study(scenario, seeds))
        print(f"{scenario.name}: done", file=sys.stderr)
    tables = [table_of(*pair) for pair in everything.values()]
    if options.only:
        print("\n".join(tables))
        return
    write_tables(options.docs / "balancing.md", tables)
    write_facts(options.docs / "balancing.md", facts({name: results for name, (_, results) in everything.items()}))
    draw(ttft_chart(everything), options.docs / "img" / "balancing-ttft.svg")
    for name, upto_s in QUEUE_CHARTS.items():
        scenario = everything[name][0]
        spec = queue_chart(scenario, scenario.policies[:3], seed=1, upto_s=upto_s)
        draw(spec, options.docs / "img" / f"balancing-queues-{name}.svg")


if __name__ == "__main__":
    main()
