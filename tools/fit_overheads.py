"""Fit the overheads that no kernel table tells to a few end-to-end rows, and write data/cost/overheads.json.

    python tools/fit_overheads.py tests/data/validation/measured.csv tests/data/validation/measured2.csv measured3.csv
    python tools/fit_overheads.py tests/data/validation/measured*.csv --other other.json --only expert_layer_s

`--other` fits the same figures on other rows, as few as before, and writes them elsewhere: how far the figures
move, and the errors with them, is in docs/validation.md. `--only` names figures; the others stay as that file has them.

Each figure is searched on its own few rows, one after the other, three rounds; the loss is the mean of
|ln(predicted / measured)| of TPOT, a tenth of that of TTFT, and that of throughput where nothing else was measured.
No other row is read, and no figure belongs to one model.
"""

import argparse
import json
from math import log
from pathlib import Path

import atoll.cost.kernels
import atoll.cost.links
import atoll.cost.step
from atoll.cost.overheads import Overheads, shipped_overheads
from atoll.workflows import simulate
from atoll.workflows.measured_rows import Case, cases_or_reasons, read_rows
from atoll.workflows.validate import predict_or_reason

TARGET = Path(__file__).parent.parent / "src/atoll/data/cost/overheads.json"
QWEN, LLAMA, OSS = "aic-h100-qwen3-32b-", "aic-h100-llama-3.1-70b-", "aic-h200-gpt-oss-120b-"
A100 = "gpustack-qwen3-32b-a100-"
IOG_4090, QWEN_7B = "deepseek-r1-distill-llama-8b", "deepseek-r1-distill-qwen-7b"
CLOUD, NEXT = "cr11-", "crexp-pro6000x1-Qwen3-Coder-Next-FP8-tp1pp1x1-"
GLM, CODER = "GLM-4.6-FP8-tp8pp1x1-", "Qwen3-Coder-480B-A35B-Instruct-AWQ-"
EAGER = "a100q-gptq-"
PRO_6000 = "cr01-gcloud_rtxpro6000x8-GLM-4.6-FP8-tp8pp1x1-"
ROUNDS = 3

