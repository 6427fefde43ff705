"""GuideLLM's CSV (0.8): three rows of headings, then a row a benchmark; figures only."""

import csv
import io
import json
from typing import Any

from atoll.analyse.summary import Distribution, RequestCounts, Summary
from atoll.documents import write_table
from atoll.errors import BadRun
from atoll.store.foreign.shape import Foreign, Kept, figures_only

_TOOL = "guidellm"
# Its list of percentiles: p0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9 (guidellm/benchmark/outputs/csv.py).
_PLACES = {"p90": 7, "p95": 8, "p99": 9}
_SHARES = 11
_SPREADS = {
    "ttft_s": ("Time to First Token", "Successful ms", 1e-3),
    "tpot_s": ("Inter Token Latency", "Successful ms", 1e-3),
    "e2e_s": ("Request Latency", "Successful Sec", 1.0),
}
_RATES = {
    "requests": ("Server Throughput", "Successful Requests/Sec"),
    "output": ("Token Throughput", "Successful Output Tokens/Sec"),
    "total": ("Token Throughput", "Successful Total Tokens/Sec"),
}
_COUNTS = {"ok": "Successful", "failed": "Errored", "cancelled": "Incomplete"}
Cells = dict[tuple[str, str, str], str]


def read(text: str, origin: str) -> tuple[Foreign, ...]:
    """Every benchmark; raises BadRun when this is something else."""
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))
    if len(rows) < 4 or rows[0][:1] != ["Run Info"] or ("Request Counts" not in rows[0]):
        raise BadRun(f"{origin} is no CSV of GuideLLM.")
    headings = list(zip(*rows[:3], strict=True))
    return tuple(_benchmark(dict(zip(headings, row, strict=True))) for row in rows[3:] if any(row))


def _benchmark(cells: Cells) -> Foreign:
    counts = {ours: int(cells[("Request Counts", theirs, "")] or 0) for ours, theirs in _COUNTS.items()}
    return Foreign(
        tool=_TOOL,
        model=_model(cells.get(("Run Info", "Backend", ""), "")),
        summary=figures_only(
            counts=RequestCounts(sent=sum(counts.values()), **counts),
            duration_s=float(cells.get(("Timings", "Duration", "Sec")) or 0.0),
            rates={ours: float(cells.get((*names, "Mean")) or 0.0) for ours, names in _RATES.items()},
            spreads={ours: _spread(cells, *names) for ours, names in _SPREADS.items()},
        ),
        notes=("figures only, and no maximum; GuideLLM's JSON has the requests",),
    )


def _spread(cells: Cells, group: str, name: str, scale: float) -> Distribution:
    mean, listed = cells.get((group, name, "Mean")), cells.get((group, name, "Percentiles"))
    values = json.loads(listed) if listed else []
    known = {ours: float(values[place]) * scale for ours, place in _PLACES.items() if len(values) == _SHARES}
    for ours, theirs in (("mean", mean), ("p50", cells.get((group, name, "Median")))):
        known |= {ours: float(theirs) * scale} if theirs else {}
    return Distribution(**known)


def _model(backend: str) -> str | None:
    try:
        model: Any = json.loads(backend)["model"]
    except (ValueError, KeyError, TypeError):
        return None
    return model if isinstance(model, str) else None


def write(run: Kept) -> str:
    """One benchmark; percentiles that are not kept here repeat the nearest one that is."""
    cells = _cells(run, run.summary)
    return write_table([*zip(*cells, strict=True), cells.values()], line_end="\r\n")


def _cells(run: Kept, summary: Summary) -> Cells:
    cells: Cells = {
        ("Run Info", "Run ID", ""): run.name,
        ("Run Info", "Backend", ""): json.dumps({"kind": "openai_http", "target": run.url, "model": run.model}),
        ("Timings", "Duration", "Sec"): str(summary.duration_s),
    }
    cells |= {("Request Counts", theirs, ""): str(getattr(summary.requests, ours)) for ours, theirs in _COUNTS.items()}
    cells[("Request Counts", "Total", "")] = str(summary.requests.sent)
    rates = {
        "requests": summary.requests_per_s,
        "output": summary.output_tokens_per_s,
        "total": summary.total_tokens_per_s,
    }
    cells |= {(*_RATES[ours], "Mean"): str(rate) for ours, rate in rates.items()}
    for ours, (group, name, scale) in _SPREADS.items():
        spread = getattr(summary, ours)
        if spread.mean is not None and spread.p50 is not None:
            shares = [spread.p50] * 6 + [spread.p50, spread.p90, spread.p95, spread.p99, spread.p99]
            cells[(group, name, "Mean")] = str(spread.mean / scale)
            cells[(group, name, "Median")] = str(spread.p50 / scale)
            cells[(group, name, "Percentiles")] = json.dumps([value / scale for value in shares])
    return cells
