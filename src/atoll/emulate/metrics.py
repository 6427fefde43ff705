"""The /metrics page: vLLM's names, types and labels (vllm/v1/metrics/loggers.py, 0.32.0)."""

from collections.abc import Iterable
from dataclasses import dataclass

from atoll.emulate.meters import Histogram, Meters


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauges:
    """The scheduler's state at the moment of asking."""

    running: int
    waiting: int
    kv_usage: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheFacts:
    """The KV cache as it was made at start."""

    blocks: int
    block_tokens: int
    prefix_caching: bool
    max_model_len: int


def show_metrics(meters: Meters, gauges: Gauges, cache: CacheFacts, *, model: str) -> str:
    """The Prometheus text (format 0.0.4)."""
    page = _Page(model)
    page.plain("num_requests_running", "gauge", "Number of requests in model execution batches.", gauges.running)
    page.plain("num_requests_waiting", "gauge", "Number of requests waiting to be processed.", gauges.waiting)
    waiting = {"capacity": gauges.waiting, "deferred": 0}
    page.labelled("num_requests_waiting_by_reason", "gauge", _WAITING, "reason", waiting)
    page.labelled(
        "engine_sleep_state", "gauge", _SLEEP, "sleep_state", {"awake": 1, "weights_offloaded": 0, "discard_all": 0}
    )
    page.plain("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", gauges.kv_usage)
    for name, what, value in _counters(meters):
        page.plain(name, "counter", what, value)
    hits = meters.prefix_hits
    sources = {"local_compute": meters.prompt_tokens - hits, "local_cache_hit": hits, "external_kv_transfer": 0}
    page.labelled("prompt_tokens_by_source_total", "counter", "Number of prompt tokens by source.", "source", sources)
    tiers = {"device": hits, "host": 0, "p2p": 0, "disk": 0, "external_unspecified": 0}
    page.labelled("prompt_tokens_cached_by_source_total", "counter", _TIERS, "source", tiers)
    page.labelled(
        "request_success_total",
        "counter",
        "Count of successfully processed requests.",
        "finished_reason",
        meters.finished,
    )
    rejected = {"max_num_queued_reqs": meters.rejected, "max_num_queued_tokens": 0}
    page.labelled("admission_rejections_total", "counter", _REJECTIONS, "reason", rejected, engine=False)
    for name, what, histogram in _histograms(meters):
        page.histogram(name, what, histogram)
    page.cache(cache)
    page.late(meters.late_s)
    return page.text()


_WAITING = (
    "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' ="
    " deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals"
    " vllm:num_requests_waiting."
)
_SLEEP = (
    "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1"
    " means sleep level 1; discard_all = 1 means sleep level 2."
)
_TIERS = "Prefix-cache hit tokens by the cache tier that supplied them."
_REJECTIONS = "Number of admission attempts rejected by a queue limit, by reason."


