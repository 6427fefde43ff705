"""When the users of a closed loop start.

Users who begin together and whose answers are equally long send their next requests together as well, for ever: each
first token then waits for everybody's prompts. So they start spread over the time that one answer takes, and their
requests come evenly.
"""

from collections.abc import Sequence
from statistics import fmean

from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Lengths, Start, Workload

MOST_OF_THE_RUN = 0.1  # the part of a run over which users start at most


def settle_start(workload: Workload, answer_s: float | None) -> Workload:
    """The load with its start in seconds, where it is to be spread over one answer's time.

    Never more than a tenth of the run: with 30 s an answer and ten minutes 30 users start over 30 s, one a second, and
    within one minute over 6 s.

    Args:
        workload: a load; one that says itself when users start, and an open loop, stay as they are.
        answer_s: how long one answer takes; None: not known, so that users start at once.
    """
    if not workload.is_closed or workload.start is not Start.SPREAD:
        return workload
    if answer_s is None:
        return workload.replace(start=Start.AT_ONCE)
    return workload.replace(start=min(answer_s, MOST_OF_THE_RUN * run_seconds(workload, answer_s)))


def run_seconds(workload: Workload, answer_s: float) -> float:
    """How long a closed loop sends, as far as it is known: its duration, or the rounds that its requests make."""
    known = [] if workload.duration_s is None else [workload.duration_s]
    if workload.requests is not None:
        known.append(workload.requests / (workload.users or 1) * (answer_s + workload.think_s))
    return min(known)


def with_mean_lengths(workload: Workload, trace: Sequence[TraceRow]) -> Workload:
    """The load with lengths that are drawn from a trace put at their means, for who reckons with those."""
    changes = {
        name: Lengths(mean=max(1.0, fmean(getattr(row, f"{name}_tokens") for row in trace)))
        for name in ("prompt", "output")
        if trace and getattr(workload, name).kind == "trace"
    }
    return workload.replace(**changes) if changes else workload
