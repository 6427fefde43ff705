"""Make docs/validation.md's tables and drawings, data/cost/bands.json and pairs.json, from a table of measurements.

python tools/make_validation.py tests/data/validation/measured.csv
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import quantiles

import pair_bands
import vl_convert

from atoll.cost.band import NARROWEST, family_of
from atoll.cost.overheads import shipped_overheads
from atoll.inventory.catalog import find_gpu
from atoll.workflows.measured_rows import Measures, cases_or_reasons, read_rows
from atoll.workflows.validate import ErrorOf, GroupResult, Verdict, group_errors, predict_or_reason, summarise_family

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- made by tools/make_validation.py -->", "<!-- end -->"

# Rows that no scheduler explains; they stay in every table and are named in the text.
ODD = "aic-h200-llama-3.1-8b", "aic-h100-qwen3-32b-09"


def predict_all(path: Path) -> tuple[list[Verdict], dict[str, int]]:
    verdicts, skipped = [], defaultdict(int)
    for _, case in cases_or_reasons(read_rows(path.read_text(), origin=str(path))):
        predicted = case if isinstance(case, str) else predict_or_reason(case)
        if isinstance(case, str) or isinstance(predicted, str):
            skipped[str(predicted)] += 1
        else:
            verdicts.append(Verdict(case=case, predicted=predicted))
    return verdicts, dict(skipped)


def table(groups: Sequence[GroupResult]) -> str:
    head = "| family | rows | TTFT | TPOT | E2E | tokens/s | order by latency, by tokens/s/GPU |\n|---|--:|---|---|---|---|---|\n"
    return head + "".join(
        f"| {g.family} | {g.n} | {cell(g.ttft)} | {cell(g.tpot)} | {cell(g.e2e)} | {cell(g.throughput)} | {order(g)} |\n"
        for g in groups
    )


def cell(error: ErrorOf | None) -> str:
    return "-" if error is None else f"{error.mean_abs:.1%} ({error.median_abs:.1%}, {error.bias:+.1%})"


def order(group: GroupResult) -> str:
    one, other = group.order_by_latency, group.order_by_gpu_throughput
    if one is None:
        return "-"
    return f"{one.right}/{one.cases}, {f'{other.right}/{other.cases}' if other else '-'}"


def scatter(verdicts: Sequence[Verdict], value: Callable[[Measures], float | None], title: str, unit: str) -> str:
    """An SVG: measured against predicted, both logarithmic, with the diagonal."""
    points = [
        {"measured": value(v.case.measured), "predicted": value(v.predicted), "source": v.case.family.split()[0]}
        for v in verdicts
        if value(v.case.measured) and value(v.predicted)
    ]
    ends = [
        min(min(p["measured"], p["predicted"]) for p in points),
        max(max(p["measured"], p["predicted"]) for p in points),
    ]
    axis = {"scale": {"type": "log", "domain": [ends[0] * 0.9, ends[1] * 1.1], "nice": False}}
    line = [{"x": end, "y": end} for end in ends]
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": title,
        "width": 420,
        "height": 420,
        "background": "white",
        "layer": [
            {
                "data": {"values": line},
                "mark": {"type": "line", "color": "#999", "strokeDash": [4, 4]},
                "encoding": {
                    "x": {"field": "x", "type": "quantitative", **axis},
                    "y": {"field": "y", "type": "quantitative", **axis},
                },
            },
            {
                "data": {"values": points},
                "mark": {"type": "point", "filled": True, "size": 30, "opacity": 0.7},
                "encoding": {
                    "x": {"field": "measured", "type": "quantitative", "title": f"measured, {unit}", **axis},
                    "y": {"field": "predicted", "type": "quantitative", "title": f"predicted, {unit}", **axis},
                    "color": {"field": "source", "type": "nominal", "title": "source"},
                },
            },
        ],
    }
    return vl_convert.vegalite_to_svg(json.dumps(spec), vl_version="5.20")


def bands(verdicts: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    """By family; loads that come all at once are left out where there are others, since nobody plans for them."""
    families = defaultdict(list)
    for verdict in verdicts:
        kind = find_gpu(verdict.case.layout.box.gpus[0].name or "")
        families[family_of(kind, verdict.case.card)].append(verdict)
    found = {}
    for family, members in sorted(families.items()):
        steady = [one for one in members if not one.case.family.endswith("burst")]
        counted = steady if len(steady) >= FEW else members
        if len(counted) >= FEW:
            found[family] = {**{name: width(counted, value) for name, value in MEASURES.items()}, "rows": len(counted)}
    return found


FEW = 5


def throughput(one: Verdict, measures: Measures) -> float | None:
    """As measured, or by Little's law from the times of a closed loop."""
    if one.case.measured.output_tokens_per_s:
        return measures.output_tokens_per_s
    if one.case.users is None or measures.ttft_s is None or measures.tpot_s is None:
        return None
    tokens = one.case.output_tokens
    return one.case.users * tokens / (measures.ttft_s + measures.tpot_s * (tokens - 1))


