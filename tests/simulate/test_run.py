"""Whole runs in virtual time, small enough to reckon by hand. A step takes a second, whatever it computes."""

import numpy as np
import pytest

from atoll.engines.engine import SchedulerLimits
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.simulate.run import Conditions, Outage, simulate_layout
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Lengths, Workload
from stand_ins.cards import small_card

CARD = small_card(max_context=1000)


class Second:
    """Every step takes a second, or as long as it is told; the scheduler has a request at once, or later."""

    def __init__(self, step_s=1.0, front_s=0.0):
        self.step_s = step_s
        self.front_s = front_s

    def seconds(self, batch):
        return self.step_s

    def decode_seconds(self, decodes, decode_context, steps):
        return np.full(steps, self.step_s)

    def front_seconds(self, prompt_tokens):
        return self.front_s


def layout_of(replicas, *, policy=Policy.ROUND_ROBIN, router=None, **flags):
    links = tuple(Link(a=a, b=b, kind=LinkKind.SYS) for a in range(replicas) for b in range(a + 1, replicas))
    return Layout(
        name="x",
        model="small",
        box=Box(gpus=tuple(Gpu(index=n, name="H100-NVL-94GB") for n in range(replicas)), links=links),
        replicas=tuple(Replica(gpus=(n,), tensor_parallel=1) for n in range(replicas)),
        router=router or Router(policy=policy),
        flags=EngineFlags(**flags),
    )


def simulate(layout, workload, *, blocks=1000, trace=(), conditions=None, timers=None, **limits):
    count = len(layout.replicas)
    limits = {"async_scheduling": False} | limits
    return simulate_layout(
        layout,
        CARD,
        workload,
        timers=timers or [Second()] * count,
        kv_blocks=[blocks] * count,
        limits=[SchedulerLimits(**limits)] * count,
        trace=trace,
        conditions=conditions or Conditions(),
    )


def test_one_user_asks_again_when_the_answer_has_ended():
    table = simulate(layout_of(1), Workload(users=1, requests=3, prompt=10, output=4))
    assert table.sent_s.tolist() == [0.0, 4.0, 8.0]
    assert table.first_token_s.tolist() == [1.0, 5.0, 9.0]
    assert table.last_token_s.tolist() == [4.0, 8.0, 12.0]
    assert table.token_times(1).tolist() == [5.0, 6.0, 7.0, 8.0]
    assert table.outcome == ("ok",) * 3
    assert table.replica == ("0",) * 3


def test_thinking_users_pause():
    table = simulate(layout_of(1), Workload(users=1, requests=2, prompt=10, output=4, think_s=2.5))
    assert table.sent_s.tolist() == [0.0, 6.5]


def test_users_come_in_over_the_ramp():
    table = simulate(layout_of(1), Workload(users=4, requests=4, prompt=10, output=4, start=2))
    assert table.sent_s.tolist() == [0.0, 0.5, 1.0, 1.5]
    # The first is alone in its step; who comes during a step joins the next one.
    assert table.first_token_s.tolist() == [1.0, 2.0, 2.0, 3.0]


def test_scheduling_ahead_takes_a_newcomer_one_step_later():
    ramp = Workload(users=2, requests=2, prompt=10, output=9, start=3)
    assert simulate(layout_of(1), ramp).first_token_s.tolist() == [1.0, 3.0]
    assert simulate(layout_of(1), ramp, async_scheduling=True).first_token_s.tolist() == [1.0, 4.0]


def test_no_request_is_sent_after_the_duration_but_sent_ones_finish():
    table = simulate(layout_of(1), Workload(users=1, duration_s=9, prompt=10, output=4))
    assert table.sent_s.tolist() == [0.0, 4.0, 8.0]
    assert table.done_s.tolist() == [4.0, 8.0, 12.0]


def test_a_cut_cancels_what_is_under_way():
    table = simulate(
        layout_of(1), Workload(users=1, duration_s=9, prompt=10, output=4), conditions=Conditions(cut_s=10.5)
    )
    assert table.outcome == ("ok", "ok", "cancelled")
    assert table.output_tokens.tolist() == [4, 4, 2]
    assert table.token_times(2).tolist() == [9.0, 10.0]
    assert np.isnan(table.done_s[2])