class _Page:
    """Lines of the page, written family by family; labels stand in alphabetical order."""

    def __init__(self, model: str) -> None:
        self._model = _escape(model)
        self._lines: list[str] = []

    def plain(self, name: str, kind: str, what: str, value: float) -> None:
        self._family(name, kind, what)
        self._lines.append(f'vllm:{name}{{engine="0",model_name="{self._model}"}} {float(value)!r}')

    def labelled(
        self, name: str, kind: str, what: str, label: str, values: dict[str, int], *, engine: bool = True
    ) -> None:
        self._family(name, kind, what)
        for value, count in values.items():
            labels = {"model_name": self._model, label: value} | ({"engine": "0"} if engine else {})
            self._lines.append(f"vllm:{name}{{{_labels(labels)}}} {float(count)!r}")

    def histogram(self, name: str, what: str, histogram: Histogram) -> None:
        self._family(name, "histogram", what)
        labels = f'engine="0",model_name="{self._model}"'
        rows = histogram.cumulated()
        self._lines.extend(
            f'vllm:{name}_bucket{{engine="0",le="{le}",model_name="{self._model}"}} {float(n)}' for le, n in rows
        )
        self._lines.append(f"vllm:{name}_count{{{labels}}} {float(histogram.count)}")
        self._lines.append(f"vllm:{name}_sum{{{labels}}} {histogram.total!r}")

    def cache(self, cache: CacheFacts) -> None:
        tokens = cache.blocks * cache.block_tokens
        self._family("cache_config_info", "gauge", "Information of the LLMEngine CacheConfig")
        labels = {
            "block_size": str(cache.block_tokens),
            "enable_prefix_caching": str(cache.prefix_caching),
            "engine": "0",
            "kv_cache_max_concurrency": repr(tokens / cache.max_model_len),
            "kv_cache_size_tokens": str(tokens),
            "num_gpu_blocks": str(cache.blocks),
        }
        self._lines.append(f"vllm:cache_config_info{{{_labels(labels)}}} 1.0")

    def late(self, seconds: float) -> None:
        name = "atoll:emulator_late_seconds_total"
        self._lines.append(f"# HELP {name} How far the emulated engine fell behind its own pace.")
        self._lines.append(f"# TYPE {name} counter")
        self._lines.append(f'{name}{{engine="0",model_name="{self._model}"}} {seconds!r}')

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def _family(self, name: str, kind: str, what: str) -> None:
        self._lines.append(f"# HELP vllm:{name} {what}")
        self._lines.append(f"# TYPE vllm:{name} {kind}")


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{labels[name]}"' for name in sorted(labels))


def _counters(meters: Meters) -> Iterable[tuple[str, str, float]]:
    queried, external = "in terms of number of queried tokens.", "External prefix cache"
    yield "prefix_cache_queries_total", f"Prefix cache queries, {queried}", meters.prefix_queries
    yield "prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.", meters.prefix_hits
    connector = "from KV connector cross-instance cache sharing"
    yield "external_prefix_cache_queries_total", f"{external} queries {connector}, {queried}", 0
    cached = "in terms of number of cached tokens."
    yield "external_prefix_cache_hits_total", f"{external} hits {connector}, {cached}", 0
    yield "mm_cache_queries_total", "Multi-modal cache queries, in terms of number of queried items.", 0
    yield "mm_cache_hits_total", "Multi-modal cache hits, in terms of number of cached items.", 0
    yield "num_preemptions_total", "Cumulative number of preemption from the engine.", meters.preemptions
    yield "prompt_tokens_total", "Number of prefill tokens processed.", meters.prompt_tokens
    yield "prompt_tokens_cached_total", "Number of cached prompt tokens (local + external).", meters.prefix_hits
    yield "generation_tokens_total", "Number of generation tokens processed.", meters.generation_tokens


def _histograms(meters: Meters) -> list[tuple[str, str, Histogram]]:
    return [
        ("request_prompt_tokens", "Number of prefill tokens processed.", meters.request_prompt_tokens),
        ("request_generation_tokens", "Number of generation tokens processed.", meters.request_generation_tokens),
        ("iteration_tokens_total", "Histogram of number of tokens per engine_step.", meters.step_tokens),
        (
            "request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            meters.request_most_generated,
        ),
        ("request_params_n", "Histogram of the n request parameter.", meters.request_n),
        ("request_params_max_tokens", "Histogram of the max_tokens request parameter.", meters.request_max_tokens),
        ("time_to_first_token_seconds", "Histogram of time to first token in seconds.", meters.first_token),
        ("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", meters.token_gap),
        (
            "request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            meters.time_per_token,
        ),
        ("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", meters.e2e),
        ("request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", meters.queue),
        ("request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", meters.inference),
        ("request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", meters.prefill),
        ("request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", meters.decode),
        (
            "request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            meters.request_preemptions,
        ),
        (
            "request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            meters.request_computed,
        ),
    ]


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