MEASURES: dict[str, Callable[[Verdict, Measures], float | None]] = {
    "ttft": lambda _, measures: measures.ttft_s,
    "tpot": lambda _, measures: measures.tpot_s,
    "throughput": throughput,
}


def width(members: Sequence[Verdict], value: Callable[[Verdict, Measures], float | None]) -> float:
    """What four of five rows stay within."""
    errors = []
    for one in members:
        predicted, measured = value(one, one.predicted), value(one, one.case.measured)
        if predicted and measured:
            errors.append(abs(predicted / measured - 1))
    return round(max(NARROWEST, quantiles(errors, n=5)[3]), 3)


def between(text: str, name: str, content: str) -> str:
    start = text.index(BEGIN.replace("made", f"{name}, made")) if name else 0
    start = text.index("\n", start) + 1
    return text[:start] + content + text[text.index(END, start) :]


if __name__ == "__main__":
    verdicts, skipped = predict_all(Path(sys.argv[1]))
    fitted = set(shipped_overheads().fitted_on)
    fresh = [v for v in verdicts if v.case.id not in fitted]
    plain = [v for v in fresh if not v.case.id.startswith(ODD)]
    page = ROOT / "docs/validation.md"
    text = page.read_text()
    text = between(text, "families", table(list(group_errors(verdicts))))
    checks = [
        summarise_family(
            "H100/H200 SXM, dense, closed loop, rows not fitted on", [v for v in plain if is_dense_sweep(v)]
        )
        for is_dense_sweep in [lambda v: v.case.id.startswith("aic-") and v.case.card.experts is None]
    ]
    checks.append(
        summarise_family(
            "A100, rows not fitted on", [v for v in fresh if "A100" in v.case.family and "gpustack-" in v.case.id]
        )
    )
    checks.append(summarise_family("H100 PCIe, rows not fitted on", [v for v in fresh if "H100 PCIe" in v.case.family]))
    checks.append(summarise_family("RTX 4090, rows not fitted on", [v for v in fresh if "4090" in v.case.family]))
    text = between(text, "unseen", table(checks))
    text = between(
        text, "skipped", "".join(f"- {count}: {why}\n" for why, count in sorted(skipped.items(), key=lambda i: -i[1]))
    )
    page.write_text(text)
    images = ROOT / "docs/img"
    images.mkdir(exist_ok=True)
    (images / "validation-tpot.svg").write_text(
        scatter(verdicts, lambda m: m.tpot_s and m.tpot_s * 1e3, "Time per output token", "ms")
    )
    (images / "validation-ttft.svg").write_text(scatter(verdicts, lambda m: m.ttft_s, "Time to first token", "s"))
    (images / "validation-throughput.svg").write_text(
        scatter(verdicts, lambda m: m.output_tokens_per_s, "Output tokens per second", "tokens/s")
    )
    found = {
        "source": "Made by tools/make_validation.py: the error that four of five rows stay within",
        "bands": bands(verdicts),
    }
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found["bands"].items())
    target = ROOT / "src/atoll/data/cost/bands.json"
    target.write_text(f'{{\n"source": {json.dumps(found["source"])},\n"bands": {{\n{lines}\n}}\n}}\n')
    pair_bands.write(verdicts)
    print(target.read_text())
    print(len(verdicts), "rows")
