"""The metrics of vLLM, those of older versions behind today's (vllm/v1/metrics/loggers.py)."""

from atoll.engines.counters import CounterNames, HistogramNames

counters = CounterNames(
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    kv_usage=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),  # some versions show both
    preemptions=("vllm:num_preemptions_total",),
    prefix_hits=("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    prefix_queries=("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    prompt_tokens=("vllm:prompt_tokens_total",),
    output_tokens=("vllm:generation_tokens_total",),
)
# fmt: off
_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)
_TOKEN_GAP = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)
# fmt: on
histograms = HistogramNames(
    first_token=("vllm:time_to_first_token_seconds",),
    token_gap=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    first_token_bounds=_FIRST_TOKEN,
    token_gap_bounds=_TOKEN_GAP,
)
