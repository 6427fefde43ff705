"""Make docs/validation.md's tables and drawings, data/cost/bands.json and pairs.json, from tables of measurements.

    cd tests/data/validation
    python ../../../tools/make_validation.py overheads_other.json measured.csv measured2.csv

The first file holds the overheads that tools/fit_overheads.py found on other rows. Pairs are those of the first table.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from statistics import quantiles

import fit_overheads
import pair_bands
import vl_convert

from atoll.cost.band import NARROWEST, family_of, relative_band, shipped_bands
from atoll.cost.overheads import Overheads, shipped_overheads
from atoll.inventory.catalog import find_gpu
from atoll.workflows.measured_rows import Measures, cases_or_reasons, read_rows
from atoll.workflows.validate import (
    ErrorOf,
    GroupResult,
    PredictedRow,
    answer_s,
    group_errors,
    predict_or_reason,
    summarise_family,
)

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- made by tools/make_validation.py -->", "<!-- end -->"

# Rows that contradict themselves or the laws of the card, beginning of the id; docs/validation.md says why. They stay in
# every table of families, and no band is taken from them.
DOUBTFUL = (
    "gpustackq-a100",
    "lambda-",
    "vllm3297-",
)


def is_doubtful(verdict: PredictedRow) -> bool:
    crowd = verdict.case.id.startswith("aic-h100-gpt-oss") and (verdict.case.users or 0) >= 512
    return crowd or verdict.case.id.startswith(DOUBTFUL)


def read_all(paths: Sequence[Path]) -> list[dict[str, str]]:
    return [row for path in paths for row in read_rows(path.read_text(), origin=str(path), folder=path.parent)]


def predict_all(*paths: Path) -> tuple[list[PredictedRow], dict[str, int]]:
    verdicts, skipped = [], defaultdict(int)
    for _, case in cases_or_reasons(read_all(paths)):
        predicted = case if isinstance(case, str) else predict_or_reason(case)
        if isinstance(case, str) or isinstance(predicted, str):
            skipped[str(predicted)] += 1
        else:
            verdicts.append(PredictedRow(case=case, predicted=predicted))
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


def scatter(verdicts: Sequence[PredictedRow], value: Callable[[Measures], float | None], title: str, unit: str) -> str:
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


def bands(verdicts: Sequence[PredictedRow], doubts: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """By family, without what a row's source makes doubtful; loads that come all at once are left out where there are others, since nobody plans for them."""
    families = defaultdict(list)
    for verdict in verdicts:
        if is_doubtful(verdict):
            continue
        kind = find_gpu(verdict.case.layout.box.gpus[0].name or "")
        families[family_of(kind, verdict.case.card)].append(verdict)
    found = {}
    for family, members in sorted(families.items()):
        steady = [one for one in members if not one.case.family.endswith("burst")]
        counted = steady if len(steady) >= FEW else members
        if len(counted) >= FEW:
            rows = len(counted)
            widths = {
                name: width([one for one in counted if is_sure(doubts.get(one.case.id, ""), name)], value)
                for name, value in MEASURES.items()
            }
            counted = [one for one in counted if one.case.measured.output_tokens_per_s]  # Little's law is kinder
            if len(counted) >= FEW:
                widths["throughput"] = max(widths["throughput"], width(counted, throughput))
            found[family] = {**widths, "rows": rows}
    return found


FEW = 5
NOTHING = 1.0  # a width that bounds nothing: too few rows have this measure


def is_sure(doubt: str, measure: str) -> bool:
    """Whether a row's column `doubt` leaves a measure alone; E2E takes TTFT and TPOT."""
    doubted = set(doubt.replace(",", " ").split())
    parts = {"ttft", "tpot"} if measure == "e2e" else {measure}
    return not doubted & {*parts, "all"}


def throughput(one: PredictedRow, measures: Measures) -> float | None:
    """As measured, or by Little's law from the times of a closed loop."""
    if one.case.measured.output_tokens_per_s:
        return measures.output_tokens_per_s
    if one.case.users is None or measures.ttft_s is None or measures.tpot_s is None:
        return None
    tokens = one.case.output_tokens
    return one.case.users * tokens / (measures.ttft_s + measures.tpot_s * (tokens - 1))


MEASURES: dict[str, Callable[[PredictedRow, Measures], float | None]] = {
    "ttft": lambda _, measures: measures.ttft_s,
    "tpot": lambda _, measures: measures.tpot_s,
    "e2e": lambda one, measures: answer_s(one.case, measures),
    "throughput": throughput,
}


