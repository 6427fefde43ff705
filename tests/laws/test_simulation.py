"""Simulated runs: many steps at once give exactly what one after another gives, and nothing is lost."""

from dataclasses import dataclass, fields, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.analyse.summary import summarise
from atoll.engines.engine import SchedulerLimits
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.simulate.run import Conditions, Outage, _Simulation, simulate_layout
from atoll.traffic.demand import Demand
from atoll.traffic.record import Outcome, RecordTable
from atoll.traffic.workload import Arrivals, Workload
from stand_ins.cards import small_card

CARD = small_card(max_context=1000)


@dataclass(frozen=True)
class LineTimer:
    """Steps as a straight line in tokens, sequences and context."""

    step: float
    token: float
    sequence: float
    context: float
    front: float = 0.0  # of each request
    front_token: float = 0.0  # and for each prompt token

    def seconds(self, batch):
        tokens = sum(new for new, _ in batch.prefills)
        return self.step + self.token * tokens + self.sequence * batch.decodes + self.context * batch.decode_context

    def decode_seconds(self, decodes, decode_context, steps):
        contexts = decode_context + decodes * np.arange(steps)
        return self.step + self.token * 0 + self.sequence * decodes + self.context * contexts

    def front_seconds(self, prompt_tokens):
        return self.front + self.front_token * prompt_tokens


def box_of(gpus):
    links = tuple(Link(a=a, b=b, kind=LinkKind.SYS) for a in range(gpus) for b in range(a + 1, gpus))
    return Box(gpus=tuple(Gpu(index=index, name="H100-NVL-94GB") for index in range(gpus)), links=links)


BOXES = {n: box_of(n) for n in range(1, 5)}

timers = st.sampled_from(
    [
        LineTimer(1.0, 0.0, 0.0, 0.0),  # every step takes a second: many things happen at the same moment
        LineTimer(0.010, 1e-4, 1e-5, 1e-6),
        LineTimer(0.0123, 7.7e-5, 0.0, 3.3e-7),
        LineTimer(0.5, 0.25, 0.0, 0.0),
        LineTimer(1.0, 0.0, 0.0, 0.0, 1.0),  # the scheduler has a request just when a step ends
        LineTimer(0.010, 1e-4, 1e-5, 1e-6, 0.003, 1e-4),
        LineTimer(0.0123, 7.7e-5, 0.0, 3.3e-7, 0.2),  # many steps later
    ]
)
some_lengths = st.one_of(
    st.integers(1, 60).map(lambda n: {"kind": "fixed", "mean": n}),
    st.integers(2, 80).map(lambda n: {"kind": "lognormal", "mean": n, "sigma": 0.7, "high": 200}),
    st.tuples(st.integers(1, 20), st.integers(0, 80)).map(
        lambda pair: {"kind": "uniform", "mean": 10, "low": pair[0], "high": pair[0] + pair[1]}
    ),
)


@st.composite
def workloads(draw):
    plain = {"prompt": draw(some_lengths), "output": draw(some_lengths), "seed": draw(st.integers(1, 5))}
    if draw(st.booleans()):
        plain |= {"users": draw(st.integers(1, 12)), "turns": draw(st.sampled_from([1, 1, 3]))}
        plain |= {"think": draw(st.sampled_from([0.0, 0.0, 0.7])), "ramp": draw(st.sampled_from([0.0, 2.0]))}
    else:
        plain |= {
            "rate": draw(st.sampled_from([0.5, 5.0, 50.0])),
            "arrivals": draw(st.sampled_from(["poisson", "constant", "bursty"])),
        }
        plain |= {"burstiness": 0.4}
    if draw(st.booleans()):
        plain["duration"] = draw(st.sampled_from([3.0, 20.0]))
        plain["requests"] = 60
    else:
        plain["requests"] = draw(st.integers(1, 40))
    plain["shared_prefix_tokens"] = draw(st.sampled_from([0, 0, 20, 64]))
    return Workload.from_plain(plain, origin="test")


@st.composite
def runs(draw):
    count = draw(st.integers(1, 4))
    router = Router(
        policy=draw(st.sampled_from(list(Policy))), shared_zone=draw(st.booleans()), workers=draw(st.integers(1, 3))
    )
    mode = draw(st.sampled_from(["chunked", "chunked", "whole prompts", "older"]))
    older, whole = mode == "older", mode != "chunked"
    flags = EngineFlags(
        max_num_queued_reqs=draw(st.sampled_from([None, None, 2, 5])), enable_prefix_caching=draw(st.booleans())
    )
    layout = Layout(
        name="x",
        model="small",
        box=BOXES[count],
        replicas=tuple(Replica(gpus=(n,), tensor_parallel=1) for n in range(count)),
        router=router,
        flags=flags,
    )
    limits = SchedulerLimits(
        max_num_seqs=draw(st.sampled_from([1, 3, 16])),
        max_num_batched_tokens=1000 if whole else draw(st.sampled_from([16, 50, 400])),
        chunked_prefill=not whole,
        reserve_full_prompt=draw(st.booleans()),
        prefill_first=older,
        async_scheduling=not older and draw(st.booleans()),
        watermark=0.01 if older else 0.0,
        long_prefill_token_threshold=0 if whole else draw(st.sampled_from([0, 0, 10])),
    )
    outage = draw(st.sampled_from([None, Outage(replica=0, at_s=1.0), Outage(replica=count - 1, at_s=2.0, back_s=2.9)]))
    conditions = Conditions(
        outages=() if outage is None else (outage,),
        slowdown=draw(st.sampled_from([None, (1.5,) + (1.0,) * (count - 1)])),
        cut_s=draw(st.sampled_from([None, None, 4.0])),
    )
    return {
        "layout": layout,
        "card": CARD,
        "workload": draw(workloads()),
        "timers": [draw(timers) for _ in range(count)],
        "kv_blocks": [draw(st.sampled_from([16, 40, 500])) for _ in range(count)],
        "limits": [limits] * count,
        "conditions": conditions,
    }


