"""What /metrics shows: vLLM's names, labels and buckets (vllm/v1/metrics/{loggers,buckets}.py, 0.32.0)."""

from bisect import bisect_left
from dataclasses import dataclass, field

# fmt: off
REQUEST_LATENCY = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)
FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)
TOKEN_GAP = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)
# fmt: on
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


def token_buckets(max_model_len: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50 ... up to the longest context."""
    steps = (mantissa * 10**power for power in range(10) for mantissa in (1, 2, 5))
    return tuple(step for step in steps if step <= max_model_len)


class Histogram:
    """Counts in buckets, cumulated only when shown."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulated(self) -> list[tuple[str, int]]:
        """(upper bound as Prometheus writes it, how many are at or below it)."""
        rows, sum_so_far = [], 0
        for bound, count in zip((*map(float, self.bounds), float("inf")), self._counts, strict=True):
            sum_so_far += count
            rows.append(("+Inf" if bound == float("inf") else repr(bound), sum_so_far))
        return rows


@dataclass(kw_only=True)
class Meters:
    """Everything that is counted while the engine runs. Gauges are asked of the scheduler when shown."""

    max_model_len: int
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    rejected: int = 0
    late_s: float = 0.0  # how far the server fell behind its own pace: 0 unless this machine is too slow
    finished: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("stop", "length", "abort", "error", "repetition"), 0)
    )

    def __post_init__(self) -> None:
        tokens = token_buckets(self.max_model_len)
        self.request_prompt_tokens = Histogram(tokens)
        self.request_generation_tokens = Histogram(tokens)
        self.request_max_tokens = Histogram(tokens)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.first_token = Histogram(FIRST_TOKEN)
        self.token_gap = Histogram(TOKEN_GAP)
        self.time_per_token = Histogram(TOKEN_GAP)
        self.e2e = Histogram(REQUEST_LATENCY)
        self.queue = Histogram(REQUEST_LATENCY)
        self.inference = Histogram(REQUEST_LATENCY)
        self.prefill = Histogram(REQUEST_LATENCY)
        self.decode = Histogram(REQUEST_LATENCY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauges:
    """The scheduler's state at the moment of asking."""

    running: int
    waiting: int
    kv_usage: float


def show_metrics(meters: Meters, gauges: Gauges, *, model: str, kv_blocks: int, block_tokens: int) -> str:
    """The Prometheus text (format 0.0.4)."""
    labels = f'engine="0",model_name="{_escape(model)}"'
    lines: list[str] = []
    _add(lines, "num_requests_running", "gauge", "Number of requests in model execution batches.")
    lines.append(f"vllm:num_requests_running{{{labels}}} {float(gauges.running)}")
    _add(lines, "num_requests_waiting", "gauge", "Number of requests waiting to be processed.")
    lines.append(f"vllm:num_requests_waiting{{{labels}}} {float(gauges.waiting)}")
    _add(lines, "kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.")
    lines.append(f"vllm:kv_cache_usage_perc{{{labels}}} {gauges.kv_usage!r}")
    _add(lines, "cache_config_info", "gauge", "Information of the LLMEngine CacheConfig")
    lines.append(f'vllm:cache_config_info{{block_size="{block_tokens}",engine="0",num_gpu_blocks="{kv_blocks}"}} 1.0')
    for name, what, value in _counters(meters):
        _add(lines, name, "counter", what)
        lines.append(f"vllm:{name}{{{labels}}} {float(value)}")
    _add(lines, "request_success_total", "counter", "Count of successfully processed requests.")
    for reason, count in meters.finished.items():
        lines.append(f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {float(count)}')
    _add(lines, "admission_rejections_total", "counter", _REJECTIONS)
    model_only = f'model_name="{_escape(model)}"'
    lines.append(
        f'vllm:admission_rejections_total{{{model_only},reason="max_num_queued_reqs"}} {float(meters.rejected)}'
    )
    for name, what, histogram in _histograms(meters):
        _add(lines, name, "histogram", what)
        lines.extend(f'vllm:{name}_bucket{{{labels},le="{le}"}} {float(n)}' for le, n in histogram.cumulated())
        lines.append(f"vllm:{name}_count{{{labels}}} {float(histogram.count)}")
        lines.append(f"vllm:{name}_sum{{{labels}}} {histogram.total!r}")
    lines.append("# HELP atoll:emulator_late_seconds_total How far the emulated engine fell behind its own pace.")
    lines.append("# TYPE atoll:emulator_late_seconds_total counter")
    lines.append(f"atoll:emulator_late_seconds_total{{{labels}}} {meters.late_s!r}")
    return "\n".join(lines) + "\n"


_REJECTIONS = "Number of admission attempts rejected by a queue limit, by reason."


def _counters(meters: Meters) -> list[tuple[str, str, float]]:
    return [
        (
            "prefix_cache_queries_total",
            "Prefix cache queries, in terms of number of queried tokens.",
            meters.prefix_queries,
        ),
        ("prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens.", meters.prefix_hits),
        ("num_preemptions_total", "Cumulative number of preemption from the engine.", meters.preemptions),
        ("prompt_tokens_total", "Number of prefill tokens processed.", meters.prompt_tokens),
        ("prompt_tokens_cached_total", "Number of cached prompt tokens (local + external).", meters.prefix_hits),
        ("generation_tokens_total", "Number of generation tokens processed.", meters.generation_tokens),
    ]


def _histograms(meters: Meters) -> list[tuple[str, str, Histogram]]:
    return [
        ("request_prompt_tokens", "Number of prefill tokens processed.", meters.request_prompt_tokens),
        ("request_generation_tokens", "Number of generation tokens processed.", meters.request_generation_tokens),
        ("request_params_max_tokens", "Histogram of the max_tokens request parameter.", meters.request_max_tokens),
        ("iteration_tokens_total", "Histogram of number of tokens per engine_step.", meters.step_tokens),
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
    ]


def _add(lines: list[str], name: str, kind: str, what: str) -> None:
    lines.append(f"# HELP vllm:{name} {what}")
    lines.append(f"# TYPE vllm:{name} {kind}")


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
