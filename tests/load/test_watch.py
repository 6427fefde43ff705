"""Counters of engines, sampled while the load runs."""

import asyncio
import time

import pytest
import uvloop

from atoll.analyse.summary import summarise
from atoll.errors import InputError
from atoll.load.run import LoadControl, measure_load
from atoll.load.target import RequestOptions
from atoll.load.watch import Telemetry, Watch
from atoll.outside.parquet import read_parquet
from atoll.traffic.record import RecordTable
from atoll.traffic.workload import Workload
from atoll.workflows.bench import _with_engines_cache
from stand_ins.patience import beside, until

PAGE = """vllm:num_requests_running{engine="0",model_name="m"} 3.0 1764514567000
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:generation_tokens_total{engine="0",model_name="m"} 2.0
"""


def test_counters_stand_on_the_clock_of_the_run(naughty, tmp_path):
    naughty.gap_s = 0.02
    naughty.page = PAGE

    control = LoadControl()

    async def stop():
        await until(lambda: sum(head.startswith("GET /metrics") for head in naughty.heads) >= 4)
        control.stop("interrupted")

    async def both():
        load = Workload(users=2, duration_s=3600, prompt=4, output=10, start="at_once")
        return await beside(measure_load(naughty.url, load, options=RequestOptions(model="m"), control=control), stop())

    began = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        columns = runner.run(both()).telemetry.columns()
    assert set(columns["source"]) == {"replica 0"}
    assert set(columns["name"]) == {"running", "waiting", "kv_usage", "output_tokens"}
    running = {value for name, value in zip(columns["name"], columns["value"], strict=True) if name == "running"}
    assert running == {3.0}
    assert 0 <= columns["time_s"].min() < columns["time_s"].max() < time.monotonic() - began
    from atoll.outside.parquet import write_parquet

    write_parquet(tmp_path / "t.parquet", columns)
    assert read_parquet(tmp_path / "t.parquet")["name"] == columns["name"]


def test_a_page_that_is_no_url_is_refused():
    with pytest.raises(InputError, match="no page of counters"):
        Watch(["localhost"], options=RequestOptions(), now=lambda: 0.0)


def test_a_counter_grows_from_the_first_sample_to_the_last_of_each_engine():
    telemetry = Telemetry()
    for moment, one, other in ((0.1, 100.0, 5.0), (1.1, 130.0, 5.0), (2.1, 150.0, 9.0)):
        telemetry.add(moment, "replica 0", "prefix_hits", one)
        telemetry.add(moment, "replica 1", "prefix_hits", other)
        telemetry.add(moment, "replica 1", "waiting", 1.0)
    assert telemetry.grown("prefix_hits") == 54
    assert telemetry.grown("prefix_queries") == 0


@pytest.mark.parametrize(("hits", "turns", "said"), [(400.0, 1, True), (4.0, 1, False), (400.0, 3, False)])
def test_prompts_out_of_the_cache_are_told_by_the_engines_counters_where_answers_do_not(hits, turns, said):
    telemetry = Telemetry()
    for moment, share in ((0.0, 0.0), (9.0, 1.0)):
        telemetry.add(moment, "replica 0", "prefix_hits", 70 + share * hits)
        telemetry.add(moment, "replica 0", "prefix_queries", 90 + share * 1000)
    workload = Workload(users=1, requests=4, turns=turns)
    summary = _with_engines_cache(summarise(RecordTable.from_records([])), telemetry, workload)
    assert ("cached_prompts" in summary.remarks) == said
    assert any("40.0% of the prompt tokens came out of the prefix cache" in note for note in summary.notes) == said