# What is fitted, on which rows, and whether TTFT counts as well.
PLAN: list[tuple[str, tuple[str, ...]]] = [
    ("host_step_s", ("gpustack-qwen3-8b-h100-latency-02", "iog-1qps_acemath-7b-instruct_1xh100-pcie")),
    ("early_sequence_s", ("iog-16qps_acemath-7b-instruct_1xh100-pcie", "iog-32qps_acemath-7b-instruct_1xh100-pcie")),
    ("front_s", ("iog-1qps_acemath-7b-instruct_1xh100-pcie", "iog-4qps_acemath-7b-instruct_1xh100-pcie")),
    ("prefill_factor.bf16", (f"{QWEN}010", f"{QWEN}007", f"{A100}05", f"{A100}06")),
    ("host_sequence_s", (f"{QWEN}012", f"{QWEN}015", f"{QWEN}013")),
    ("prefill_factor.fp8", (f"{LLAMA}050", f"{LLAMA}041", f"{LLAMA}043")),
    ("reduce_skew_s.2", (f"{LLAMA}044", f"{LLAMA}071", f"{OSS}074")),
    ("reduce_skew_s.4", (f"{LLAMA}051", f"{LLAMA}063", f"{OSS}071")),
    ("reduce_skew_s.8", (f"{LLAMA}066", f"{LLAMA}073", f"{OSS}080")),
    ("expert_prefill_factor.mxfp4_wo", (f"{OSS}032", f"{OSS}007", f"{OSS}004", f"{OSS}081", f"{OSS}010")),
    ("expert_prefill_factor.bf16", ("gpustack-qwen3-235b-a22b-a100-08",)),
    ("weight_only_factor", (f"{A100}03",)),
    ("host_link_floor_s", (f"iog-1qps_{IOG_4090}_2xrtx-4090", f"iog-1qps_{IOG_4090}_4xrtx-4090")),
    ("host_link_share", (f"iog-8qps_{IOG_4090}_2xrtx-4090", f"iog-16qps_{IOG_4090}_4xrtx-4090")),
    (
        "expert_layer_s",
        (
            f"{CLOUD}h100x8-{CODER}tp4pp1x2ep-c1-92",
            f"{CLOUD}h100x8-{GLM}c1-94",
            f"{CLOUD}h200x8-GLM-4.5-Air-AWQ-4bit-tp1pp1x8ep-c1-96",
            f"{CLOUD}h200x8-{GLM}c1-97",
            f"{NEXT}c8-17",
            f"{NEXT}c8-26",
            f"{NEXT}c16-11",
            "cr10-rtx5090x1-Qwen3-Coder-30B-A3B-Instruct-AWQ-tp1pp1x1-c400-112",
        ),
    ),
    ("pcie_skew_s.4", (f"{CLOUD}pro6000x8-{CODER}tp4pp1x2ep-c1-99",)),
    ("pcie_skew_s.8", (f"{CLOUD}pro6000x8-{GLM}c1-101",)),
    (
        "pipeline_wait",
        (
            f"{CLOUD}pro6000x8-GLM-4.6-FP8-tp1pp8x1-c256-84",
            f"{CLOUD}l40sx2-GLM-4.5-Air-AWQ-4bit-tp1pp2x1ep-c400-90",
            f"{CLOUD}pro6000x8-{CODER}tp1pp4x2ep-c256-83",
            "cr10-rtx4090x2-Meta-Llama-3.3-70B-Instruct-AWQ-INT4-tp1pp2x1-c400-108",
        ),
    ),
    ("eager_layer_s", (f"{EAGER}512x256-c4-4",)),
    ("state_token_s", (f"{NEXT}c12-10", f"{NEXT}c8-17", f"{NEXT}c12-18", f"{NEXT}c8-26")),
]
# The same figures on other rows.
OTHER: list[tuple[str, tuple[str, ...]]] = [
    ("host_step_s", ("gpustack-qwen3-8b-h100-latency-03", f"iog-1qps_{QWEN_7B}_1xh100-pcie")),
    ("early_sequence_s", (f"iog-16qps_{QWEN_7B}_1xh100-pcie", f"iog-32qps_{QWEN_7B}_1xh100-pcie")),
    ("front_s", (f"iog-1qps_{QWEN_7B}_1xh100-pcie", f"iog-4qps_{QWEN_7B}_1xh100-pcie")),
    ("prefill_factor.bf16", (f"{QWEN}008", f"{QWEN}011", f"{A100}01", f"{A100}04")),
    ("host_sequence_s", (f"{QWEN}009", f"{QWEN}011", f"{QWEN}014")),
    ("prefill_factor.fp8", (f"{LLAMA}060", f"{LLAMA}068", f"{LLAMA}070")),
    ("reduce_skew_s.2", (f"{LLAMA}070", f"{LLAMA}105", f"{OSS}102")),
    ("reduce_skew_s.4", (f"{LLAMA}001", f"{OSS}078", f"{OSS}092")),
    ("reduce_skew_s.8", (f"{LLAMA}054", f"{OSS}023", f"{OSS}111")),
    ("expert_prefill_factor.mxfp4_wo", (f"{OSS}011", f"{OSS}100", f"{OSS}101", f"{OSS}105", f"{OSS}109")),
    ("expert_prefill_factor.bf16", ("gpustack-qwen3-235b-a22b-a100-09",)),
    ("host_link_floor_s", (f"iog-1qps_{QWEN_7B}_2xrtx-4090", f"iog-1qps_{QWEN_7B}_4xrtx-4090")),
    ("host_link_share", (f"iog-8qps_{QWEN_7B}_2xrtx-4090", f"iog-16qps_{QWEN_7B}_4xrtx-4090")),
    (
        "expert_layer_s",
        (
            f"{CLOUD}h100x8-{CODER}tp4pp1x2ep-c256-73",
            f"{CLOUD}h100x8-{GLM}c256-75",
            f"{CLOUD}h200x8-{GLM}c512-78",
            "cr01-h200x8-Qwen3-Coder-480B-A35B-Instruct-AWQ-tp4pp1x2-c64-61",
        ),
    ),
    ("pcie_skew_s.4", (f"{CLOUD}pro6000x8-{CODER}tp4pp1x2ep-c256-80", f"{CLOUD}pro6000x8-{CODER}tp4pp1x2ep-c256-85")),
    ("pcie_skew_s.8", (f"{PRO_6000}c32-71", f"{PRO_6000}c64-67", f"{PRO_6000}c128-68")),
    (
        "pipeline_wait",
        (
            "cr10-rtx4090x4-Meta-Llama-3.3-70B-Instruct-AWQ-INT4-tp1pp2x2-c200-111",
            "cr10-rtx4090x4-GLM-4.5-Air-AWQ-4bit-tp1pp4x1ep-c400-110",
        ),
    ),
    ("eager_layer_s", (f"{EAGER}2048x512-c4-24",)),
    ("state_token_s", ("crrec-rtx4090x1-Qwen3.6-27B-AWQ-INT4-tp1pp1x1-c1-28", f"{NEXT}c16-19")),
]
STEPS = (0.6, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.6)
HOSTS = ("host_link_floor_s", "host_link_share", "host_step_s", "early_sequence_s", "weight_only_factor")
NO_TTFT = (
    *HOSTS,
    "expert_layer_s",
    "pcie_skew_s.4",
    "pcie_skew_s.8",
    "pipeline_wait",
    "eager_layer_s",
    "state_token_s",
)


