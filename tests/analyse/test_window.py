"""What of a run is measured, and whether its users march in step."""

import numpy as np
import pytest

from atoll.analyse.lockstep import swing_of
from atoll.analyse.summary import summarise
from atoll.analyse.window import window_of
from atoll.inventory.catalog import make_box
from atoll.layout.layout import Layout, Replica
from atoll.traffic import Record, RecordTable
from atoll.traffic.workload import Workload
from atoll.workflows.simulate import simulate, simulate_run

MODEL = "Qwen/Qwen2.5-32B-Instruct"


def answered(*spans, user=0):
    return [Record(number=0, user=user, sent_s=a, done_s=b, token_s=[b], output_tokens=1) for a, b in spans]


# User 0 sends at 0, 2, 4, 6; user 1 at 1, 4, 5, 7: the first round is over at 4 s.
ROWS = answered((0, 2), (2, 4), (4, 6), (6, 8)) + answered((1, 4), (4, 5), (5, 7), (7, 9), user=1)
TABLE = RecordTable.from_records(sorted(ROWS, key=lambda record: record.sent_s))


def start_of(**load):
    return window_of(TABLE, Workload(users=2, requests=8, **load)).start_s


def test_a_closed_loop_is_measured_from_the_end_of_its_first_round():
    assert start_of() == start_of(start=1.0) == 4.0
    summary = summarise(TABLE, workload=Workload(users=2, requests=8))
    assert (summary.requests.sent, summary.measured, summary.measured_from_s) == (8, 5, 4.0)
    assert summary.notes == ()


def test_a_warm_up_wins_and_at_once_leaves_nothing_out():
    assert start_of(warmup_s=1.5) == 1.5
    assert start_of(warmup_s=0.0) == start_of(start="at_once") == 0.0
    assert window_of(TABLE, Workload(rate=1.0, requests=8)).start_s == 0.0
    assert window_of(TABLE, None).rows(TABLE).all()


def test_a_run_that_is_too_short_counts_all_and_says_so():
    short = RecordTable.from_records(answered((0, 2), (2, 3)) + answered((1, 4), user=1))
    for load in (Workload(users=2, requests=3), Workload(users=9, requests=3)):  # all in the first round; users unsent
        summary = summarise(short, workload=load)
        assert (summary.measured, summary.too_short) == (3, True)
        assert "too short to leave out its first round" in summary.notes[0]


def test_pieces_of_a_resumed_run_have_windows_of_their_own():
    rows = window_of(TABLE, Workload(users=2, requests=8), spans=[(0.5, 2.5), (5, 9)]).rows(TABLE)
    assert TABLE.sent_s[rows].tolist() == [1, 2, 5, 6, 7]


def sendings(phases, cycles=10, jitter=0.0):
    """Users who send once a second, each at a phase of its own."""
    rng = np.random.default_rng(1)
    rows = [
        Record(number=0, user=user, sent_s=cycle + phase + jitter * rng.random(), done_s=cycle + 1.0)
        for cycle in range(cycles)
        for user, phase in enumerate(phases)
    ]
    return RecordTable.from_records(sorted(rows, key=lambda record: record.sent_s))


@pytest.mark.parametrize(("part", "swing"), [(0.0, 1.0), (0.25, 0.81), (0.5, 0.405), (1.0, 0.0)])
def test_the_swing_of_users_who_send_within_a_part_of_the_cycle(part, swing):
    table = sendings(np.linspace(0, part, 100, endpoint=False))
    assert swing_of(table, np.ones(len(table), dtype=bool)) == pytest.approx(swing, abs=0.02)


def test_two_rounds_of_users_who_march_tell_it():
    """The second burst is over long before the run is; what counts is for how long they could have sent."""
    table = sendings(np.linspace(0, 0.3, 60, endpoint=False), cycles=2)
    assert table.sent_s.max() < 1.3
    assert swing_of(table, np.ones(len(table), dtype=bool)) == pytest.approx(0.737, abs=0.02)


def test_few_users_who_come_evenly_are_not_taken_to_march():
    for users in (3, 4, 8):
        table = sendings(np.arange(users) / users)
        assert swing_of(table, np.ones(len(table), dtype=bool)) < 0.01


def test_what_cannot_be_told_is_none():
    for table in (sendings([0.1, 0.5]), sendings(np.arange(5) / 5, cycles=1)):
        assert swing_of(table, np.ones(len(table), dtype=bool)) is None
    assert summarise(TABLE, workload=Workload(rate=1.0, requests=8)).in_step is None


def layout_of(replicas):
    groups = [(2 * n, 2 * n + 1) for n in range(replicas)]
    return Layout(
        name="x", model=MODEL, box=make_box("H100-NVL-94GB", 2 * replicas),
        replicas=tuple(Replica(gpus=group, tensor_parallel=2) for group in groups),
    )  # fmt: skip


LOAD = Workload(users=30, prompt=1024, output=128, duration="60s")


@pytest.mark.parametrize("replicas", [1, 2])
def test_users_who_begin_at_once_with_one_length_march_for_ever_and_it_is_said(replicas):
    at_once = simulate_run(layout_of(replicas), LOAD.replace(start="at_once")).summary
    spread = simulate_run(layout_of(replicas), LOAD).summary
    assert at_once.marches_in_step
    assert "march in step" in at_once.notes[0]
    low, high = round(0.8 * LOAD.output.mean), round(1.2 * LOAD.output.mean)
    assert f"(--output {low}-{high})" in at_once.notes[0]  # around the load's own length
    assert at_once.ttft_s.p50 > 3 * spread.ttft_s.p50
    assert spread.in_step < 0.2
    assert spread.notes == ()


def test_users_who_were_spread_and_march_all_the_same_are_told_to_run_longer_not_to_spread():
    short, long = (simulate_run(layout_of(1), LOAD.replace(duration_s=seconds)).summary for seconds in (15.0, 40.0))
    (said,) = (note for note in short.notes if "march in step" in note)
    assert "let it last longer" in said
    assert "--start spread" not in said
    assert long.notes == ()  # the advice is good


def test_varied_lengths_get_out_of_step_by_themselves():
    load = LOAD.replace(start="at_once", output={"kind": "uniform", "mean": 128, "low": 64, "high": 192})
    assert not simulate_run(layout_of(1), load).summary.marches_in_step


def test_users_of_a_layout_start_over_the_answer_that_is_predicted():
    table = simulate(layout_of(2), LOAD)
    first = np.array([table.sent_s[table.user == user].min() for user in range(30)])
    answer = float(np.median(table.done_s - table.sent_s))
    assert np.diff(first) == pytest.approx(np.full(29, first[1]))
    assert first[-1] * 30 / 29 == pytest.approx(answer, rel=0.15)
