"""`vllm bench serve --save-result`, the Python one and the Rust one (0.32, 0.33): vllm/benchmarks/serve.py.

With `--save-detailed` the file has every request. Both count the role chunk as the first token, so their first gap is
near 0 and their mean ITL about 1/n too low for answers of n tokens.
"""

import json
from itertools import accumulate
from typing import Any

import numpy as np

from atoll.analyse.summary import RequestCounts
from atoll.errors import BadRun
from atoll.store.foreign.shape import Foreign, Kept, figures_only, json_object, milliseconds, of_records, spread_of
from atoll.traffic.record import Outcome, Record

_SPREADS = {"ttft_s": "ttft", "itl_s": "itl", "tpot_s": "tpot", "e2e_s": "e2el"}


def read(text: str, origin: str) -> tuple[Foreign, ...]:
    """One run; raises BadRun when this is something else."""
    plain = json_object(text, origin, "vllm bench serve")
    if "completed" not in plain or "request_throughput" not in plain:
        raise BadRun(f"{origin} is no result of vllm bench serve: it has no `completed`.")
    known: dict[str, Any] = {"tool": "vllm bench serve", "model": plain.get("model_id")}
    if plain.get("ttfts") and plain.get("itls"):
        return (of_records(_records(plain), **known, notes=_notes(plain)),)
    return (Foreign(**known, summary=_figures(plain), notes=("made without --save-detailed: no requests",)),)


def _notes(plain: dict[str, Any]) -> tuple[str, ...]:
    """Completions have no role chunk; which of the two was asked stands in the file."""
    kind = str(plain.get("endpoint_type") or plain.get("backend") or "openai-chat")
    return ("the role chunk counts as the first token there",) if "chat" in kind else ()


def _records(plain: dict[str, Any]) -> list[Record]:
    count = len(plain["ttfts"])
    starts = plain.get("start_times") or [0.0] * count
    errors = plain.get("errors") or [""] * count
    latencies = plain.get("latencies") or [
        first + sum(gaps) for first, gaps in zip(plain["ttfts"], plain["itls"], strict=True)
    ]
    return [
        Record(
            number=number,
            user=number,
            sent_s=starts[number],
            token_s=tuple(accumulate(plain["itls"][number], initial=starts[number] + plain["ttfts"][number]))
            if not errors[number]
            else (),
            done_s=starts[number] + latencies[number],
            prompt_tokens=plain["input_lens"][number],
            output_tokens=plain["output_lens"][number],
            outcome=Outcome.FAILED if errors[number] else Outcome.OK,
            error="failed" if errors[number] else None,
            detail=errors[number].strip().splitlines()[-1][:200] if errors[number].strip() else None,
            status=None if errors[number] else 200,
        )
        for number in range(count)
    ]


def _figures(plain: dict[str, Any]) -> Any:
    failed = int(plain.get("failed") or 0)
    ok = int(plain["completed"])
    return figures_only(
        counts=RequestCounts(sent=ok + failed, ok=ok, failed=failed, cancelled=0),
        duration_s=float(plain.get("duration") or 0.0),
        rates={
            "requests": plain.get("request_throughput") or 0.0,
            "output": plain.get("output_throughput") or 0.0,
            "total": plain.get("total_token_throughput") or 0.0,
        },
        spreads={ours: spread_of(plain, _names(theirs)) for ours, theirs in _SPREADS.items()},
    )


def _names(measure: str) -> dict[str, str]:
    percentiles = {f"p{number}": f"p{number}_{measure}_ms" for number in (90, 95, 99)}
    return {"mean": f"mean_{measure}_ms", "p50": f"median_{measure}_ms"} | percentiles


def write(run: Kept) -> str:
    """With every request, as by --save-detailed. Cancelled requests, which vLLM does not have, count as failed."""
    table, summary = run.table, run.summary
    rows = range(len(table))
    times = [table.token_times(row) for row in rows]
    ok = [outcome == Outcome.OK for outcome in table.outcome]
    plain: dict[str, Any] = {
        "endpoint_type": "openai-chat",
        "backend": "openai-chat",
        "label": run.name,
        "model_id": run.model,
        "num_prompts": len(table),
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": run.users,
        "duration": summary.duration_s,
        "completed": summary.requests.ok,
        "failed": summary.requests.failed + summary.requests.cancelled,
        "total_input_tokens": int(table.prompt_tokens[np.array(ok, dtype=bool)].sum()),
        "total_output_tokens": int(table.output_tokens[np.array(ok, dtype=bool)].sum()),
        "request_throughput": summary.requests_per_s,
        "output_throughput": summary.output_tokens_per_s,
        "total_token_throughput": summary.total_tokens_per_s,
        "input_lens": table.prompt_tokens.tolist(),
        "output_lens": table.output_tokens.tolist(),
        "ttfts": [float(t[0] - table.sent_s[row]) if len(t) else 0.0 for row, t in zip(rows, times, strict=True)],
        "itls": [np.diff(t).tolist() for t in times],
        "latencies": np.nan_to_num(table.done_s - table.sent_s).tolist(),
        "start_times": table.sent_s.tolist(),
        "generated_texts": ["" for _ in rows],
        "errors": ["" if ok[row] else table.detail[row] or table.error[row] or "cancelled" for row in rows],
    }
    for ours, theirs in _SPREADS.items():
        plain |= milliseconds(getattr(summary, ours), _names(theirs))
    return json.dumps(plain, indent=1) + "\n"
