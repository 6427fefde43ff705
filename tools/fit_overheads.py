"""Fit the overheads that no kernel table tells to a few end-to-end rows, and write data/cost/overheads.json.

    python tools/fit_overheads.py tests/data/validation/measured.csv
    python tools/fit_overheads.py tests/data/validation/measured.csv --other other.json

The second form fits the same figures on other rows, as few as before, and writes them elsewhere: how far the figures
move, and the errors with them, is in docs/validation.md.

Each figure is searched on its own few rows, one after the other, three rounds; the loss is the mean of
|ln(predicted / measured)| of TPOT, a tenth of that of TTFT, and that of throughput where nothing else was measured.
No other row is read, and no figure belongs to one model.
"""

import json
import sys
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
]
STEPS = (0.6, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.6)
HOSTS_TTFT = ("host_link_floor_s", "host_link_share", "host_step_s", "early_sequence_s", "weight_only_factor")


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
        if (
            case.id.startswith("gpustack-qwen3")
            and "a100" in case.id
            and measured.output_tokens_per_s
            and predicted.output_tokens_per_s
        ):
            total += abs(log(predicted.output_tokens_per_s / measured.output_tokens_per_s))
    return total / len(cases)


def search(overheads: Overheads, name: str, cases: list[Case]) -> Overheads:
    ttft = name not in HOSTS_TTFT
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


def fit(table: list[dict[str, str]], plan: list[tuple[str, tuple[str, ...]]]) -> Overheads:
    """The figures of the plan, each on its rows."""
    wanted = {row for _, rows in plan for row in rows}
    cases = {row["id"]: case for row, case in cases_or_reasons([r for r in table if r["id"] in wanted])}
    missing = wanted - {name for name, case in cases.items() if isinstance(case, Case)}
    assert not missing, missing
    overheads = shipped_overheads()
    for _ in range(ROUNDS):
        for name, rows in plan:
            overheads = search(overheads, name, [cases[row] for row in rows])
    # fp8 in blocks was measured by nobody here; it takes the figure of plain fp8.
    factors = {**overheads.prefill_factor, "fp8_block": overheads.prefill_factor["fp8"]}
    return overheads.replace(prefill_factor=factors, fitted_on=tuple(sorted(wanted)))


if __name__ == "__main__":
    rows = read_rows(Path(sys.argv[1]).read_text(), origin=sys.argv[1])
    other = Path(sys.argv[3]) if sys.argv[2:3] == ["--other"] else None
    found = fit(rows, OTHER if other else PLAN)
    lines = [f"{json.dumps(key)}: {json.dumps(rounded(value))}" for key, value in found.to_plain().items()]
    (other or TARGET).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print((other or TARGET).read_text())
