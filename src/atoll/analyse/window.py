"""Which requests of a run are summed up: one definition for simulate, bench, study, plan, report and the catalogue.

A closed loop is measured from when all users have started and the first round is over, that is, when every user's first
request has ended: before that the engines fill. What a load says itself goes before: a warm-up of its own, or users
that start at once, of whom nothing is left out. An open loop is measured from its beginning. Where fewer requests than
users are sent after the first round, the run is too short for that, and all of it counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.traffic.record import RecordTable
from atoll.traffic.workload import Start, Workload

Mask = NDArray[np.bool_]
Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Spans of a run, in seconds from its start; requests that were sent in one of them are measured."""

    spans: tuple[tuple[float, float], ...]
    is_too_short: bool = False  # the first round was to be left out, and all counts for want of more

    @property
    def start_s(self) -> float:
        return self.spans[0][0]

    def rows(self, table: RecordTable) -> Mask:
        """Which rows are measured; shape (len(table),)."""
        inside = np.zeros(len(table), dtype=np.bool_)
        for start, end in self.spans:
            inside |= (table.sent_s >= start) & (table.sent_s < end)
        return inside


WHOLE = Window(spans=((0.0, np.inf),))


def window_of(table: RecordTable, workload: Workload | None, *, spans: Spans = ()) -> Window:
    """The measured window of a run.

    Args:
        table: its records.
        workload: its load; None: not known, so that all counts.
        spans: those of a run that was cut and resumed, each piece's own window; they stand.
    """
    if spans:
        return Window(spans=tuple((float(start), float(end)) for start, end in spans))
    if workload is None:
        return WHOLE
    if workload.warmup_s is not None:
        return Window(spans=((workload.warmup_s, np.inf),))
    if not workload.is_closed or workload.start is Start.AT_ONCE:
        return WHOLE
    users = workload.users or 1
    over_s = first_round_s(table, users)
    if int((table.sent_s >= over_s).sum()) < users:
        return Window(spans=WHOLE.spans, is_too_short=True)
    return Window(spans=((over_s, np.inf),))


def first_round_s(table: RecordTable, users: int) -> float:
    """When the first request of each user had ended; infinite where one has not sent, or was cut off."""
    order = np.lexsort((table.sent_s, table.user))
    _, first = np.unique(table.user[order], return_index=True)
    if len(first) < users:
        return np.inf
    ends = table.done_s[order][first]
    return float(np.where(np.isnan(ends), np.inf, ends).max())
