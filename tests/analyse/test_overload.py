"""An open loop beyond what the server carries, and one that only has long answers."""

import numpy as np
import pytest

from atoll.analyse.summary import summarise
from atoll.traffic.record import Outcome, Record, RecordTable
from atoll.traffic.workload import Workload

OPEN = Workload(rate=30, duration_s=60)


def queue(asked_per_s, served_per_s, *, answer_s=0.5, first_s=0.0, seconds=60.0, cut_s=None):
    """A queue with one place: each request waits for those before it, and then takes its answer's time, of which
    `first_s` passes before its first token.
    """
    records, free_s = [], 0.0
    for number in range(round(asked_per_s * seconds)):
        due = number / asked_per_s
        free_s = max(free_s, due) + 1 / served_per_s
        done = free_s + answer_s
        gone = cut_s is not None and done > cut_s
        records.append(
            Record(
                number=number,
                user=number,
                due_s=due,
                sent_s=due,
                token_s=() if gone else (done - answer_s + first_s, done),
                done_s=cut_s if gone else done,
                output_tokens=2,
                outcome=Outcome.CANCELLED if gone else Outcome.OK,
            )
        )
    return RecordTable.from_records(records)


@pytest.mark.parametrize("cut_s", [None, 65.0])
def test_a_rate_beyond_capacity_is_told_with_the_rate_that_is_carried(cut_s):
    summary = summarise(queue(30, 11, cut_s=cut_s), workload=OPEN)
    assert summary.overload.asked_per_s == pytest.approx(30, rel=0.03)
    assert summary.overload.served_per_s == pytest.approx(11, rel=0.03)
    assert "The server keeps up with 11 of 30 requests/s; latencies grow without end" in summary.notes[0]
    assert any("were cut" in note for note in summary.notes) == (cut_s is not None)


def test_it_is_told_too_where_no_answer_ends_while_requests_are_sent():
    """First tokens wait in a queue of 11/s, and each answer takes a minute and a half."""
    summary = summarise(queue(30, 11, answer_s=90.0, first_s=0.5), workload=OPEN)
    assert summary.overload.asked_per_s == pytest.approx(30, rel=0.03)
    assert summary.overload.served_per_s == pytest.approx(11, rel=0.05)
    assert summarise(queue(30, 40, answer_s=90.0, first_s=0.5), workload=OPEN).overload is None


@pytest.mark.parametrize(
    "table",
    [queue(30, 40), queue(30, 1000, answer_s=45), queue(1, 0.3, seconds=20), queue(10, 10.5)],
    ids=["kept", "long_answers", "too_few", "near"],
)
def test_a_server_that_keeps_up_is_not_blamed(table):
    assert summarise(table, workload=OPEN).overload is None


def test_requests_that_are_refused_at_once_do_not_wait():
    table = queue(30, 40)
    refused = np.array(table.outcome, dtype=object)
    refused[::2] = Outcome.FAILED
    records = [
        Record(
            number=n,
            user=n,
            due_s=float(table.due_s[n]),
            sent_s=float(table.sent_s[n]),
            done_s=float(table.done_s[n]),
            outcome=refused[n],
        )
        for n in range(len(table))
    ]
    assert summarise(RecordTable.from_records(records), workload=OPEN).overload is None
