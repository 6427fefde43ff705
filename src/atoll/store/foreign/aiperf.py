"""AIPerf's exports (0.13): profile_export_aiperf.json and .csv have figures, profile_export.jsonl has requests.

Names as in aiperf/common/models/export_models.py and aiperf/exporters/metrics_csv_exporter.py.
"""

import csv
import io
import json
from typing import Any

from atoll.analyse.summary import Distribution, RequestCounts, Summary, summarise
from atoll.documents import write_table
from atoll.errors import BadRun
from atoll.store.foreign.shape import Foreign, Kept, figures_only, finite, json_object, moved, of_records, spread_of
from atoll.store.foreign.untold import with_ends
from atoll.traffic.record import Outcome, Record

_TOOL = "aiperf"
_STATS = {"mean": "avg", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "max": "max"}
# AIPerf's inter-token latency is our TPOT: (latency - TTFT) / (tokens - 1); its inter-chunk latency is our ITL.
_SPREADS = {
    "ttft_s": "time_to_first_token",
    "tpot_s": "inter_token_latency",
    "itl_s": "inter_chunk_latency",
    "e2e_s": "request_latency",
}
_HEADERS = {
    "time_to_first_token": "Time to First Token",
    "inter_token_latency": "Inter Token Latency",
    "inter_chunk_latency": "Inter Chunk Latency",
    "request_latency": "Request Latency",
}
# Tokens of an answer and of a prompt: as recounted, as the server says.
_LENGTHS = {
    "output_sequence_length": "Output Sequence Length",
    "usage_completion_tokens": "Usage Completion Tokens",
    "input_sequence_length": "Input Sequence Length",
    "usage_prompt_tokens": "Usage Prompt Tokens",
}
_SCALES = {"ms": 1e-3, "sec": 1.0, "s": 1.0, "us": 1e-6, "ns": 1e-9}


def read(text: str, origin: str) -> tuple[Foreign, ...]:
    """profile_export_aiperf.json; raises BadRun when this is something else."""
    plain = json_object(text, origin, _TOOL)
    if not isinstance(plain.get("request_count"), dict) or "request_latency" not in plain:
        raise BadRun(f"{origin} is no AIPerf export: it has no `request_count`.")
    ok, failed = int(_value(plain, "request_count")), int(_value(plain, "error_request_count"))
    summary = figures_only(
        counts=RequestCounts(sent=ok + failed, ok=ok, failed=failed, cancelled=0),
        duration_s=_value(plain, "benchmark_duration"),
        rates={
            "requests": _value(plain, "request_throughput"),
            "output": _value(plain, "output_token_throughput"),
            "total": _value(plain, "total_token_throughput"),
        },
        spreads={ours: _spread(plain.get(theirs)) for ours, theirs in _SPREADS.items()},
    )
    note = "figures only; profile_export.jsonl beside it has the requests"
    lengths = {name: _value(plain, name) for name in _LENGTHS}
    summary, recounted = _by_usage(summary, lengths)
    return (Foreign(tool=_TOOL, model=_model(plain), summary=summary, notes=(note, *recounted)),)


def _by_usage(summary: Summary, lengths: dict[str, float]) -> tuple[Summary, tuple[str, ...]]:
    """The figures that AIPerf makes of its own recount of tokens, by the server's usage where that counts others.

    TPOT is (latency - TTFT) / (tokens - 1), so of answers of 20 tokens that are recounted as 46 it is 45/19 as long.
    """
    recount, usage, asked, used = (lengths[name] for name in _LENGTHS)
    if recount <= 1 or usage <= 1 or abs(recount - usage) < 0.01 * usage:
        return summary, ()
    longer = (recount - 1) / (usage - 1)
    tpot = Distribution(**{name: value * longer for name, value in summary.tpot_s if isinstance(value, float)})
    output = summary.output_tokens_per_s * usage / recount
    prompt = (summary.total_tokens_per_s - summary.output_tokens_per_s) * (used / asked if asked and used else 1.0)
    words = (
        f"TPOT and tokens/s by the server's usage, {usage:.0f} tokens an answer; AIPerf's own recount is {recount:.0f}"
    )
    return summary.replace(tpot_s=tpot, output_tokens_per_s=output, total_tokens_per_s=output + prompt), (words,)


def _value(plain: dict[str, Any], name: str) -> float:
    metric = plain.get(name)
    return float(metric.get("avg") or 0.0) if isinstance(metric, dict) else 0.0


def _spread(metric: object) -> Distribution:
    if not isinstance(metric, dict):
        return Distribution()
    return spread_of(metric, _STATS, scale=_SCALES.get(str(metric.get("unit")), 1e-3))


