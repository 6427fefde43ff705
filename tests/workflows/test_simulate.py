"""Layouts under a load, joined with catalogue, memory and step model."""

from pathlib import Path

import pytest

from atoll.engines.engine import SchedulerLimits
from atoll.errors import BadTraffic, InputError, NothingFits
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.simulate.run import Outage
from atoll.traffic.workload import Arrivals, Workload
from atoll.workflows import simulate as work
from atoll.workflows.load import LoadOptions, load_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "four-h100-nvl" / "study.yaml"
MODEL = "Qwen/Qwen2.5-32B-Instruct"
TIGHT = {"gpu_memory_utilization": 0.88}  # leaves less than one longest request's keys and values on one card


def plain(**changes):
    given = {
        "capture": None,
        "gpu": "H100-SXM-80GB",
        "gpus": None,
        "tensor_parallel": 2,
        "replicas": 2,
        "model": MODEL,
        "flags": EngineFlags(),
        "engine_version": "0.32.0",
    }
    return work.plain_layout(**given | changes)


def load(*, traced=False, **changes):
    words = {"prompt": "512", "output": "128", "start": "at_once"} if not traced else {}
    return load_of(None, LoadOptions(**words | changes), traced=traced)


def test_the_plain_form_lays_replicas_over_the_best_groups():
    layout = plain()
    assert layout.name == "2xTP2"
    assert [replica.gpus for replica in layout.replicas] == [(0, 1), (2, 3)]


def test_too_many_replicas_for_the_box():
    with pytest.raises(InputError, match=r"--tp 2 --replicas 3 needs 6 GPUs; this box has 4\."):
        plain(gpus=4, replicas=3)


def test_equal_replicas_share_a_timer_and_defaults_are_the_engines():
    layout = plain()
    equipment = work.equipment_for(layout, work.read_model(MODEL))
    assert equipment.timers[0] is equipment.timers[1]
    assert (
        equipment.limits
        == (SchedulerLimits(max_num_batched_tokens=8192, max_num_seqs=1024, async_scheduling=True),) * 2
    )
    # Some 80 GB of two cards are left for keys and values of 256 KiB a token.
    assert 300_000 < 16 * equipment.kv_blocks[0] < 420_000


def test_the_engine_of_early_2025_computes_prompts_first():
    layout = plain(engine_version="0.7.3", flags=EngineFlags(enable_chunked_prefill=False))
    limits, _ = work.equipment_for(layout, work.read_model(MODEL)).limits
    assert limits.prefill_first
    assert not limits.async_scheduling
    assert limits.max_num_batched_tokens == 32768  # as long as the model's context
    assert limits.watermark == 0.01


def test_a_model_that_does_not_fit_is_told():
    with pytest.raises(NothingFits, match="does not fit"):
        work.simulate(plain(gpu="A10-24GB"), load(requests=1))
    with pytest.raises(NothingFits, match=r"set max_model_len to [0-9]+ or less"):
        work.simulate(plain(tensor_parallel=1, flags=EngineFlags(max_model_len=32768, **TIGHT)), load(requests=1))


def test_without_max_model_len_an_engine_takes_what_its_cache_holds():
    layout = plain(tensor_parallel=1, flags=EngineFlags(**TIGHT))
    equipment = work.equipment_for(layout, work.read_model(MODEL))
    assert equipment.max_model_len == 16 * equipment.kv_blocks[0] < 32768


def test_two_replicas_serve_more_than_one():
    one = work.simulate_run(plain(replicas=1), load(requests=300)).summary
    two = work.simulate_run(plain(), load(requests=300)).summary
    assert two.requests.ok == one.requests.ok == 300
    assert two.output_tokens_per_s > 1.2 * one.output_tokens_per_s
    assert [part.requests.ok for part in two.per_replica] == [150, 150]