def test_round_robin_takes_turns_and_least_conn_looks():
    long_and_short = [
        TraceRow(due_s=s, prompt_tokens=10, output_tokens=n) for s, n in ((0, 50), (0, 2), (5, 2), (6, 2))
    ]
    workload = Workload(arrivals="trace", prompt=1, output=1)
    by_turns = simulate(layout_of(2), workload, trace=long_and_short)
    assert by_turns.replica == ("0", "1", "0", "1")
    looking = simulate(layout_of(2, policy=Policy.LEAST_CONN), workload, trace=long_and_short)
    assert looking.replica == ("0", "1", "1", "1")


def test_open_loop_latency_counts_from_the_due_time():
    workload = Workload(rate=0.5, arrivals="constant", requests=3, prompt=10, output=2)
    table = simulate(layout_of(1), workload)
    assert table.due_s.tolist() == table.sent_s.tolist() == [2.0, 4.0, 6.0]


def test_a_request_reaches_the_scheduler_after_its_time_in_the_api_server():
    """Alone: 0.25 s, then a step of a second for each token. The second user finds a step under way and waits it out."""
    workload = Workload(users=2, requests=2, start=1, prompt=10, output=2)
    table = simulate(layout_of(1), workload, timers=[Second(front_s=0.25)])
    assert table.sent_s.tolist() == [0.0, 0.5]
    assert table.first_token_s.tolist() == [1.25, 2.25]


def test_a_request_on_its_way_through_the_api_server_dies_with_it_and_counts_as_queued():
    layout = layout_of(1, max_num_queued_reqs=1)
    workload = Workload(users=2, requests=2, prompt=10, output=2, start="at_once")
    outage = Conditions(outages=(Outage(replica=0, at_s=0.2),))
    table = simulate(layout, workload, timers=[Second(front_s=0.25)], conditions=outage)
    assert table.error == ("connection_reset", "http_503")


def test_a_full_queue_is_tried_elsewhere_and_then_told():
    layout = layout_of(2, max_num_queued_reqs=2)
    workload = Workload(users=7, requests=7, prompt=10, output=5, start="at_once")
    table = simulate(layout, workload, max_num_seqs=1)
    # One runs and one waits on each; of the others, each was refused twice.
    assert table.outcome == ("ok",) * 4 + ("failed",) * 3
    assert set(table.error[4:]) == {"http_503"}
    assert table.status[4:].tolist() == [503] * 3


def test_a_refused_user_pauses_ever_longer():
    layout = layout_of(1, max_num_queued_reqs=1, max_model_len=100)
    workload = Workload(users=1, requests=6, prompt=99, output=2)
    table = simulate(layout, workload)
    assert set(table.error) == {"http_400"}
    assert np.diff(table.sent_s) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])


def test_a_dying_replica_loses_its_requests_and_the_other_takes_over():
    outage = Outage(replica=0, at_s=2.5, back_s=20.0)
    table = simulate(
        layout_of(2),
        Workload(users=2, duration_s=30, prompt=10, output=4, start="at_once"),
        conditions=Conditions(outages=(outage,)),
    )
    assert table.outcome[0] == "failed"
    assert table.error[0] == "connection_reset"
    assert table.output_tokens[0] == 2
    assert table.done_s[0] == 2.5
    assert sum(outcome == "failed" for outcome in table.outcome) == 1
    during = [r for r, sent in zip(table.replica, table.sent_s, strict=True) if 2.5 < sent < 20]
    assert set(during) == {"1"}
    # nginx had left it alone for fail_timeout after each refusal; then it serves again.
    assert "0" in [r for r, sent in zip(table.replica, table.sent_s, strict=True) if sent > 25]


def test_with_no_replica_up_users_get_502():
    table = simulate(
        layout_of(1),
        Workload(users=1, duration_s=6, prompt=10, output=4),
        conditions=Conditions(outages=(Outage(replica=0, at_s=1.5),)),
    )
    assert table.error[0] == "connection_reset"
    assert set(table.error[1:]) == {"http_502"}


def test_after_a_warm_up_all_users_begin_at_once():
    lengths = Lengths(kind="uniform", mean=6, low=2, high=10)
    table = simulate(
        layout_of(1),
        Workload(users=3, requests=9, prompt=10, output=lengths, seed=3, start="at_once"),
        conditions=Conditions(warm_up_rounds=2),
    )
    assert max(table.last_token_s[:6]) == pytest.approx(table.sent_s[6])
    assert list(table.sent_s[6:9]) == [table.sent_s[6]] * 3
    assert sorted(table.user[6:9]) == [0, 1, 2]
    assert len(table) == 9


