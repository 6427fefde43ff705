"""genai-bench's result of one level (0.0.5): D*_*_num_concurrency_N_time_Ts.json, with each request's figures.

A request has its TTFT, TPOT and E2E and no moment of its own, so requests are laid out here as its workers must have
sent them, one after the other; figures over time, such as the rate of tokens, are those of the file.
"""

import heapq
import json
from typing import Any

from atoll.analyse.summary import summarise
from atoll.errors import BadRun
from atoll.store.foreign.shape import Foreign, Kept, finite, json_object, moved
from atoll.store.foreign.untold import with_ends
from atoll.traffic.record import Outcome, Record

_TOOL = "genai-bench"


def read(text: str, origin: str) -> tuple[Foreign, ...]:
    """One level; raises BadRun when this is something else."""
    plain = json_object(text, origin, _TOOL)
    whole, each = plain.get("aggregated_metrics"), plain.get("individual_request_metrics")
    if not isinstance(whole, dict) or not isinstance(each, list) or not each:
        raise BadRun(f"{origin} is no result of genai-bench: it has no `individual_request_metrics`.")
    scale = 1e-3 if plain.get("_time_unit") == "ms" else 1.0
    table = moved(with_ends(_laid_out(each, int(whole.get("num_concurrency") or 1), scale)))
    summary = summarise(table).replace(
        duration_s=float(whole["run_duration"]),
        output_tokens_per_s=float(whole["mean_output_throughput_tokens_per_s"]),
        total_tokens_per_s=float(whole["mean_total_tokens_throughput_tokens_per_s"]),
        requests_per_s=float(whole["requests_per_second"]),
        notes=(),
    )
    note = "no times between the first and the last token: no ITL; when a request was sent is not in the file"
    return (Foreign(tool=_TOOL, model=None, table=table, summary=summary, notes=(note,)),)


def _laid_out(each: list[dict[str, Any]], users: int, scale: float) -> list[tuple[Record, float | None, float | None]]:
    """One after the other on so many users; whoever is free first takes the next."""
    free = [(0.0, user) for user in range(max(1, users))]
    rows: list[tuple[Record, float | None, float | None]] = []
    for number, item in enumerate(each):
        sent, user = heapq.heappop(free)
        failed = item.get("error_code") is not None
        took, first = (float(item.get(name) or 0.0) * scale for name in ("e2e_latency", "ttft"))
        heapq.heappush(free, (sent + took, user))
        record = Record(
            number=number,
            user=user,
            sent_s=sent,
            done_s=sent + took,
            prompt_tokens=int(item.get("num_input_tokens") or 0),
            output_tokens=int(item.get("num_output_tokens") or 0),
            outcome=Outcome.FAILED if failed else Outcome.OK,
            error=f"http_{item['error_code']}" if failed else None,
            detail=str(item.get("error_message"))[:200] if failed else None,
        )
        rows.append((record, None, None) if failed else (record, sent + first, sent + took))
    return rows


def write(run: Kept) -> str:
    """A level with each request's figures."""
    table, summary = run.table, run.summary
    each = []
    for row in range(len(table)):
        ok = table.outcome[row] == Outcome.OK
        first, last = (
            finite(table.first_token_s[row] - table.sent_s[row]),
            finite(table.last_token_s[row] - table.sent_s[row]),
        )
        tokens = int(table.output_tokens[row])
        writing = None if first is None or last is None else last - first
        each.append(
            {
                "ttft": first if ok else None,
                "tpot": writing / (tokens - 1) if ok and writing is not None and tokens > 1 else None,
                "e2e_latency": last if ok else None,
                "output_latency": writing if ok else None,
                "num_input_tokens": int(table.prompt_tokens[row]),
                "num_output_tokens": tokens,
                "total_tokens": int(table.prompt_tokens[row]) + tokens,
                "error_code": None if ok else int(table.status[row]) or 599,
                "error_message": None if ok else table.detail[row] or table.error[row],
            }
        )
    whole = {
        "scenario": "atoll",
        "num_concurrency": run.users or 1,
        "batch_size": 1,
        "iteration_type": "num_concurrency",
        "run_duration": summary.duration_s,
        "mean_output_throughput_tokens_per_s": summary.output_tokens_per_s,
        "mean_total_tokens_throughput_tokens_per_s": summary.total_tokens_per_s,
        "requests_per_second": summary.requests_per_s,
        "num_completed_requests": summary.requests.ok,
        "num_error_requests": summary.requests.failed,
        "num_requests": summary.requests.sent,
    }
    plain = {"aggregated_metrics": whole, "individual_request_metrics": each, "_time_unit": "s"}
    return json.dumps(plain, indent=1) + "\n"
