"""Aggregates behind the charts."""

from types import SimpleNamespace

import numpy as np

from atoll.report.series import POINTS, in_flight, quantiles, tokens_over_run, waits_over_run
from atoll.report.view import RunView


def test_a_long_run_is_shown_by_few_points_and_the_worst_waits_are_among_them(make_records):
    table = make_records(wait_s=0.5, step_s=0.01, replicas=1, count=3000)
    waits = waits_over_run(RunView(name="long", table=table))
    assert len(waits.ttft_s) <= POINTS
    assert np.isclose(waits.ttft_s.max(), np.nanmax(table.first_token_s - table.sent_s))
    assert np.all(np.diff(waits.middle_s) > 0)
    assert np.all(waits.p95_s >= waits.p50_s)


def test_rolling_percentiles_are_those_of_their_window(make_records):
    table = make_records(wait_s=0.5, step_s=0.01, replicas=1, count=200)
    waits = waits_over_run(RunView(name="run", table=table))
    middle = waits.middle_s[20]
    half = (table.sent_s[-1] - table.sent_s[0]) / 20
    inside = np.abs(table.sent_s - middle) <= half
    ttft = (table.first_token_s - table.sent_s)[inside]
    assert np.isclose(waits.p50_s[20], np.quantile(ttft, 0.5))
    assert np.isclose(waits.p95_s[20], np.quantile(ttft, 0.95))


def test_failed_requests_are_shown_and_do_not_count_as_waits(make_records):
    waits = waits_over_run(RunView(name="run", table=make_records(wait_s=0.5, step_s=0.01, replicas=1, failed=7)))
    assert len(waits.failed_s) == 7
    assert len(waits.ttft_s) == 113


def test_a_run_where_nothing_came_back_has_no_points(make_records):
    waits = waits_over_run(
        RunView(name="run", table=make_records(wait_s=0.5, step_s=0.01, replicas=1, count=5, failed=5))
    )
    assert len(waits.ttft_s) == len(waits.p95_s) == 0


def test_the_tokens_over_the_run_add_up_to_all_tokens(make_records):
    table = make_records(wait_s=0.5, step_s=0.05, replicas=2)
    middles, rates = tokens_over_run(table)
    width = middles[1] - middles[0]
    assert np.isclose((rates * width).sum(), 120 * 20)


def test_requests_in_flight_start_and_end_at_none(make_records):
    table = make_records(wait_s=0.5, step_s=0.1, replicas=2)
    flights = in_flight(table)
    assert list(flights) == ["0", "1"]
    for _, counts in flights.values():
        assert counts.min() == 0
        assert counts[-1] == 0
        assert counts.max() >= 2


def test_weighted_quantiles_are_those_of_the_repeated_values():
    values, weights = np.array([1.0, 2.0, 10.0]), np.array([90, 9, 1])
    found, shares = quantiles(values, weights)
    assert found[shares < 0.9].max() == 1.0
    assert found[(shares > 0.905) & (shares < 0.985)].max() == 2.0
    assert SimpleNamespace(last=found[-1]).last == 10.0