def _model(plain: dict[str, Any]) -> str | None:
    config = plain.get("input_config")
    for key in ("models", "endpoint"):
        found = config.get(key) if isinstance(config, dict) else None
        names = found.get("model_names") or found.get("items") if isinstance(found, dict) else found
        if isinstance(names, list) and names:
            first = names[0]
            return str(first.get("name")) if isinstance(first, dict) else str(first)
    return None


def read_records(text: str, origin: str) -> tuple[Foreign, ...]:
    """profile_export.jsonl, without its warm-up; raises BadRun when this is something else."""
    rows: list[tuple[Record, float | None, float | None]] = []
    records: list[Record] = []
    for line, piece in enumerate(text.splitlines(), start=1):
        if not piece.strip():
            continue
        plain = json_object(piece, f"{origin}: line {line}", _TOOL)
        meta, metrics = plain.get("metadata"), plain.get("metrics")
        if not isinstance(meta, dict) or not isinstance(metrics, dict) or "request_start_ns" not in meta:
            raise BadRun(f"{origin}: line {line} is no record of AIPerf.")
        if meta.get("benchmark_phase") != "warmup":
            rows.append(_row(meta, metrics, plain.get("error")))
            records.append(_with_gaps(*rows[-1], metrics))
    if not rows:
        raise BadRun(f"{origin} holds no records of AIPerf.")
    if all(record.token_s for record in records if record.outcome is Outcome.OK):
        return (of_records(records, tool=_TOOL, model=None),)
    table = moved(with_ends(rows))
    return (Foreign(tool=_TOOL, model=None, table=table, summary=summarise(table), notes=("no ITL in this file",)),)


def _row(meta: dict[str, Any], metrics: dict[str, Any], error: Any) -> tuple[Record, float | None, float | None]:
    sent, done = meta["request_start_ns"] / 1e9, meta["request_end_ns"] / 1e9
    first = _seconds(metrics, "time_to_first_token")
    latency = _seconds(metrics, "request_latency")
    cancelled = bool(meta.get("was_cancelled"))
    outcome = Outcome.CANCELLED if cancelled else Outcome.FAILED if error else Outcome.OK
    record = Record(
        number=int(meta.get("session_num") or 0),
        user=int(meta.get("session_num") or 0),
        turn=int(meta.get("turn_index") or 0),
        sent_s=sent,
        done_s=done,
        prompt_tokens=_tokens(metrics, "usage_prompt_tokens", "input_sequence_length"),
        output_tokens=_tokens(metrics, "usage_completion_tokens", "output_sequence_length"),
        cached_tokens=_tokens(metrics, "usage_prompt_cache_read_tokens"),
        request_id=meta.get("x_request_id") if isinstance(meta.get("x_request_id"), str) else None,
        outcome=outcome,
        error=None if outcome is Outcome.OK else str(outcome),
        detail=str(error.get("message") or error)[:200] if isinstance(error, dict) else None,
    )
    return record, None if first is None else sent + first, sent + latency if first is not None and latency else None


def _with_gaps(record: Record, first: float | None, _last: float | None, metrics: dict[str, Any]) -> Record:
    """The record with its token times, when the file has the gaps between chunks."""
    from dataclasses import replace
    from itertools import accumulate

    gaps = metrics.get("inter_chunk_latency")
    values = gaps.get("value") if isinstance(gaps, dict) else None
    if first is None or not isinstance(values, list):
        return record
    scale = _SCALES.get(str(gaps.get("unit")), 1e-3) if isinstance(gaps, dict) else 1e-3
    return replace(record, token_s=tuple(accumulate((gap * scale for gap in values), initial=first)))


def _seconds(metrics: dict[str, Any], name: str) -> float | None:
    metric = metrics.get(name)
    if not isinstance(metric, dict) or not isinstance(metric.get("value"), int | float):
        return None
    return float(metric["value"]) * _SCALES.get(str(metric.get("unit")), 1e-3)


def _tokens(metrics: dict[str, Any], *names: str) -> int:
    """A count by the first of these names that has one: the server's usage before the client's own recount."""
    for name in names:
        metric = metrics.get(name)
        value = metric.get("value") if isinstance(metric, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value)
    return 0


