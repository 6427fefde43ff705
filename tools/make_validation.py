"""Make docs/validation.md's tables and drawings, data/cost/bands.json and pairs.json, from tables of measurements.

    cd tests/data/validation
    python ../../../tools/make_validation.py overheads_other.json measured.csv measured2.csv measured3.csv

The first file holds the overheads that tools/fit_overheads.py found on other rows.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from math import log
from pathlib import Path

import fit_overheads
import pair_bands
import source_bands
import vl_convert

from atoll.analyse.band import MEASURES as BAND_FIELDS
from atoll.analyse.band import Band
from atoll.cost.band import relative_band, shipped_bands, shipped_pairs
from atoll.cost.overheads import Overheads, shipped_overheads
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
    "aic-h100-gpt-oss-120b-021",
    "aic-h100-gpt-oss-120b-082",
    "aic-h100-gpt-oss-120b-103",
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
    (
        "A100 PCIe, in 16 bits (a100q)",
        lambda v: v.case.id.startswith("a100q-") and v.case.card.quantisation.method is None,
    ),
    ("A100 PCIe, in 4 bits without graphs (a100q)", lambda v: v.case.id.startswith("a100q-gptq")),
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
    source = "Made by tools/make_validation.py: what four of five set-ups stay within, by tools/source_bands.py"
    found = source_bands.bands(taken(verdicts), MEASURES, lambda one, name: is_sure(doubts.get(one.case.id, ""), name))
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items())
    target = ROOT / "src/atoll/data/cost/bands.json"
    target.write_text(f'{{\n"source": {json.dumps(source)},\n"bands": {{\n{lines}\n}}\n}}\n')
    print(target.read_text())


def taken(verdicts: Sequence[PredictedRow]) -> list[PredictedRow]:
    """The rows from which bands are taken."""
    return [one for one in verdicts if not is_doubtful(one)]


WORDS = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "throughput": "tokens/s"}


def covered(verdicts: Sequence[PredictedRow], doubts: Mapping[str, str]) -> str:
    """How many measurements lie inside the band that is stated; of all rows, doubtful ones too, by family of the band."""
    lines = "| family of the band | rows | " + " | ".join(f"{word}: inside, width" for word in WORDS.values())
    lines += " |\n|---|--:|---|---|---|---|\n"
    families: dict[str, list[PredictedRow]] = defaultdict(list)
    for one in verdicts:
        families[name_of(band_of_row(one))].append(one)
    for family, members in sorted(families.items(), key=lambda item: -len(item[1])):
        cells = (inside(members, doubts, name) for name in WORDS)
        lines += f"| {family} | {len(members)} | {' | '.join(cells)} |\n"
    every = (inside(verdicts, doubts, name) for name in WORDS)
    return lines + f"| all | {len(verdicts)} | {' | '.join(every)} |\n"


def band_of_row(one: PredictedRow) -> Band | None:
    return relative_band(one.case.layout, one.case.card, at_once=source_bands.is_burst(one))


def name_of(band: Band | None) -> str:
    if band is None:
        return "no band"
    borrowed = "; borrowed" if band.borrowed else ""
    return f"{band.family}{borrowed}{'; one source' if band.one_source else ''}"


def inside(members: Sequence[PredictedRow], doubts: Mapping[str, str], name: str) -> str:
    """`31 of 40, -15/+22 %`: the width is the middle one of those rows."""
    field = dict(zip(WORDS, BAND_FIELDS, strict=True))[name]
    held, ends = [], []
    for one in members:
        band = band_of_row(one)
        around = None if band is None else band.of(field)
        predicted, measured = (MEASURES[name](one, m) for m in (one.predicted, one.case.measured))
        if around and predicted and measured and is_sure(doubts.get(one.case.id, ""), name):
            held.append(around[0] <= measured / predicted <= around[1])
            ends.append(around)
    if not held:
        return "-"
    low, high = sorted(ends)[len(ends) // 2]
    return f"{sum(held)} of {len(held)} ({sum(held) / len(held):.0%}), {low - 1:+.0%}/{high - 1:+.0%}"


def by_source(verdicts: Sequence[PredictedRow], doubts: Mapping[str, str]) -> str:
    """Every source against a width taken from the other sources of its family."""
    lines = "| family | source left out | rows | " + " | ".join(f"{word}: inside, width" for word in WORDS.values())
    lines += " |\n|---|---|--:|---|---|---|---|\n"
    for family, members in source_bands.by_family(taken(verdicts)).items():
        sources = sorted({source_bands.source_of(one) for one in members})
        for source in sources if len(sources) > 1 else ():
            mine = [one for one in members if source_bands.source_of(one) == source]
            cells = [held_out(members, source, doubts, name) for name in WORDS]
            if any(cell != "-" for cell in cells):
                lines += f"| {family} | {source} | {len(mine)} | {' | '.join(cells)} |\n"
    return lines


def held_out(members: Sequence[PredictedRow], source: str, doubts: Mapping[str, str], name: str) -> str:
    errors = errors_of(members, doubts, name)
    limit = source_bands.stated([error for error in errors if error.source != source])
    mine = [error.size for error in errors if error.source == source]
    if limit is None or not mine:
        return "-"
    held = sum(size <= log(1 + limit) for size in mine)
    return f"{held} of {len(mine)} ({held / len(mine):.0%}), {1 / (1 + limit) - 1:+.0%}/{limit:+.0%}"


def errors_of(members: Sequence[PredictedRow], doubts: Mapping[str, str], name: str) -> list[source_bands.Error]:
    sure = [one for one in members if is_sure(doubts.get(one.case.id, ""), name)]
    return source_bands.errors_of(sure, MEASURES[name])


STATED = (0.5, 0.6, 0.7, 0.8, 0.9)


def reliability(verdicts: Sequence[PredictedRow], doubts: Mapping[str, str]) -> list[dict[str, object]]:
    """Share of set-ups inside, by measure and stated coverage, each source held against widths of the others."""
    points: list[dict[str, object]] = []
    for name, word in WORDS.items():
        for coverage in STATED:
            held = [
                one
                for members in source_bands.by_family(taken(verdicts)).values()
                for one in source_bands.left_out(errors_of(members, doubts, name), coverage)
            ]
            seen = source_bands.share(held)
            if seen is not None:
                points.append({"stated": coverage, "seen": seen, "measure": word})
    return points


def draw_reliability(points: Sequence[Mapping[str, object]]) -> None:
    axes = {
        name: {
            "field": name,
            "type": "quantitative",
            "title": title,
            "scale": {"domain": [0.4, 1]},
            "axis": {"format": "%"},
        }
        for name, title in (("stated", "stated"), ("seen", "seen, of sources that were left out"))
    }
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": "Share of measurements inside the band",
        "width": 360,
        "height": 360,
        "background": "white",
        "layer": [
            {
                "data": {"values": [{"stated": end, "seen": end} for end in (0.4, 1)]},
                "mark": {"type": "line", "color": "#999", "strokeDash": [4, 4]},
                "encoding": {"x": axes["stated"], "y": axes["seen"]},
            },
            {
                "data": {"values": [dict(point) for point in points]},
                "mark": {"type": "line", "point": True},
                "encoding": {
                    "x": axes["stated"],
                    "y": axes["seen"],
                    "color": {"field": "measure", "type": "nominal", "title": None, "sort": list(WORDS.values())},
                },
            },
        ],
    }
    svg = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version="5.20")
    (ROOT / "docs/img/validation-bands.svg").write_text(svg)


def tell_reliability(points: Sequence[Mapping[str, object]]) -> str:
    lines = "| stated | " + " | ".join(WORDS.values()) + " |\n|--:|" + "--:|" * len(WORDS) + "\n"
    for coverage in STATED:
        seen = {str(p["measure"]): p["seen"] for p in points if p["stated"] == coverage}
        lines += f"| {coverage:.0%} | " + " | ".join(f"{seen[word]:.0%}" for word in WORDS.values()) + " |\n"
    return lines


if __name__ == "__main__":
    other, tables = Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]]
    doubts = {row["id"]: row.get("doubt", "") for row in read_all(tables)}
    verdicts, skipped = predict_all(*tables)
    write_bands(verdicts, doubts)
    pair_bands.write(taken(verdicts), MEASURES, lambda one, name: is_sure(doubts.get(one.case.id, ""), name))
    shipped_bands.cache_clear()
    shipped_pairs.cache_clear()
    page = ROOT / "docs/validation.md"
    text = page.read_text()
    text = between(text, "families", table(list(group_errors(verdicts))))
    text = between(text, "unseen", checks(verdicts, shipped_overheads().fitted_on))
    text = between(text, "covered", covered(verdicts, doubts))
    text = between(text, "by source", by_source(verdicts, doubts))
    points = reliability(verdicts, doubts)
    draw_reliability(points)
    text = between(text, "reliability", tell_reliability(points))
    text = between(text, "constants", fit_overheads.constants())
    found = Overheads.from_plain(json.loads(other.read_text()), origin=str(other))
    text = between(text, "held out", hold_out(verdicts, tables, found))
    whys = sorted(skipped.items(), key=lambda item: -item[1])
    text = between(text, "skipped", "".join(f"- {count}: {why}\n" for why, count in whys))
    page.write_text(text)
    draw(verdicts)
    print(len(verdicts), "rows")