def test_a_slow_replica_takes_longer():
    table = simulate(
        layout_of(2),
        Workload(users=2, requests=2, prompt=10, output=4, start="at_once"),
        conditions=Conditions(slowdown=(1.0, 1.5)),
    )
    assert table.done_s.tolist() == [4.0, 6.0]


def test_the_older_engine_stops_decodes_while_it_computes_a_prompt():
    trace = [
        TraceRow(due_s=0.0, prompt_tokens=10, output_tokens=6),
        TraceRow(due_s=2.5, prompt_tokens=10, output_tokens=2),
    ]
    table = simulate(
        layout_of(1),
        Workload(arrivals="trace", prompt=1, output=1),
        trace=trace,
        prefill_first=True,
        chunked_prefill=False,
    )
    assert table.token_times(0).tolist() == [1.0, 2.0, 3.0, 5.0, 6.0, 7.0]
    assert table.token_times(1).tolist() == [4.0, 5.0]
    gaps, times = table.gaps(np.array([True, False]))
    assert sorted(np.repeat(gaps, times).tolist()) == [1.0, 1.0, 1.0, 1.0, 2.0]


def test_turns_of_a_session_find_their_history_in_the_cache():
    workload = Workload(users=1, requests=3, prompt=100, output=28, turns=3)
    table = simulate(layout_of(1), workload)
    assert table.prompt_tokens.tolist() == [100, 228, 356]
    # 100 + 28 tokens, of which the last is not in the cache: 7 whole blocks; then 255 tokens: 15.
    assert table.cached_tokens.tolist() == [0, 112, 240]
    assert simulate(layout_of(1, enable_prefix_caching=False), workload).cached_tokens.tolist() == [0, 0, 0]


def test_prefix_affinity_finds_what_round_robin_misses():
    workload = Workload(users=3, requests=30, prompt=100, output=28, turns=5, start="at_once")
    cached = {
        policy: int(simulate(layout_of(2, policy=policy), workload).cached_tokens.sum())
        for policy in (Policy.ROUND_ROBIN, Policy.PREFIX_AFFINITY)
    }
    assert cached[Policy.PREFIX_AFFINITY] > 1.5 * cached[Policy.ROUND_ROBIN]


def test_a_head_that_all_share_is_computed_once():
    workload = Workload(users=4, requests=4, prompt=100, output=5, shared_prefix_tokens=50, start="at_once")
    assert simulate(layout_of(1), workload).cached_tokens.tolist() == [0, 48, 48, 48]


def test_without_a_zone_workers_send_all_to_the_first():
    router = Router(policy=Policy.LEAST_CONN, shared_zone=False, workers=64)
    table = simulate(layout_of(2, router=router), Workload(users=8, requests=8, prompt=10, output=50, start="at_once"))
    assert table.replica.count("0") >= 6
    shared = simulate(
        layout_of(2, policy=Policy.LEAST_CONN), Workload(users=8, requests=8, prompt=10, output=50, start="at_once")
    )
    assert shared.replica.count("0") == 4


def test_an_empty_run_is_a_table_without_rows():
    table = simulate(layout_of(1), Workload(rate=0.1, arrivals="constant", duration_s=5, prompt=1, output=1))
    assert len(table) == 0


@pytest.mark.parametrize("step_by_step", [False, True])
def test_who_cannot_join_a_full_step_joins_the_one_scheduled_when_the_last_of_the_others_begins(step_by_step):
    """Two decodes fill the budget. The step of the first one's last token begins at 4.0, and the one from 5.0 on is
    scheduled then: who came by that time is in it, who came later in the next. Two tokens of prompt take two steps."""
    trace = [TraceRow(due_s=0.0, prompt_tokens=1, output_tokens=5)] * 2
    seen = {}
    for due in (2.5, 4.0, 4.5):
        late = TraceRow(due_s=due, prompt_tokens=2, output_tokens=2)
        table = simulate(
            layout_of(1),
            Workload(arrivals="trace", prompt=1, output=1),
            trace=[*trace, late],
            conditions=Conditions(step_by_step=step_by_step),
            max_num_batched_tokens=2,
            async_scheduling=True,
        )
        seen[due] = table.token_times(2).tolist()
    assert seen == {2.5: [7.0, 8.0], 4.0: [7.0, 8.0], 4.5: [8.0, 9.0]}
