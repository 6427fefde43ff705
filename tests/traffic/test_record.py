"""Records as columns."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.traffic import Outcome, Record, RecordTable


def two_requests():
    return RecordTable.from_records(
        [
            Record(number=1, user=1, sent_s=0.5, outcome=Outcome.FAILED, error="http_503", status=503),
            Record(number=0, user=0, sent_s=0.0, token_s=[0.2, 0.3], done_s=0.3, output_tokens=2, replica="1"),
        ]
    )


def test_rows_stand_in_the_order_of_sending():
    table = two_requests()
    assert table.number.tolist() == [0, 1]
    assert table.outcome == ("ok", "failed")
    assert table.token_times(0).tolist() == [0.2, 0.3]
    assert table.token_times(1).tolist() == []


def test_what_is_not_known_is_nan():
    table = two_requests()
    assert np.isnan(table.due_s).all()
    assert np.isnan(table.first_token_s[1])


def test_pieces_of_a_run_are_joined_with_their_times_shifted_and_numbered_on():
    joined = RecordTable.concatenate([(two_requests(), 0.0), (two_requests(), 10.0)])
    assert joined.number.tolist() == [0, 1, 2, 3]
    assert joined.sent_s.tolist() == [0.0, 0.5, 10.0, 10.5]
    assert joined.token_times(2) == pytest.approx([10.2, 10.3])
    assert joined.error == (None, "http_503", None, "http_503")
    assert len(RecordTable.concatenate([])) == 0


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(st.lists(st.integers(0, 50), max_size=5), st.booleans()), max_size=8),
    in_between=st.booleans(),
)
def test_gaps_of_the_chosen_requests_and_of_no_others(rows, in_between):
    """Whether each request has its times to itself, as measured, or two share a piece of the clock, as simulated."""
    times = [tuple(float(at) for at in sorted(row)) for row, _ in rows]
    table = RecordTable.from_records(
        Record(number=number, user=number, sent_s=0.0, token_s=each, done_s=60.0, output_tokens=len(each))
        for number, each in enumerate(times)
    )
    if in_between:
        table = replace(
            table,
            span_row=np.repeat(table.span_row, 2),
            span_start=np.column_stack([table.span_start, table.span_start]).ravel(),
            span_stop=np.column_stack([table.span_start + 1, table.span_stop]).ravel(),
        )
    chosen = np.array([keep for _, keep in rows], dtype=np.bool_)
    values, counts = table.gaps(chosen)
    wanted = [gap for row, (_, keep) in zip(times, rows, strict=True) if keep for gap in np.diff(row).tolist()]
    wanted += [0.0] * sum(bool(row) and keep for row, (_, keep) in zip(times, rows, strict=True)) * in_between
    assert sorted(np.repeat(values, counts).tolist()) == sorted(wanted)
