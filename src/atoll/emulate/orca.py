"""How loaded the engine is, in a header of its answers, for balancers that ask (vllm/entrypoints/serve/utils, 0.32)."""

import json

from atoll.emulate.engine import EmulatedEngine

LOAD_FORMAT = "endpoint-load-metrics-format"  # the request's header, TEXT or JSON


def load_header(asked: str, engine: EmulatedEngine) -> str:
    """The header's line; none for a format that vLLM does not know."""
    now = engine.gauges()
    metrics = {"kv_cache_usage_perc": now.kv_usage, "num_requests_waiting": float(now.waiting)}
    match asked.lower():
        case "text":
            listed = ", ".join(f"named_metrics.{name}={value}" for name, value in metrics.items())
            return f"endpoint-load-metrics: TEXT {listed}\r\n"
        case "json":
            return f"endpoint-load-metrics: JSON {json.dumps({'named_metrics': metrics})}\r\n"
        case _:
            return ""