def assert_same(one: RecordTable, other: RecordTable):
    spans = {"token_clock", "span_row", "span_start", "span_stop"}
    for column in fields(RecordTable):
        if column.name not in spans:
            ours, theirs = getattr(one, column.name), getattr(other, column.name)
            if isinstance(ours, tuple):
                assert ours == theirs, column.name
            else:
                np.testing.assert_array_equal(ours, theirs, err_msg=column.name)
    for row in range(len(one)):
        np.testing.assert_array_equal(one.token_times(row), other.token_times(row))


@settings(max_examples=200, deadline=None)
@given(runs())
def test_many_steps_at_once_are_exactly_one_after_another(run):
    naive = replace(run["conditions"], step_by_step=True)
    assert_same(simulate_layout(**run), simulate_layout(**{**run, "conditions": naive}))


@settings(max_examples=200, deadline=None)
@given(runs())
def test_nothing_is_lost(run):
    parts = dict(run)
    layout, card, workload = parts.pop("layout"), parts.pop("card"), parts.pop("workload")
    simulation = _Simulation(layout, card, Demand(workload), **parts)
    table = simulation.run()
    # Every request that was sent has a row, with an outcome.
    assert list(table.number) == list(range(len(table)))
    outcomes = np.array(table.outcome)
    ok = outcomes == Outcome.OK
    assert all(outcome in set(Outcome) for outcome in table.outcome)
    if workload.requests is not None:
        assert len(table) <= workload.requests
    if run["conditions"].cut_s is None:
        assert not (outcomes == Outcome.CANCELLED).any()
        if workload.duration_s is None:
            assert len(table) == workload.requests
    if workload.duration_s is not None:
        assert (table.sent_s < workload.duration_s).all()
    # Every token of a good answer has its time, later than the one before and than the sending.
    for row in np.flatnonzero(ok):
        times = table.token_times(row)
        assert len(times) == table.output_tokens[row]
        assert (np.diff(times) > 0).all()
        assert times[0] > table.sent_s[row]
        assert times[0] == table.first_token_s[row]
        assert times[-1] == table.last_token_s[row] == table.done_s[row]
    for row in np.flatnonzero(~ok):
        assert len(table.token_times(row)) == table.output_tokens[row] <= 200
    # No KV block is leaked, and nobody is left in an engine.
    for replica in simulation._replicas:
        assert replica.scheduler.pool.free == replica.scheduler.pool.blocks
        assert not replica.scheduler.running
        assert not replica.scheduler.waiting


@settings(max_examples=100, deadline=None)
@given(runs())
def test_summary_adds_up_and_percentiles_rise(run):
    table = simulate_layout(**run)
    summary = summarise(table, workload=run["workload"].replace(warmup_s=1.0))
    counts = summary.requests
    assert counts.sent == counts.ok + counts.failed + counts.cancelled == len(table)
    assert summary.measured == int((table.sent_s >= 1.0).sum())
    for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s"):
        values = getattr(summary, name)
        if values.p50 is not None:
            assert values.p50 <= values.p90 <= values.p95 <= values.p99 <= values.max
    gaps, times = table.gaps(np.ones(len(table), dtype=np.bool_))
    tokens = np.bincount(table.span_row, table.span_stop - table.span_start, minlength=len(table))
    assert times.sum() == np.maximum(tokens - 1, 0).sum()
    assert (gaps > 0).all()


@settings(max_examples=100, deadline=None)
@given(runs())
def test_first_come_first_served(run):
    """One replica, whole prompts, room for all: first tokens come in the order of sending."""
    layout = run["layout"]
    one = layout.replace(box=BOXES[1], replicas=layout.replicas[:1], flags=EngineFlags())
    table = simulate_layout(
        **run
        | {
            "layout": one,
            "kv_blocks": [5000],
            "timers": run["timers"][:1],
            "limits": [replace(run["limits"][0], long_prefill_token_threshold=0)],
            "conditions": Conditions(),
        }
    )
    ok = np.array(table.outcome) == Outcome.OK
    assert (np.diff(table.first_token_s[ok]) >= 0).all()


def test_same_seed_same_run_other_seed_another():
    layout = Layout(name="x", model="small", box=BOXES[1], replicas=(Replica(gpus=(0,), tensor_parallel=1),))
    workload = Workload(
        users=5,
        start="at_once",
        requests=30,
        prompt=20,
        output={"kind": "lognormal", "mean": 30, "sigma": 0.5},
        arrivals=Arrivals.CLOSED,
    )
    setting = {"timers": [LineTimer(0.01, 1e-4, 1e-5, 1e-6)], "kv_blocks": [500], "limits": [SchedulerLimits()]}
    one = simulate_layout(layout, CARD, workload, **setting)
    assert_same(one, simulate_layout(layout, CARD, workload, **setting))
    other = simulate_layout(layout, CARD, workload.replace(seed=2), **setting)
    assert list(one.output_tokens) != list(other.output_tokens)
