"""EvalScope's perf results (1.14): benchmark_summary.json has means, benchmark_percentile.json the percentiles.

The two make one run: `{"summary": ..., "percentiles": [...]}`, as they are read from one folder. benchmark_data.db
beside them has every request and is not read.
"""

import json
from typing import Any

from atoll.analyse.summary import Distribution, RequestCounts
from atoll.errors import BadRun
from atoll.store.foreign.shape import Foreign, Kept, figures_only

_TOOL = "evalscope"
# Ours: theirs in percentiles, in the summary, and how many seconds one of theirs is.
_SPREADS = {
    "ttft_s": ("TTFT (ms)", ("Avg TTFT (ms)", "Average time to first token (s)"), 1e-3),
    "itl_s": ("ITL (ms)", ("Avg ITL (ms)", "Average inter-token latency (s)"), 1e-3),
    "tpot_s": ("TPOT (ms)", ("Avg TPOT (ms)", "Average time per output token (s)"), 1e-3),
    "e2e_s": ("Latency (s)", ("Avg Latency (s)", "Average latency (s)"), 1.0),
}
_PERCENTILES = {"p50": "50%", "p90": "90%", "p95": "95%", "p99": "99%", "max": "max"}
SUMMARY, PERCENTILES = "benchmark_summary.json", "benchmark_percentile.json"


def read(text: str, origin: str) -> tuple[Foreign, ...]:
    """Either file, or both in one object; raises BadRun when this is something else."""
    try:
        plain = json.loads(text)
    except ValueError:
        raise BadRun(f"{origin} is no JSON, so no result of EvalScope.") from None
    if isinstance(plain, list) and all(isinstance(row, dict) and "Percentiles" in row for row in plain):
        plain = {"summary": {}, "percentiles": plain}
    elif isinstance(plain, dict) and "Total Requests" in plain:
        plain = {"summary": plain, "percentiles": []}
    if not isinstance(plain, dict) or plain.keys() != {"summary", "percentiles"}:
        raise BadRun(f"{origin} is no result of EvalScope: it has no `Total Requests`.")
    means, rows = plain["summary"], {str(row["Percentiles"]): row for row in plain["percentiles"]}
    if not means and not rows:
        raise BadRun(f"{origin} is no result of EvalScope.")
    return (Foreign(tool=_TOOL, model=None, summary=_summary(means, rows), notes=tuple(_notes(means, rows))),)


def _notes(means: dict[str, Any], rows: dict[str, Any]) -> list[str]:
    notes = ["figures only; benchmark_data.db, which has the requests, is not read"]
    if not rows:
        notes.append(f"no percentiles; {PERCENTILES} beside it has them")
    if not means:
        notes.append(f"no counts, means and rates; {SUMMARY} beside it has them")
    return notes


def _summary(means: dict[str, Any], rows: dict[str, Any]) -> Any:
    sent, ok = (
        int(means.get("Total Requests") or 0),
        int(means.get("Success Requests") or means.get("Succeed requests") or 0),
    )
    failed = int(means.get("Failed Requests") or 0)
    return figures_only(
        counts=RequestCounts(sent=max(sent, ok + failed), ok=ok, failed=failed, cancelled=max(0, sent - ok - failed)),
        duration_s=float(means.get("Test Duration (s)") or 0.0),
        rates={
            "requests": float(means.get("Req Throughput (req/s)") or 0.0),
            "output": float(means.get("Output Throughput (tok/s)") or 0.0),
            "total": float(means.get("Total Throughput (tok/s)") or 0.0),
        },
        spreads={ours: _spread(means, rows, *names) for ours, names in _SPREADS.items()},
    )


def _spread(
    means: dict[str, Any], rows: dict[str, Any], column: str, averages: tuple[str, str], scale: float
) -> Distribution:
    found = {ours: rows[theirs].get(column) for ours, theirs in _PERCENTILES.items() if theirs in rows}
    known = {name: float(value) * scale for name, value in found.items() if isinstance(value, int | float)}
    for name, unit in zip(averages, (scale, 1.0), strict=True):
        if isinstance(means.get(name), int | float):
            known.setdefault("mean", float(means[name]) * unit)
    return Distribution(**known)


def write(run: Kept) -> str:
    """Both in one object; their two files are `summary` and `percentiles` of it."""
    summary = run.summary
    means: dict[str, Any] = {
        "Test Duration (s)": summary.duration_s,
        "Concurrency": run.users or 0,
        "Total Requests": summary.requests.sent,
        "Success Requests": summary.requests.ok,
        "Failed Requests": summary.requests.failed,
        "Req Throughput (req/s)": summary.requests_per_s,
        "Output Throughput (tok/s)": summary.output_tokens_per_s,
        "Total Throughput (tok/s)": summary.total_tokens_per_s,
    }
    rows: list[dict[str, Any]] = [{"Percentiles": name} for name in _PERCENTILES.values()]
    for ours, (column, averages, scale) in _SPREADS.items():
        spread = getattr(summary, ours)
        if spread.mean is not None:
            means[averages[0]] = spread.mean / scale
        for row, name in zip(rows, _PERCENTILES, strict=True):
            value = getattr(spread, name)
            if value is not None:
                row[column] = value / scale
    return json.dumps({"summary": means, "percentiles": rows}, indent=4) + "\n"
