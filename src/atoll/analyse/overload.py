"""Whether an open loop asks for more than the server carries.

Beyond its capacity a queue grows as long as requests come: fewer answers end than requests are sent, and each request
takes longer than the one before. Both have to be seen late in the sending, for a server whose answers take long ends
fewer than are sent as well until the first ones are through, at a steady latency. Where answers take so long that none
ends while requests are sent, first tokens are looked at instead: those of a queue come later and later.

Worked: 30 requests/s for 60 s at a server of 11/s. From 30 s to 60 s 900 are sent and 330 end; one that ends at time t
was sent at t 11 / 30 and took t 19 / 30: 19 s of those that end at half a minute, 38 s at the last.
"""

import numpy as np

from atoll.analyse.window import Mask
from atoll.documents import Document
from atoll.traffic.record import Floats, Outcome, RecordTable

_FEWEST = 20  # requests of the second half; fewer tell nothing
_SHORT_OF = 0.95  # of the requests that are sent, those that are answered
_QUEUE_GROWS = 0.1  # seconds a second, of the wait for a first token
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
    outlook = _by_ends(table, ok, asked, start=start, end=end)
    if outlook is None:  # nothing ended meanwhile
        return _by_first_tokens(table, rows, asked, start=start, end=end)
    seconds = end - middle
    return Overload(asked_per_s=sent / seconds, served_per_s=served / seconds) if outlook else None


def _by_ends(table: RecordTable, ok: Mask, asked: Floats, *, start: float, end: float) -> bool | None:
    """Whether requests took longer and longer; None where too few had ended to tell."""
    # By when they ended: of those sent late many may have been cut, and how long they would have taken is not known.
    took, third = table.done_s - asked, (end - start) / 3
    earlier = took[ok & (table.done_s >= start + third) & (table.done_s < start + 2 * third)]
    later = took[ok & (table.done_s >= start + 2 * third) & (table.done_s < end)]
    if len(earlier) == 0 or len(later) == 0:
        return None
    return bool(np.median(later) >= _GROWTH * np.median(earlier))


def _by_first_tokens(table: RecordTable, rows: Mask, asked: Floats, *, start: float, end: float) -> Overload | None:
    """The same by how long first tokens are waited for, by when the requests were due.

    A batch that fills makes them wait longer too, but by tenths of seconds in a minute; a queue adds a part of the time
    that passes.
    """
    waits, third, middle = table.first_token_s - asked, (end - start) / 3, (start + end) / 2
    known = rows & ~np.isnan(waits)
    early, late = waits[known & (asked < start + third)], waits[known & (asked >= end - third)]
    if len(early) < _FEWEST / 2 or len(late) < _FEWEST / 2:
        return None
    first, last = float(np.median(early)), float(np.median(late))
    if last < 2 * first or last - first < _QUEUE_GROWS * 2 * third:
        return None
    seconds, sent = end - middle, int((rows & (asked >= middle) & (asked < end)).sum())
    begun = int((known & (table.first_token_s >= middle) & (table.first_token_s < end)).sum())
    if begun > _SHORT_OF * sent or sent - begun < 3 * np.sqrt(sent):
        return None
    return Overload(asked_per_s=sent / seconds, served_per_s=begun / seconds)