def width(members: Sequence[PredictedRow], value: Callable[[PredictedRow, Measures], float | None]) -> float:
    """What four of five rows stay within."""
    errors = []
    for one in members:
        predicted, measured = value(one, one.predicted), value(one, one.case.measured)
        if predicted and measured:
            errors.append(abs(predicted / measured - 1))
    return round(max(NARROWEST, quantiles(errors, n=5)[3]), 3) if len(errors) >= FEW else NOTHING


def between(text: str, name: str, content: str) -> str:
    start = text.index(BEGIN.replace("made", f"{name}, made")) if name else 0
    start = text.index("\n", start) + 1
    return text[:start] + content + text[text.index(END, start) :]


def is_dense_loop(verdict: PredictedRow) -> bool:
    """Back-to-back users of a dense model on H100 SXM or H200."""
    case = verdict.case
    gpu = case.layout.box.gpus[0].name or ""
    return case.card.experts is None and case.family.endswith(" closed") and gpu.startswith(("H100-SXM", "H200"))


Group = tuple[str, Callable[[PredictedRow], bool]]
CHECKS: tuple[Group, ...] = (
    ("H100/H200 SXM, dense, closed loop", is_dense_loop),
    ("of these, Qwen3-32B bf16", lambda v: v.case.id.startswith("aic-h100-qwen3")),
    ("of these, Llama-3.1-70B fp8", lambda v: v.case.id.startswith("aic-h100-llama")),
    ("of these, Llama-3.1-8B fp8 by aiperf", lambda v: v.case.id.startswith("aic-h200-llama")),
    ("of these, one to eight users (tt143, gpustack)", lambda v: is_dense_loop(v) and not v.case.id.startswith("aic-")),
    ("H100/H200 SXM, gpt-oss-120b, closed loop", lambda v: v.case.id.startswith("aic-") and bool(v.case.card.experts)),
    ("H100, repeated prompts, open loop (blis)", lambda v: v.case.id.startswith("blis-")),
    ("A100 (gpustack)", lambda v: "A100" in v.case.family and "gpustack-" in v.case.id),
    ("H100 PCIe (iog)", lambda v: "H100 PCIe" in v.case.family),
    (
        "mixtures of experts of measured2.csv",
        lambda v: v.case.id.startswith(("cr", "gp-")) and bool(v.case.card.experts),
    ),
    ("A100 PCIe (den)", lambda v: v.case.id.startswith("den-")),
    ("RTX 4090, one card (iog)", lambda v: "4090" in v.case.family and v.case.id.endswith("1xrtx-4090")),
    ("RTX 4090, two and four cards (iog)", lambda v: v.case.id.endswith(("2xrtx-4090", "4xrtx-4090"))),
)


def checks(verdicts: Sequence[PredictedRow], fitted: Collection[str]) -> str:
    """Errors of rows that no overhead was fitted on."""
    fresh = [v for v in verdicts if v.case.id not in fitted]
    return table([summarise_family(name, [v for v in fresh if belongs(v)]) for name, belongs in CHECKS])


def hold_out(verdicts: Sequence[PredictedRow], paths: Sequence[Path], other: Overheads) -> str:
    """The same rows predicted with overheads fitted on other rows; rows that neither fit saw."""
    mine = shipped_overheads()
    fit_overheads.use(other)
    again = {v.case.id: v for v in predict_all(*paths)[0]}
    fit_overheads.use(mine)
    unseen = [v for v in verdicts if v.case.id not in {*mine.fitted_on, *other.fitted_on} and v.case.id in again]
    rows = "| rows that neither fit saw | rows | TPOT, shipped | TPOT, other | E2E, shipped | E2E, other |\n"
    rows += "|---|--:|---|---|---|---|\n"
    for name, belongs in CHECKS:
        one = [v for v in unseen if belongs(v)]
        if one:
            a, b = (summarise_family(name, found) for found in (one, [again[v.case.id] for v in one]))
            rows += f"| {name} | {a.n} | {cell(a.tpot)} | {cell(b.tpot)} | {cell(a.e2e)} | {cell(b.e2e)} |\n"
    return rows + "\n" + figures(mine, other)


def figures(mine: Overheads, other: Overheads) -> str:
    """What each fit found, side by side."""
    rows = "| figure | shipped | on other rows |\n|---|--:|--:|\n"
    for name, value in mine.to_plain().items():
        found = other.to_plain()[name]
        pairs = {f"{name}.{key}": (value[key], found[key]) for key in value} if isinstance(value, dict) else {}
        for title, (a, b) in (pairs or {name: (value, found)}).items():
            if isinstance(a, float) and "fp8_block" not in title:
                rows += f"| `{title}` | {a:.3g} | {b:.3g} |\n"
    return rows


