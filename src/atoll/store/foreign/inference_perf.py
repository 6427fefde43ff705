"""inference-perf's per_request_lifecycle_metrics.json (0.7.0): every request, with the arrival of each chunk.

summary_lifecycle_metrics.json beside it has the figures alone. Its `output_tokens` are counted by the client's own
tokenizer; the server's usage goes first here, and its chunks' times, not those that it spreads over re-counted tokens.
"""

import json
from typing import Any

from atoll.analyse.summary import RequestCounts
from atoll.errors import BadRun
from atoll.store.foreign.shape import Foreign, Kept, figures_only, finite, of_records, spread_of
from atoll.traffic.record import Outcome, Record

_TOOL = "inference-perf"
_STATS = {"mean": "mean", "p50": "median", "p90": "p90", "p95": "p95", "p99": "p99", "max": "max"}
_SPREADS = {
    "ttft_s": "time_to_first_token",
    "itl_s": "inter_token_latency",
    "tpot_s": "time_per_output_token",
    "e2e_s": "request_latency",
}


def read(text: str, origin: str) -> tuple[Foreign, ...]:
    """Either of the two files; raises BadRun when this is something else."""
    plain = _json(text, origin)
    if isinstance(plain, dict) and "load_summary" in plain and "successes" in plain:
        return (_figures(plain),)
    if not isinstance(plain, list) or not plain or not all(_is_request(item) for item in plain):
        raise BadRun(f"{origin} is no list of requests of inference-perf.")
    records = [_record(item, number) for number, item in enumerate(sorted(plain, key=lambda item: item["start_time"]))]
    return (of_records(records, tool=_TOOL, model=_model(plain[0])),)


def _json(text: str, origin: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise BadRun(f"{origin} is no JSON, so no result of inference-perf.") from None


def _is_request(item: object) -> bool:
    return (
        isinstance(item, dict) and {"start_time", "end_time", "info"} <= item.keys() and isinstance(item["info"], dict)
    )


def _record(item: dict[str, Any], number: int) -> Record:
    info, error = item["info"], item.get("error")
    told = info.get("response_metrics") or {}
    usage = told.get("server_usage") or {}
    asked = (info.get("request_metrics") or {}).get("text") or {}
    prompt = usage.get("prompt_tokens") or asked.get("input_tokens") or info.get("input_tokens") or 0
    details = usage.get("prompt_tokens_details") or {}
    words = error.get("error_msg") or error.get("message") or str(error) if isinstance(error, dict) else error
    return Record(
        number=number,
        user=number,
        sent_s=float(item["start_time"]),
        token_s=tuple(told.get("chunk_times") or told.get("output_token_times") or ()) if not error else (),
        done_s=float(item["end_time"]),
        prompt_tokens=int(prompt),
        output_tokens=int(
            usage.get("completion_tokens") or told.get("output_tokens") or info.get("output_tokens") or 0
        ),
        cached_tokens=int(details.get("cached_tokens") or 0),
        outcome=Outcome.FAILED if error else Outcome.OK,
        error="failed" if error else None,
        detail=str(words)[:200] if error else None,
    )


def _model(item: dict[str, Any]) -> str | None:
    try:
        model = json.loads(item["request"])["model"]
    except (KeyError, TypeError, ValueError):
        return None
    return model if isinstance(model, str) else None


def _figures(plain: dict[str, Any]) -> Foreign:
    good, bad = plain["successes"], plain.get("failures") or {}
    ok, failed = int(good["count"]), int(bad.get("count") or 0)
    rates = good.get("throughput") or {}
    latency = good.get("latency") or {}
    return Foreign(
        tool=_TOOL,
        model=None,
        summary=figures_only(
            counts=RequestCounts(sent=ok + failed, ok=ok, failed=failed, cancelled=0),
            duration_s=float(plain.get("benchmark_time_seconds") or 0.0),
            rates={
                "requests": rates.get("requests_per_sec") or 0.0,
                "output": rates.get("output_tokens_per_sec") or 0.0,
                "total": rates.get("total_tokens_per_sec") or 0.0,
            },
            spreads={
                ours: spread_of(latency.get(theirs) or {}, _STATS, scale=1.0) for ours, theirs in _SPREADS.items()
            },
        ),
        notes=tuple(_notes(good)),
    )


def _notes(good: dict[str, Any]) -> list[str]:
    notes = ["figures only; per_request_lifecycle_metrics.json beside it has the requests"]
    if good.get("token_count_mismatches"):
        notes.append("its client counted other tokens than the server: ITL and TPOT here are by the client's count")
    return notes


def write(run: Kept) -> str:
    """Every request, as per_request_lifecycle_metrics.json has them; texts are not kept here, so there are none."""
    table = run.table
    items = []
    for row in range(len(table)):
        times = table.token_times(row).tolist()
        ok = table.outcome[row] == Outcome.OK
        done = finite(table.done_s[row])
        usage = {
            "prompt_tokens": int(table.prompt_tokens[row]),
            "completion_tokens": int(table.output_tokens[row]),
            "total_tokens": int(table.prompt_tokens[row] + table.output_tokens[row]),
            "prompt_tokens_details": {"cached_tokens": int(table.cached_tokens[row])},
        }
        told = {"output_tokens": int(table.output_tokens[row]), "server_usage": usage, "chunk_times": times}
        items.append(
            {
                "start_time": float(table.sent_s[row]),
                "end_time": float(table.sent_s[row]) if done is None else done,
                "request": json.dumps({"model": run.model}),
                "response": "",
                "info": {
                    "request_metrics": {"text": {"input_tokens": int(table.prompt_tokens[row])}},
                    "response_metrics": told | {"output_token_times": times},
                    "input_tokens": int(table.prompt_tokens[row]),
                },
                "error": None
                if ok
                else {"error_type": table.error[row], "error_msg": table.detail[row] or table.error[row]},
            }
        )
    return json.dumps(items, indent=1) + "\n"
