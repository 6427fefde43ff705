"""What the summary promises, on runs small enough to add up by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.analyse import Summary, latencies, summarise
from atoll.analyse.summary import distribution, weighted_distribution
from atoll.traffic import Outcome, Record, RecordTable, TokenSource
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload


def ok(number, sent, tokens, *, user=0, replica="0", prompt=10, due=None, output=None):
    return Record(
        number=number, user=user, sent_s=sent, due_s=due, first_byte_s=sent + 0.01, token_s=tokens, done_s=tokens[-1],
        prompt_tokens=prompt, output_tokens=len(tokens) if output is None else output, status=200, replica=replica,
    )  # fmt: skip


def failed(number, sent, *, error="http_503", user=0, replica=None):
    return Record(
        number=number, user=user, sent_s=sent, done_s=sent + 0.5, outcome=Outcome.FAILED, error=error, replica=replica
    )


def test_one_request_has_the_measures_of_the_definitions():
    summary = summarise(RecordTable.from_records([ok(0, 1.0, [1.5, 1.6, 1.9])]))
    assert summary.ttft_s.p50 == pytest.approx(0.5)
    assert summary.tpot_s.mean == pytest.approx((1.9 - 1.5) / 2)
    assert summary.itl_s.mean == pytest.approx(0.2)
    assert summary.itl_s.max == pytest.approx(0.3)
    assert summary.e2e_s.max == pytest.approx(0.9)
    assert summary.duration_s == pytest.approx(0.9)
    assert summary.output_tokens_per_s == pytest.approx(3 / 0.9)
    assert summary.total_tokens_per_s == pytest.approx(13 / 0.9)


def test_failed_and_cancelled_requests_are_counted_and_leave_the_percentiles_alone():
    cancelled = Record(number=2, user=2, sent_s=0.2, outcome=Outcome.CANCELLED, token_s=[0.9])
    table = RecordTable.from_records([ok(0, 0.0, [0.1, 0.2]), failed(1, 0.1), cancelled])
    summary = summarise(table)
    assert summary.requests.model_dump() == {"sent": 3, "ok": 1, "failed": 1, "cancelled": 1}
    assert summary.errors == {"http_503": 1}
    assert summary.ttft_s.max == pytest.approx(0.1)


def test_requests_sent_in_the_warm_up_are_counted_and_leave_the_percentiles_alone():
    load = Workload(users=2, warmup_s=1.0)
    summary = summarise(RecordTable.from_records([ok(0, 0.0, [5.0]), ok(1, 2.0, [2.1])]), workload=load)
    assert (summary.requests.sent, summary.measured, summary.measured_from_s) == (2, 1, 1.0)
    assert summary.ttft_s.max == pytest.approx(0.1)


def test_open_loop_latency_counts_from_the_due_time():
    summary = summarise(RecordTable.from_records([ok(0, 3.0, [3.5, 3.6], due=1.0)]))
    assert summary.ttft_s.p50 == pytest.approx(2.5)
    assert summary.e2e_s.p50 == pytest.approx(2.6)


def test_an_answer_of_one_token_has_no_time_per_output_token():
    summary = summarise(RecordTable.from_records([ok(0, 0.0, [0.5])]))
    assert summary.tpot_s.mean is None
    assert summary.itl_s.mean is None


def test_nothing_sent_gives_a_summary_of_nothing():
    summary = summarise(RecordTable.from_records([]))
    assert summary.requests.sent == 0
    assert summary.ttft_s.p50 is None
    assert summary.output_tokens_per_s == 0


def test_replicas_are_summed_up_one_by_one_in_number_order():
    rows = [ok(0, 0.0, [1.0], replica="10"), ok(1, 0.0, [2.0], replica="2"), failed(2, 0.0, replica="2")]
    parts = summarise(RecordTable.from_records(rows)).per_replica
    assert [part.replica for part in parts] == ["2", "10"]
    assert parts[0].requests.failed == 1


def test_goodput_counts_requests_that_kept_every_promise():
    rows = [ok(0, 0.0, [0.1, 0.2]), ok(1, 0.0, [0.1, 0.9]), ok(2, 0.0, [2.0, 2.1]), failed(3, 0.0)]
    goodput = summarise(RecordTable.from_records(rows), slo=SLO(ttft_s=1.0, tpot_s=0.5)).goodput
    assert goodput.good == 1
    assert goodput.share == pytest.approx(1 / 4)


def test_tokens_counted_from_chunks_are_said():
    record = Record(
        number=0, user=0, sent_s=0.0, token_s=[0.1, 0.2], done_s=0.2, output_tokens=2, token_source=TokenSource.CHUNKS
    )
    assert summarise(RecordTable.from_records([record])).counted_from_chunks == 1


def test_rates_leave_out_what_arrives_after_the_last_sending():
    """Sent at 0, 2 and 4 s: five of eight tokens arrive within those 4 s, all of one answer, half of another, none of one.

    A request, and its prompt of ten tokens, count for as much of the answer as came.
    """
    rows = [ok(0, 0.0, [0.5, 1.0, 1.5, 2.0]), ok(1, 2.0, [2.5, 5.0]), ok(2, 4.0, [4.5, 6.0])]
    summary = summarise(RecordTable.from_records(rows))
    assert summary.output_tokens_per_s == pytest.approx(5 / 4)
    assert summary.requests_per_s == pytest.approx(1.5 / 4)
    assert summary.total_tokens_per_s == pytest.approx(5 / 4 + 15 / 4)
    assert summary.per_replica[0].output_tokens_per_s == summary.output_tokens_per_s


def test_where_all_is_sent_within_one_answer_the_rate_is_of_the_whole_run():
    rows = [ok(0, 0.0, [0.5, 1.0, 1.5, 2.0]), ok(1, 1.0, [1.25, 5.0])]
    assert summarise(RecordTable.from_records(rows)).output_tokens_per_s == pytest.approx(6 / 5)


def test_summaries_of_before_are_read_with_their_steady_rate():
    old = summarise(RecordTable.from_records([ok(0, 1.0, [1.5, 1.6, 1.9])])).to_plain()
    for name in ("measured", "measured_from_s", "too_short", "notes"):
        del old[name]
    read = Summary.from_plain(old | {"steady_output_tokens_per_s": 7.0}, origin="summary.json")
    assert (read.output_tokens_per_s, read.measured) == (7.0, 1)


def test_spans_that_share_a_clock_give_the_gaps_of_every_request():
    """Three requests in one batch: a simulated run keeps one clock for all of them."""
    table = RecordTable.from_records([ok(i, 0.0, [1.0]) for i in range(3)])
    clock = np.array([1.0, 1.1, 1.3, 1.6])
    shared = RecordTable(
        **{name: getattr(table, name) for name in table.__slots__ if not name.startswith(("token_clock", "span"))},
        token_clock=clock, span_row=np.array([0, 1, 2, 2]), span_start=np.array([0, 1, 0, 3]),
        span_stop=np.array([4, 3, 2, 4]),
    )  # fmt: skip
    values, weights = shared.gaps(np.array([True, True, True]))
    gaps = sorted(np.repeat(values, weights))
    # row 0: .1 .2 .3; row 1: .2; row 2 (preempted after two tokens): .1 and 1.6 - 1.1
    assert gaps == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.5])


values_strategy = st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 5)), min_size=1, max_size=40)


@settings(max_examples=150)
@given(values_strategy)
def test_a_weighted_distribution_is_that_of_the_repeated_values(pairs):
    values, weights = np.array([v for v, _ in pairs]), np.array([w for _, w in pairs])
    expected, found = distribution(np.repeat(values, weights)), weighted_distribution(values, weights)
    for name in ("mean", "p50", "p90", "p95", "p99", "max"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9, abs=1e-9)


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1e4), min_size=1))
def test_percentiles_never_fall(values):
    found = distribution(np.array(values))
    ordered = [found.p50, found.p90, found.p95, found.p99, found.max]
    assert ordered == sorted(ordered)


def test_latencies_of_a_request_without_tokens_are_unknown():
    measures = latencies(RecordTable.from_records([failed(0, 1.0)]))
    assert np.isnan(measures.ttft_s[0])
    assert np.isnan(measures.tpot_s[0])


def test_models_may_have_targets_of_their_own():
    def request(number, model, first_s):
        times = {"sent_s": 0.0, "token_s": (first_s, 3.0), "done_s": 3.0}
        return Record(number=number, user=number, model=model, output_tokens=2, **times)

    table = RecordTable.from_records(
        [request(0, "large", 0.8), request(1, "large", 1.5), request(2, "small", 0.1), request(3, "small", 0.8)]
    )
    summary = summarise(table, slo=SLO(ttft_s=1.0), model_slos={"small": SLO(ttft_s=0.2)})
    assert (summary.goodput.good, summary.goodput.share) == (2, 0.5)
    large, small = (part.goodput for part in summary.per_model)
    assert (large.good, large.slo_ttft_s, small.good, small.slo_ttft_s) == (1, 1.0, 1, 0.2)
    alone = summarise(table, model_slos={"small": SLO(ttft_s=0.2)})
    assert (alone.goodput.good, alone.per_model[0].goodput) == (3, None)
    assert Summary.parse(summary.to_json(), origin="x") == summary