def read_csv(text: str, origin: str) -> tuple[Foreign, ...]:
    """profile_export_aiperf.csv: a table of spreads, a blank line, a table of single values; raises BadRun."""
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or rows[0][:2] != ["Metric", "avg"]:
        raise BadRun(f"{origin} is no CSV export of AIPerf.")
    spreads: dict[str, dict[str, Any]] = {}
    values: dict[str, float] = {}
    for row in rows[1:]:
        name, _, unit = row[0].partition(" (") if row else ("", "", "")
        if len(row) == len(rows[0]):
            figures = {stat: float(cell) for stat, cell in zip(rows[0][1:], row[1:], strict=True) if cell}
            spreads[name] = figures | {"unit": unit.rstrip(")")}
        elif len(row) == 2 and row[1] and row[0] != "Metric":
            values[name] = float(row[1])
    ok, failed = int(values.get("Request Count", 0)), int(values.get("Error Request Count", 0))
    summary = figures_only(
        counts=RequestCounts(sent=ok + failed, ok=ok, failed=failed, cancelled=0),
        duration_s=values.get("Benchmark Duration", 0.0),
        rates={
            "requests": values.get("Request Throughput", 0.0),
            "output": values.get("Output Token Throughput", 0.0),
            "total": values.get("Total Token Throughput", 0.0),
        },
        spreads={ours: _spread(spreads.get(_HEADERS[theirs])) for ours, theirs in _SPREADS.items()},
    )
    lengths = {name: float(spreads.get(title, {}).get("avg", 0.0)) for name, title in _LENGTHS.items()}
    summary, recounted = _by_usage(summary, lengths)
    return (Foreign(tool=_TOOL, model=None, summary=summary, notes=("figures only", *recounted)),)


def write(run: Kept) -> str:
    """The figures, under AIPerf's names."""
    plain: dict[str, Any] = {"schema_version": "1.4"}
    plain |= {name: {"unit": unit, "avg": value} for name, (unit, value) in _values(run.summary).items()}
    for ours, theirs in _SPREADS.items():
        plain[theirs] = {"unit": "ms"} | _stats(getattr(run.summary, ours))
    plain["input_config"] = {"models": {"items": [{"name": run.model}]}}
    return json.dumps(plain, indent=1) + "\n"


def _values(summary: Summary) -> dict[str, tuple[str, float]]:
    return {
        "request_count": ("requests", summary.requests.ok),
        "error_request_count": ("requests", summary.requests.failed + summary.requests.cancelled),
        "benchmark_duration": ("sec", summary.duration_s),
        "request_throughput": ("requests/sec", summary.requests_per_s),
        "output_token_throughput": ("tokens/sec", summary.output_tokens_per_s),
        "total_token_throughput": ("tokens/sec", summary.total_tokens_per_s),
    }


def _stats(values: Distribution) -> dict[str, float]:
    found = {theirs: getattr(values, ours) for ours, theirs in _STATS.items()}
    return {name: value * 1e3 for name, value in found.items() if value is not None}


def write_csv(run: Kept) -> str:
    """The figures, as AIPerf's CSV has them."""
    columns = list(_STATS.values())
    rows: list[list[str]] = [["Metric", *columns]]
    for ours, theirs in sorted(_SPREADS.items(), key=lambda item: _HEADERS[item[1]]):
        stats = _stats(getattr(run.summary, ours))
        cells = [f"{stats[name]:.4f}" if name in stats else "" for name in columns]
        rows.append([f"{_HEADERS[theirs]} (ms)", *cells])
    rows += [[], ["Metric", "Value"]]
    for name, (unit, value) in _values(run.summary).items():
        title = name.replace("_", " ").title()
        rows.append([title if unit == "requests" else f"{title} ({unit})", f"{value:.6g}"])
    return write_table(rows, line_end="\r\n")


def write_records(run: Kept) -> str:
    """Every request, as a line of profile_export.jsonl."""
    table, start = run.table, run.started_at or 0.0
    lines = []
    for row in range(len(table)):
        times = table.token_times(row)
        sent, done = table.sent_s[row], finite(table.done_s[row])
        metrics: dict[str, Any] = {
            "input_sequence_length": {"value": int(table.prompt_tokens[row]), "unit": "tokens"},
            "output_sequence_length": {"value": int(table.output_tokens[row]), "unit": "tokens"},
            "usage_prompt_tokens": {"value": int(table.prompt_tokens[row]), "unit": "tokens"},
            "usage_completion_tokens": {"value": int(table.output_tokens[row]), "unit": "tokens"},
        }
        if len(times):
            gaps = ((times[1:] - times[:-1]) * 1e3).tolist()
            metrics["time_to_first_token"] = {"value": float(times[0] - sent) * 1e3, "unit": "ms"}
            metrics["request_latency"] = {"value": float(times[-1] - sent) * 1e3, "unit": "ms"}
            metrics["inter_chunk_latency"] = {"value": gaps, "unit": "ms"}
        bad = table.outcome[row] == Outcome.FAILED
        meta = {
            "session_num": int(table.number[row]),
            "turn_index": int(table.turn[row]),
            "request_start_ns": round((start + sent) * 1e9),
            "request_end_ns": round((start + (sent if done is None else done)) * 1e9),
            "worker_id": "atoll",
            "record_processor_id": "atoll",
            "benchmark_phase": "profiling",
            "was_cancelled": table.outcome[row] == Outcome.CANCELLED,
        }
        error = {"type": table.error[row], "message": table.detail[row] or table.error[row]} if bad else None
        lines.append(json.dumps({"metadata": meta, "metrics": metrics, "error": error}))
    return "\n".join(lines) + "\n"