def test_workload_words():
    workload = load(prompt="lognormal:1024:0.8", output="10-20", duration="10m", warmup="1m", think="250ms")
    assert workload.duration_s == 600
    assert workload.warmup_s == 60
    assert workload.think_s == 0.25
    assert workload.prompt.kind == "lognormal"
    assert load().duration_s == 600
    assert load(rate=2.0, start=None).arrivals is Arrivals.POISSON
    assert load(traced=True).arrivals is Arrivals.TRACE
    assert load(traced=True, users=3).prompt.kind == "trace"


def test_a_trace_is_needed_where_it_is_asked_for():
    with pytest.raises(BadTraffic, match="no trace was given"):
        work.simulate(plain(), load(traced=True, requests=3))


def test_policy_and_workers():
    layout = work.with_router(plain(), policy="random_two_least_conn", workers=8)
    assert layout.router.policy == "random_two_least_conn"
    assert (layout.router.shared_zone, layout.router.workers) == (False, 8)
    with pytest.raises(InputError, match=r"router: policy: 'round_robin', 'least_conn'"):
        work.with_router(plain(), policy="fastest", workers=None)


def test_failures_and_slow_replicas_in_words():
    conditions = work.conditions_of(["1@2m-3m", "0@90s"], ["1=1.5"], "30s", replicas=2, duration_s=600)
    assert conditions.cut_s == 630
    assert conditions.outages == (Outage(replica=1, at_s=120, back_s=180), Outage(replica=0, at_s=90))
    assert conditions.slowdown == (1.0, 1.5)
    for fail, slow, sentence in (
        (["2@1m"], [], "there is no replica 2; they are 0-1"),
        (["soon"], [], "write REPLICA@TIME"),
        (["1@3m-2m"], [], "it is back before it dies"),
        ([], ["1"], "write REPLICA=FACTOR"),
        ([], ["7=2"], "there is no replica 7"),
    ):
        with pytest.raises(InputError, match=sentence):
            work.conditions_of(fail, slow, None, replicas=2, duration_s=None)
    with pytest.raises(InputError, match="--drain counts from the end of --duration"):
        work.conditions_of([], [], "30s", replicas=2, duration_s=None)


def test_every_variant_of_the_example_study_runs():
    study = work.read_layout_or_study(EXAMPLE)
    runs = work.simulate_study(study, EXAMPLE.parent)
    names = [run.layout.name for run in runs if not isinstance(run, tuple)]
    assert names == [variant.name for variant in study.variants]
    rate = {run.layout.name: run.summary.output_tokens_per_s for run in runs if not isinstance(run, tuple)}
    assert rate["2xTP2"] > rate["1xTP2"]


def test_a_variant_that_does_not_fit_is_no_end_of_the_study():
    study = work.read_layout_or_study(EXAMPLE)
    small = study.replace(gpu="A10-24GB", box={"gpu": "A10-24GB", "gpus": 4})
    runs = work.simulate_study(small, EXAMPLE.parent, only=["1xTP1", "2xTP2"])
    assert [run[0] for run in runs if isinstance(run, tuple)] == ["1xTP1", "2xTP2"]


def test_a_layouts_file_and_a_kept_run(tmp_path, monkeypatch):
    monkeypatch.setenv("ATOLL_CATALOG", f"sqlite:{tmp_path / 'runs.db'}")
    from atoll.store.folder import read_run

    layout = plain()
    path = tmp_path / "layout.yaml"
    path.write_text(layout.to_yaml())
    assert work.read_layout_or_study(path) == layout
    run = work.simulate_run(layout, load(requests=20))
    assert work.keep_run(run, tmp_path / "kept") is None
    kept = read_run(tmp_path / "kept")
    assert kept.summary == run.summary
    assert kept.table.token_times(7).tolist() == run.table.token_times(7).tolist()


def test_mixed_cards_in_one_replica_are_refused():
    box = plain().box
    mixed = box.replace(gpus=tuple(g.replace(name="A100-SXM-80GB") if g.index == 1 else g for g in box.gpus))
    layout = Layout(name="x", model=MODEL, box=mixed, replicas=(Replica(gpus=(0, 1), tensor_parallel=2),))
    with pytest.raises(InputError, match="cards of several kinds"):
        work.simulate(layout, Workload(users=1, requests=1, prompt=1, output=1))
