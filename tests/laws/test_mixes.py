"""Everything at once: sessions and shared heads in a cache too small for them, full queues, deaths, every policy.

The laws of test_simulation.py draw from all of this, but rarely at the same time. Here each case is heavy on purpose,
and the last test makes sure that what is meant to happen does.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from atoll.analyse.summary import summarise
from atoll.cost.step import StepBatch
from atoll.engines.engine import SchedulerLimits
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.simulate.run import Conditions, Outage, _Simulation
from atoll.traffic.demand import Demand
from atoll.traffic.record import Outcome, RecordTable
from atoll.traffic.workload import Workload
from stand_ins.cards import small_card

CARD = small_card(max_context=2000)
CASES = range(36)


@dataclass(frozen=True)
class Timer:
    """Seconds that rise with prompts, sequences and context; the scheduler has a request a while later."""

    front_s: float = 0.003
    context_s: float = 1e-6

    def seconds(self, batch: StepBatch) -> float:
        chunks = sum(new for new, _ in batch.prefills)
        return 0.010 + 1e-4 * chunks + 1e-4 * batch.decodes + self.context_s * batch.decode_context

    def decode_seconds(self, decodes: int, decode_context: int, steps: int) -> np.ndarray:
        # The same sum in the same order as above, with no chunk in it.
        contexts = decode_context + decodes * np.arange(steps)
        return 0.010 + 1e-4 * 0 + 1e-4 * decodes + self.context_s * contexts

    def front_seconds(self, prompt_tokens: float) -> float:
        return self.front_s + 2e-5 * prompt_tokens


def layout_of(case: int, rng: np.random.Generator) -> Layout:
    count = int(rng.integers(1, 4))
    return Layout(
        name="x",
        model="small",
        box=Box(
            gpus=tuple(Gpu(index=n, name="H100-NVL-94GB") for n in range(count)),
            links=tuple(Link(a=a, b=b, kind=LinkKind.SYS) for a in range(count) for b in range(a + 1, count)),
        ),
        replicas=tuple(Replica(gpus=(n,), tensor_parallel=1) for n in range(count)),
        router=Router(policy=list(Policy)[case % len(Policy)], shared_zone=case % 4 != 0, workers=1 + case % 3),
        flags=EngineFlags(max_num_queued_reqs=[None, None, 4, 9][int(rng.integers(4))]),
    )


def parts_of(case: int) -> dict[str, object]:
    """Tight memory, many users in sessions under a shared head, and now and then a replica that dies and comes back."""
    rng = np.random.default_rng(case)
    layout = layout_of(case, rng)
    count, mode = len(layout.replicas), case % 3
    limits = SchedulerLimits(
        max_num_seqs=int(rng.choice([4, 12, 40])),
        max_num_batched_tokens=2000 if mode else int(rng.choice([32, 100, 300])),
        chunked_prefill=mode == 0,
        prefill_first=mode == 2,
        async_scheduling=mode != 2 and bool(rng.integers(2)),
        reserve_full_prompt=bool(rng.integers(2)),
        watermark=0.01 if mode == 2 else 0.0,
    )
    workload = Workload(
        users=int(rng.integers(8, 30)),
        start="at_once",
        requests=150,
        turns=int(rng.choice([1, 3])),
        think_s=float(rng.choice([0.0, 0.05])),
        prompt={"kind": "lognormal", "mean": 60, "sigma": 0.7, "high": 200},
        output={"kind": "uniform", "mean": 60, "low": 1, "high": 120},
        shared_prefix_tokens=int(rng.choice([0, 40])),
        seed=case + 1,
    )
    outages = (Outage(replica=count - 1, at_s=1.0, back_s=2.5),) if case % 2 else ()
    return {
        "layout": layout,
        "demand": workload,
        "timers": [Timer(front_s=0.3, context_s=5e-5) if case % 4 == 1 else Timer()] * count,
        "kv_blocks": [int(rng.choice([60, 90, 200])) for _ in range(count)],
        "limits": [limits] * count,
        "conditions": Conditions(outages=outages),
    }


@cache
def simulated(case: int, *, step_by_step: bool = False) -> tuple[_Simulation, RecordTable]:
    parts = parts_of(case)
    conditions = replace(parts.pop("conditions"), step_by_step=step_by_step)
    layout, workload = parts.pop("layout"), parts.pop("demand")
    simulation = _Simulation(layout, CARD, Demand(workload), conditions=conditions, **parts)
    return simulation, simulation.run()


@pytest.mark.parametrize("case", CASES)
def test_many_steps_at_once_are_exactly_one_after_another(case):
    (fast, one), (slow, other) = simulated(case), simulated(case, step_by_step=True)
    for name in ("sent_s", "first_token_s", "last_token_s", "done_s", "output_tokens", "cached_tokens", "status"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.replica, one.outcome, one.error) == (other.replica, other.outcome, other.error)
    for row in range(len(one)):
        np.testing.assert_array_equal(one.token_times(row), other.token_times(row))
    assert counters(fast) == counters(slow)


@pytest.mark.parametrize("case", CASES)
def test_no_request_is_lost_and_no_block_is_leaked(case):
    simulation, table = simulated(case)
    assert list(table.number) == list(range(150))
    outcomes = Counter(table.outcome)
    assert outcomes[Outcome.OK] + outcomes[Outcome.FAILED] == 150
    for row in np.flatnonzero(np.array(table.outcome) == Outcome.OK):
        times = table.token_times(row)
        assert len(times) == table.output_tokens[row]
        assert (np.diff(times) > 0).all()
        assert times[0] > table.sent_s[row] + 0.003
    assert (table.cached_tokens < table.prompt_tokens).all()
    for replica in simulation._replicas:
        assert replica.scheduler.pool.free == replica.scheduler.pool.blocks
        assert not replica.scheduler.running
        assert not replica.scheduler.waiting


@pytest.mark.parametrize("case", CASES)
def test_percentiles_rise_and_counts_add_up(case):
    summary = summarise(simulated(case)[1])
    assert summary.requests.sent == summary.requests.ok + summary.requests.failed == 150
    assert sum(part.requests.sent for part in summary.per_replica) <= 150
    for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s"):
        spread = getattr(summary, name)
        assert spread.p50 <= spread.p90 <= spread.p95 <= spread.p99 <= spread.max


def counters(simulation: _Simulation) -> list[tuple[int, int, int]]:
    schedulers = [replica.scheduler for replica in simulation._replicas]
    return [(one.preemptions, one.prefix_queries, one.prefix_hits) for one in schedulers]


def test_what_is_meant_to_happen_does():
    """Else these cases would prove nothing."""
    preempting = caching = 0
    errors: Counter[str | None] = Counter()
    for case in CASES:
        simulation, table = simulated(case)
        preempting += any(preemptions for preemptions, _, _ in counters(simulation))
        caching += bool(table.cached_tokens.any())
        errors.update(set(table.error))
    assert preempting > len(CASES) / 3
    assert caching > len(CASES) / 3
    assert {"connection_reset", "http_502", "http_503"} <= set(errors)
