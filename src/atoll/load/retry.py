"""When to come again, as a refusal says it (RFC 9110, 10.2.3: Retry-After)."""

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_S = 300.0  # nobody rests longer, whatever is said


def wait_of(said: str, *, wall: float) -> float | None:
    """Seconds to wait, of a number of seconds or of a date; None for what is neither.

    Args:
        said: the header's value.
        wall: the time now, in seconds since 1970.
    """
    try:
        wait = float(said)
    except ValueError:
        try:
            moment = parsedate_to_datetime(said)
        except ValueError:
            return None
        wait = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall
    return None if math.isnan(wait) else min(max(wait, 0.0), LONGEST_S)
