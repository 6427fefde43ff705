"""Records as columns."""

import numpy as np
import pytest

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