def draw(verdicts: Sequence[PredictedRow]) -> None:
    images = ROOT / "docs/img"
    images.mkdir(exist_ok=True)
    (images / "validation-tpot.svg").write_text(
        scatter(verdicts, lambda m: m.tpot_s and m.tpot_s * 1e3, "Time per output token", "ms")
    )
    (images / "validation-ttft.svg").write_text(scatter(verdicts, lambda m: m.ttft_s, "Time to first token", "s"))
    (images / "validation-throughput.svg").write_text(
        scatter(verdicts, lambda m: m.output_tokens_per_s, "Output tokens per second", "tokens/s")
    )


def write_bands(verdicts: Sequence[PredictedRow], doubts: Mapping[str, str]) -> None:
    source = "Made by tools/make_validation.py: the error that four of five rows stay within"
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in bands(verdicts, doubts).items())
    target = ROOT / "src/atoll/data/cost/bands.json"
    target.write_text(f'{{\n"source": {json.dumps(source)},\n"bands": {{\n{lines}\n}}\n}}\n')
    print(target.read_text())


def covered(verdicts: Sequence[PredictedRow], doubts: Mapping[str, str]) -> str:
    """How many measurements lie inside the band that is stated; of all rows, doubtful ones too, by family of the band."""
    lines = "| family of the band | rows | " + " | ".join(
        f"{name}: inside, width" for name in ("TTFT", "TPOT", "tokens/s")
    )
    lines += " |\n|---|--:|---|---|---|\n"
    families: dict[str, list[PredictedRow]] = defaultdict(list)
    for one in verdicts:
        band = relative_band(one.case.layout, one.case.card)
        families["no band" if band is None else (band.family or "") + (", borrowed" if band.borrowed else "")].append(
            one
        )
    for family, members in sorted(families.items(), key=lambda item: -len(item[1])):
        cells = (inside(members, doubts, name) for name in ("ttft", "tpot", "throughput"))
        lines += f"| {family} | {len(members)} | {' | '.join(cells)} |\n"
    every = (inside(verdicts, doubts, name) for name in ("ttft", "tpot", "throughput"))
    return lines + f"| all | {len(verdicts)} | {' | '.join(every)} |\n"


def inside(members: Sequence[PredictedRow], doubts: Mapping[str, str], name: str) -> str:
    """`31 of 40, -15/+22 %`: the width is the middle one of those rows."""
    field = {"ttft": "ttft_s", "tpot": "tpot_s", "throughput": "output_tokens_per_s"}[name]
    held, ends = [], []
    for one in members:
        band = relative_band(one.case.layout, one.case.card)
        around = None if band is None else band.of(field)
        predicted, measured = (getattr(m, field) for m in (one.predicted, one.case.measured))
        if around and predicted and measured and is_sure(doubts.get(one.case.id, ""), name):
            held.append(around[0] <= measured / predicted <= around[1])
            ends.append(around)
    if not held:
        return "-"
    low, high = sorted(ends)[len(ends) // 2]
    return f"{sum(held)} of {len(held)} ({sum(held) / len(held):.0%}), {low - 1:+.0%}/{high - 1:+.0%}"


if __name__ == "__main__":
    other, tables = Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]]
    doubts = {row["id"]: row.get("doubt", "") for row in read_all(tables)}
    verdicts, skipped = predict_all(*tables)
    write_bands(verdicts, doubts)
    first = {row["id"] for row in read_all(tables[:1])}
    pair_bands.write([one for one in verdicts if one.case.id in first], MEASURES)
    shipped_bands.cache_clear()
    page = ROOT / "docs/validation.md"
    text = page.read_text()
    text = between(text, "families", table(list(group_errors(verdicts))))
    text = between(text, "unseen", checks(verdicts, shipped_overheads().fitted_on))
    text = between(text, "covered", covered(verdicts, doubts))
    found = Overheads.from_plain(json.loads(other.read_text()), origin=str(other))
    text = between(text, "held out", hold_out(verdicts, tables, found))
    whys = sorted(skipped.items(), key=lambda item: -item[1])
    text = between(text, "skipped", "".join(f"- {count}: {why}\n" for why, count in whys))
    page.write_text(text)
    draw(verdicts)
    print(len(verdicts), "rows")
