"""Counters of engines, sampled while the load runs."""

import asyncio

import pytest
import uvloop

from atoll.errors import InputError
from atoll.load.run import measure_load
from atoll.load.target import RequestOptions
from atoll.load.watch import Watch, read_counters
from atoll.outside.parquet import read_parquet
from atoll.traffic.workload import Workload

PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:e2e_request_latency_seconds_bucket{le="0.3"} 7.0
vllm:num_requests_runningX 9
python_gc_objects_collected_total{generation="0"} 1.0
vllm:num_requests_waiting nonsense
"""


def test_counters_are_summed_over_engines_and_renamed():
    assert read_counters(PAGE) == {"running": 7.0, "waiting": 0.0, "kv_usage": 0.25, "preemptions": 2.0}


def test_a_page_of_something_else_has_none():
    assert read_counters("<html>") == {}
    assert read_counters("") == {}


def test_counters_stand_on_the_clock_of_the_run(naughty, tmp_path):
    naughty.gap_s = 0.02
    naughty.page = PAGE

    async def both():
        load = Workload(users=2, duration_s=1.5, prompt=4, output=10)
        return await measure_load(naughty.url, load, options=RequestOptions(model="m"))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        columns = runner.run(both()).telemetry.columns()
    assert set(columns["source"]) == {"replica 0"}
    assert set(columns["name"]) == {"running", "waiting", "kv_usage", "preemptions"}
    assert 0 <= columns["time_s"].min() < columns["time_s"].max() < 3
    from atoll.outside.parquet import write_parquet

    write_parquet(tmp_path / "t.parquet", columns)
    assert read_parquet(tmp_path / "t.parquet")["name"] == columns["name"]


def test_a_page_that_is_no_url_is_refused():
    with pytest.raises(InputError, match="no page of counters"):
        Watch(["localhost"], options=RequestOptions(), now=lambda: 0.0)
