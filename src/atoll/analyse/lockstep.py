"""Whether the users of a closed loop march in step: send together, wait together, send together again.

Take the sendings within one cycle (the median time from a user's request to the next one) as angles of a circle. Their
mean vector has the length 1 when all are sent at one moment and about 0 when they come evenly. Of m sendings, the
estimate (|sum|^2 - m) / (m (m - 1)) of its square does not depend on m (Mardia and Jupp, Directional Statistics, 2000,
section 2.3.1; the sum of m random unit vectors has a mean square of m). It is taken cycle by cycle, so that one that
changes over the run does no harm, and replica by replica, because each may march to its own beat; the median of the
cycles counts. Sendings that come evenly within a part f of the cycle give (sin(pi f) / (pi f))^2: 0.81 for a quarter,
0.41 for a half, 0 for the whole.
"""

import numpy as np

from atoll.analyse.window import Mask
from atoll.traffic.record import Floats, RecordTable

IN_STEP = 0.5  # from here on it is said: all sendings come as if within 44 % of a cycle
_CYCLES = 2  # fewer tell nothing
_USERS = 3


def swing_of(table: RecordTable, rows: Mask) -> float | None:
    """How much users march in step: 1 wholly, 0 not at all; None where it cannot be told, as in an open loop."""
    replicas = np.array([name or "" for name in table.replica], dtype=object)
    cycle_s = _cycle(table, rows)
    if cycle_s is None:
        return None
    ends_s = _sending_ends(table)
    found: list[tuple[float, int]] = []
    for name in sorted(set(replicas[rows])):
        mine = rows & (replicas == name)
        if len(np.unique(table.user[mine])) < _USERS:
            continue
        swing = _swing(table.sent_s[mine], cycle_s, ends_s)
        if swing is not None:
            found.append((swing, int(mine.sum())))
    if not found:
        return None
    swings, weights = zip(*found, strict=True)
    return max(0.0, float(np.average(swings, weights=weights)))


def _cycle(table: RecordTable, rows: Mask) -> float | None:
    """The median time between a user's sendings."""
    order = np.lexsort((table.sent_s[rows], table.user[rows]))
    users, sent = table.user[rows][order], table.sent_s[rows][order]
    gaps = np.diff(sent)[users[1:] == users[:-1]]
    cycle = float(np.median(gaps)) if len(gaps) else 0.0
    return cycle if cycle > 0 else None


def _sending_ends(table: RecordTable) -> float:
    """When the run sent no more: a user who is answered before that sends again at once.

    The last sending is too early where users march, who send in bursts: two whole rounds would then count as one.
    """
    last = {int(user): place for place, user in enumerate(table.user)}  # of each user; a table is in order of sending
    answered = table.done_s[list(last.values())]
    answered = answered[np.isfinite(answered)]
    latest = float(table.sent_s.max())
    return max(latest, float(answered.min())) if len(answered) else latest


def _swing(sent: Floats, cycle_s: float, ends_s: float) -> float | None:
    turns = (sent - sent.min()) / cycle_s
    cycles = int((ends_s - sent.min()) / cycle_s)
    if cycles < _CYCLES:
        return None
    whole = turns < cycles
    number = turns[whole].astype(np.int64)
    angles = 2 * np.pi * turns[whole]
    counts = np.bincount(number, minlength=cycles)
    east = np.bincount(number, np.cos(angles), minlength=cycles)
    north = np.bincount(number, np.sin(angles), minlength=cycles)
    full = counts > 1
    if int(full.sum()) < _CYCLES:
        return None
    m = counts[full]
    return float(np.median((east[full] ** 2 + north[full] ** 2 - m) / (m * (m - 1))))