def use(overheads: Overheads) -> None:
    """Let every timer that is made from now on take these."""
    for module in (atoll.cost.links, atoll.cost.kernels, atoll.cost.step):
        module.shipped_overheads = lambda: overheads
    simulate.equipment_for.cache_clear()


def changed(overheads: Overheads, name: str, factor: float) -> Overheads:
    field, _, key = name.partition(".")
    value = getattr(overheads, field)
    if not key:
        return overheads.replace(**{field: value * factor})
    return overheads.replace(**{field: {**value, key: value[key] * factor}})


def loss(overheads: Overheads, cases: list[Case], *, ttft: bool) -> float:
    use(overheads)
    total = 0.0
    for case in cases:
        predicted, measured = predict_or_reason(case), case.measured
        if isinstance(predicted, str):
            continue
        if measured.tpot_s and predicted.tpot_s:
            total += abs(log(predicted.tpot_s / measured.tpot_s))
        if ttft and measured.ttft_s and predicted.ttft_s:
            total += abs(log(predicted.ttft_s / measured.ttft_s)) / 10
        counts = not measured.tpot_s or (case.id.startswith("gpustack-qwen3") and "a100" in case.id)
        if counts and measured.output_tokens_per_s and predicted.output_tokens_per_s:
            total += abs(log(predicted.output_tokens_per_s / measured.output_tokens_per_s))
    return total / len(cases)


def search(overheads: Overheads, name: str, cases: list[Case]) -> Overheads:
    ttft = name not in NO_TTFT
    best, least = overheads, loss(overheads, cases, ttft=ttft)
    for factor in STEPS:
        tried = changed(overheads, name, factor)
        found = loss(tried, cases, ttft=ttft)
        if found < least - 1e-4:
            best, least = tried, found
    print(f"{name:32} {least:.4f}", flush=True)
    return best


def rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.3g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value


def fit(table: list[dict[str, str]], plan: list[tuple[str, tuple[str, ...]]], base: Overheads) -> Overheads:
    """The figures of the plan, each on its rows; what it does not name stays as it is in `base`."""
    wanted = {row for _, rows in plan for row in rows}
    cases = {row["id"]: case for row, case in cases_or_reasons([r for r in table if r["id"] in wanted])}
    missing = wanted - {name for name, case in cases.items() if isinstance(case, Case)}
    assert not missing, missing
    overheads = base
    for _ in range(ROUNDS):
        for name, rows in plan:
            overheads = search(overheads, name, [cases[row] for row in rows])
    # fp8 in blocks was measured by nobody here; it takes the figure of plain fp8.
    factors = {**overheads.prefill_factor, "fp8_block": overheads.prefill_factor["fp8"]}
    return overheads.replace(prefill_factor=factors, fitted_on=tuple(sorted({*base.fitted_on, *wanted})))


def constants() -> str:
    """Every fitted figure, what set it, and what the same fit gives on other rows."""
    lines = "| figure | set by | whose rows |\n|---|--:|---|\n"
    for name, rows in PLAN:
        sources = sorted({row.split("-")[0] for row in rows})
        lines += f"| `{name}` | {len(rows)} | {', '.join(sources)} |\n"
    return lines


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--only", nargs="+")
    return parser.parse_args()


if __name__ == "__main__":
    asked = read_arguments()
    rows = [r for path in asked.tables for r in read_rows(path.read_text(), origin=str(path), folder=path.parent)]
    plan = [one for one in (OTHER if asked.other else PLAN) if asked.only is None or one[0] in asked.only]
    base = shipped_overheads()
    if asked.only is None:
        base = base.replace(fitted_on=())
    elif asked.other:
        base = Overheads.from_plain(json.loads(asked.other.read_text()), origin=str(asked.other))
    found = fit(rows, plan, base)
    target = asked.other or TARGET
    lines = [f"{json.dumps(key)}: {json.dumps(rounded(value))}" for key, value in found.to_plain().items()]
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(target.read_text())
