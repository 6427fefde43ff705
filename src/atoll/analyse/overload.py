"""Whether an open loop asks for more than the server carries.

Beyond its capacity a queue grows as long as requests come: fewer answers end than requests are sent, and each request
takes longer than the one before. Both have to be seen late in the sending, for a server whose answers take long ends
fewer than are sent as well until the first ones are through, at a steady latency.

Worked: 30 requests/s for 60 s at a server of 11/s. From 30 s to 60 s 900 are sent and 330 end; one that ends at time t
was sent at t 11 / 30 and took t 19 / 30: 19 s of those that end at half a minute, 38 s at the last.
"""

import numpy as np

from atoll.analyse.window import Mask
from atoll.documents import Document
from atoll.traffic.record import Outcome, RecordTable

_FEWEST = 20  # requests of the second half; fewer tell nothing
_SHORT_OF = 0.95  # of the requests that are sent, those that are answered
_GROWTH = 1.2  # of the median time of those that end in the last third of the sending, to those of the middle third


class Overload(Document):
    """What was asked and what was carried, in requests per second of the second half of the sending."""

    asked_per_s: float
    served_per_s: float


def overload_of(table: RecordTable, rows: Mask) -> Overload | None:
    """None where the server keeps up, or where it cannot be told.

    Args:
        table: the records of an open loop.
        rows: those that were sent in the measured window.
    """
    if int(rows.sum()) < 2 * _FEWEST:
        return None
    asked = np.where(np.isnan(table.due_s), table.sent_s, table.due_s)
    start, end = float(asked[rows].min()), float(asked[rows].max())
    middle = (start + end) / 2
    sent = int((rows & (asked >= middle) & (asked < end)).sum())
    ok = np.array(table.outcome, dtype=object) == Outcome.OK
    served = int((ok & (table.done_s >= middle) & (table.done_s < end)).sum())
    if sent < _FEWEST or served > _SHORT_OF * sent or sent - served < 3 * np.sqrt(sent):
        return None
    # By when they ended: of those sent late many may have been cut, and how long they would have taken is not known.
    took, third = table.done_s - asked, (end - start) / 3
    earlier = took[ok & (table.done_s >= start + third) & (table.done_s < start + 2 * third)]
    later = took[ok & (table.done_s >= start + 2 * third) & (table.done_s < end)]
    if len(earlier) == 0 or len(later) == 0 or np.median(later) < _GROWTH * np.median(earlier):
        return None
    seconds = end - middle
    return Overload(asked_per_s=sent / seconds, served_per_s=served / seconds)
