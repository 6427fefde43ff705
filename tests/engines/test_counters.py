"""What a /metrics page says of an engine."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from atoll.emulate.meters import Meters
from atoll.emulate.metrics import CacheFacts, Gauges, show_metrics
from atoll.engines import CounterNames, Counters, all_counter_names, find_engine, read_counters

VLLM = find_engine("vllm").counters
REAL = (Path(__file__).parents[1] / "data" / "vllm_wire" / "metrics.txt").read_text()

OLDER = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:gpu_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:gpu_prefix_cache_hits_total{engine="0",model_name="m"} 48.0
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:e2e_request_latency_seconds_bucket{le="0.3"} 7.0
vllm:num_requests_runningX 9
python_gc_objects_collected_total{generation="0"} 1.0
vllm:num_requests_waiting nonsense
"""


def read(page: str) -> Counters:
    return read_counters(page, VLLM)


def test_a_page_of_vllm_0_32():
    assert read(REAL) == Counters(
        running=0, waiting=0, kv_usage=0, preemptions=0, prefix_hits=0, prefix_queries=1261, prompt_tokens=1261, output_tokens=1252
    )  # fmt: skip


def test_counts_of_several_engines_are_summed_and_shares_averaged():
    assert read(OLDER) == Counters(running=7, waiting=0, kv_usage=0.5, preemptions=2, prefix_hits=48)


def test_where_a_version_shows_the_old_name_and_the_new_the_new_one_counts():
    both = "vllm:gpu_cache_usage_perc 0.3\nvllm:kv_cache_usage_perc 0.4\n"
    assert read(both) == Counters(kv_usage=0.4)


@pytest.mark.parametrize(
    "line",
    [
        "vllm:num_requests_running 5",
        "vllm:num_requests_running 5 1764514567000",
        "vllm:num_requests_running\t5\t1764514567000",
        'vllm:num_requests_running{model_name="m"} 5.0 1764514567000',
        'vllm:num_requests_running{model_name="a } b { c"} 5 1764514567.000',
        'vllm:num_requests_running{model_name="a \\" } \\\\"} 5',
        'vllm:num_requests_running{model_name="m",} 5e0 # {trace_id="KOO5S4vxi0o"} 0.67 1764514567.1',
        'vllm:num_requests_running 5 # {trace_id="{}"} 0.67',
        '{"vllm:num_requests_running",model_name="m"} 5',
    ],
)
def test_time_stamps_exemplars_and_braces_are_no_values(line):
    assert read(f"{line}\n# EOF\n") == Counters(running=5)


def test_what_is_no_finite_number_is_not_known():
    page = "vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\nvllm:prompt_tokens_total 1\n"
    assert read(page) == Counters(prompt_tokens=1)
    assert read('vllm:num_requests_running{engine="0"} NaN\nvllm:num_requests_running{engine="1"} 2') == Counters(
        running=2
    )


@pytest.mark.parametrize(
    "page",
    ["", "<html>no metrics here</html>", "\x00\xff", "vllm:num_requests_running", "vllm:num_requests_running{ 5"],
)
def test_a_page_of_something_else_has_none(page):
    assert read(page) == Counters()


@given(
    st.text(max_size=200)
    | st.text(alphabet='vllm:num_requests_running{}=",\\ \n5#', max_size=80).map(
        lambda tail: f"vllm:num_requests_running{tail}"
    )
)
def test_no_page_is_a_fault_of_ours(page):
    read(page)


@pytest.mark.parametrize("write", [generate_latest, generate_openmetrics])
def test_what_the_client_library_writes_is_read_back(write):
    """In OpenMetrics names have no colon, a counter's # TYPE bears its name without `_total`, and `# EOF` ends the page."""
    registry = CollectorRegistry()
    Gauge("vllm:num_requests_running", "Running.", ["model_name"], registry=registry).labels('a"}{\n b').set(3)
    Counter("vllm:prompt_tokens", "Prompt.", registry=registry).inc(7, exemplar={"trace_id": "x}"})
    assert read(write(registry).decode()) == Counters(running=3, prompt_tokens=7)


def test_the_emulated_engine_shows_all_that_is_read():
    meters = Meters(
        max_model_len=100, preemptions=1, prefix_queries=2, prefix_hits=3, prompt_tokens=4, generation_tokens=5
    )
    cache = CacheFacts(blocks=9, block_tokens=16, prefix_caching=True, max_model_len=100)
    page = show_metrics(meters, Gauges(running=6, waiting=7, kv_usage=0.8), cache, model="m")
    assert read_counters(page, find_engine("emulated").counters) == Counters(
        running=6, waiting=7, kv_usage=0.8, preemptions=1, prefix_hits=3, prefix_queries=2, prompt_tokens=4, output_tokens=5
    )  # fmt: skip


def test_a_server_that_does_not_say_what_it_is_is_read_by_the_names_of_all():
    assert read_counters(OLDER, all_counter_names()) == read(OLDER)
    theirs = CounterNames(running=("x_running",), waiting=("vllm:num_requests_waiting",))
    assert (VLLM + theirs).running == ("vllm:num_requests_running", "x_running")
    assert (VLLM + theirs).waiting == ("vllm:num_requests_waiting",)
