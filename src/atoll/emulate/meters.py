"""What is counted while the engine runs, in the buckets of vLLM (vllm/v1/metrics/{loggers,buckets}.py, 0.32.0)."""

from bisect import bisect_left
from dataclasses import dataclass, field

from atoll.engines import emulated

# fmt: off
REQUEST_LATENCY = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)
# fmt: on
FIRST_TOKEN = emulated.histograms.first_token_bounds
TOKEN_GAP = emulated.histograms.token_gap_bounds
SEQUENCES = (1, 2, 5, 10, 20)
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
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
        self.request_most_generated = Histogram(tokens)
        self.request_computed = Histogram(tokens)
        self.request_n = Histogram(SEQUENCES)
        self.request_preemptions = Histogram(PREEMPTIONS)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.first_token = Histogram(FIRST_TOKEN)
        self.token_gap = Histogram(TOKEN_GAP)
        self.time_per_token = Histogram(TOKEN_GAP)
        self.e2e = Histogram(REQUEST_LATENCY)
        self.queue = Histogram(REQUEST_LATENCY)
        self.inference = Histogram(REQUEST_LATENCY)
        self.prefill = Histogram(REQUEST_LATENCY)
        self.decode = Histogram(REQUEST_LATENCY)
