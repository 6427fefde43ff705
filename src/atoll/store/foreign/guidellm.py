"""GuideLLM's benchmark report as JSON (0.8.1: schemas/base/request_stats.py). A file has one or several benchmarks.

It has the first and the last token's time of a request but not those between, so a run of it has TTFT, TPOT and E2E and
no ITL of its own.
"""

import json
from typing import Any

import numpy as np

from atoll.analyse.summary import Distribution, summarise
from atoll.errors import BadRun
from atoll.store.foreign.shape import Foreign, Kept, finite, json_object, moved
from atoll.store.foreign.untold import with_ends
from atoll.traffic.record import Outcome, Record

_GROUPS = {"successful": Outcome.OK, "errored": Outcome.FAILED, "incomplete": Outcome.CANCELLED}
_NAMES = {value: key for key, value in _GROUPS.items()}


def read(text: str, origin: str) -> tuple[Foreign, ...]:
    """Every benchmark of the report; raises BadRun when this is something else."""
    plain = json_object(text, origin, "GuideLLM")
    benchmarks = plain.get("benchmarks")
    if not isinstance(benchmarks, list) or not all(isinstance(one, dict) and "requests" in one for one in benchmarks):
        raise BadRun(f"{origin} is no report of GuideLLM: it has no `benchmarks` with requests.")
    return tuple(_read_benchmark(one, origin) for one in benchmarks)


def _read_benchmark(plain: dict[str, Any], origin: str) -> Foreign:
    rows: list[tuple[Record, float | None, float | None]] = []
    try:
        for group, outcome in _GROUPS.items():
            rows.extend(_row(item, outcome) for item in plain["requests"].get(group) or [])
    except (KeyError, TypeError) as error:
        raise BadRun(f"{origin}: a request of this GuideLLM report has no {error}.") from None
    table = moved(with_ends(rows))
    return Foreign(
        tool="guidellm",
        model=_model(plain),
        table=table,
        summary=summarise(table),
        started_at=plain.get("start_time"),
        notes=("no times between the first and the last token: no ITL",),
    )


def _model(plain: dict[str, Any]) -> str | None:
    backend = plain.get("config", {}).get("backend", {})
    model = backend.get("model") if isinstance(backend, dict) else None
    return model if isinstance(model, str) else None


def _row(item: dict[str, Any], outcome: Outcome) -> tuple[Record, float | None, float | None]:
    times = item["info"]["timings"]
    sent = times["request_start"] or times["resolve_start"]
    error = item["info"].get("error")
    record = Record(
        number=0,
        user=0,
        turn=item["info"].get("turn_index") or 0,
        sent_s=sent,
        done_s=times["request_end"] or times["resolve_end"],
        prompt_tokens=item.get("prompt_tokens") or 0,
        output_tokens=item.get("output_tokens") or 0,
        cached_tokens=item.get("cached_tokens") or 0,
        outcome=outcome,
        error=None if outcome is Outcome.OK else "cancelled" if outcome is Outcome.CANCELLED else "failed",
        detail=error,
    )
    return record, times["first_token_iteration"], times["last_token_iteration"]


def write(run: Kept) -> str:
    """One benchmark with its requests and the figures that GuideLLM prints."""
    groups: dict[str, list[dict[str, Any]]] = {group: [] for group in _GROUPS}
    for row in range(len(run.table)):
        groups[_NAMES[Outcome(run.table.outcome[row])]].append(_item(run, row))
    start = run.started_at or 0.0
    benchmark = {
        "type_": "generative_benchmark",
        "config": {"backend": {"kind": "openai_http", "target": run.url, "model": run.model}},
        "metrics": _metrics(run),
        "requests": groups | {"total": None},
        "start_time": start,
        "end_time": start + run.summary.duration_s,
        "duration": run.summary.duration_s,
    }
    report = {"metadata": {"version": 2, "guidellm_version": "0.8.1"}, "config": {}, "benchmarks": [benchmark]}
    return json.dumps(report, indent=1) + "\n"


def _item(run: Kept, row: int) -> dict[str, Any]:
    table, start = run.table, run.started_at or 0.0

    def at(value: float) -> float | None:
        known = finite(value)
        return None if known is None else start + known

    timings = {
        "resolve_start": at(table.sent_s[row]),
        "request_start": at(table.sent_s[row]),
        "first_token_iteration": at(table.first_token_s[row]),
        "last_token_iteration": at(table.last_token_s[row]),
        "token_iterations": len(table.token_times(row)),
        "request_end": at(table.done_s[row]),
        "resolve_end": at(table.done_s[row]),
    }
    ok = table.outcome[row] == Outcome.OK
    return {
        "type_": "generative_request_stats",
        "request_id": str(table.number[row]),
        "info": {
            "turn_index": int(table.turn[row]),
            "status": "completed" if ok else "errored",
            "timings": timings,
            "error": None if ok else table.detail[row] or table.error[row],
        },
        "prompt_tokens": int(table.prompt_tokens[row]),
        "cached_tokens": int(table.cached_tokens[row]),
        "output_tokens": int(table.output_tokens[row]),
        "total_tokens": int(table.prompt_tokens[row] + table.output_tokens[row]),
        "request_latency": finite(table.done_s[row] - table.sent_s[row]),
        "time_to_first_token_ms": finite((table.first_token_s[row] - table.sent_s[row]) * 1e3),
    }


def _metrics(run: Kept) -> dict[str, Any]:
    summary = run.summary
    return {
        "request_totals": {
            "successful": summary.requests.ok,
            "errored": summary.requests.failed,
            "incomplete": summary.requests.cancelled,
            "total": summary.requests.sent,
        },
        "request_latency": _spread(summary.e2e_s, 1.0, summary.requests.ok),
        "time_to_first_token_ms": _spread(summary.ttft_s, 1e3, summary.requests.ok),
        "inter_token_latency_ms": _spread(summary.tpot_s, 1e3, summary.requests.ok),
    }


def _spread(values: Distribution, scale: float, count: int) -> dict[str, Any]:
    def scaled(value: float | None) -> float | None:
        return None if value is None or np.isnan(value) else value * scale

    percentiles = {name: scaled(getattr(values, name)) for name in ("p50", "p90", "p95", "p99")}
    known = {"mean": scaled(values.mean), "median": scaled(values.p50), "max": scaled(values.max), "count": count}
    return {"successful": known | {"percentiles": percentiles}}
