"""Who may send when, beyond what a Workload says: steps of load. No sleeping in here.

A Workload has one number of users or one rate. Steps change it over the run: `10@30s,20@30s,5@1m` is ten users for half
a minute, then twenty, then five. With users, a user sends while the step has room for it. With rates, the due times of
an even stream are moved so that each step has its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.errors import InputError
from atoll.units import parse_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadStep:
    """So much load from one time to another, in seconds from the start of the run."""

    load: float  # users, or requests per second
    start_s: float
    end_s: float


def parse_steps(text: str) -> tuple[LoadStep, ...]:
    """`10@30s,20@1m`; raises InputError for anything else."""
    steps: list[LoadStep] = []
    start = 0.0
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*@\s*(\S+)\s*", piece)
        if match is None:
            raise InputError(f"{piece!r} is no step of load. Write steps like 10@30s,20@1m.")
        end = start + parse_seconds(match[2])
        if end <= start:
            raise InputError(f"{piece!r} takes no time. Write steps like 10@30s,20@1m.")
        steps.append(LoadStep(load=float(match[1]), start_s=start, end_s=end))
        start = end
    return tuple(steps)


def most_load(steps: Sequence[LoadStep]) -> float:
    return max(step.load for step in steps)


def next_turn(steps: Sequence[LoadStep], user: int, now_s: float) -> float | None:
    """When this user may send next: now, at the start of a later step with room for it, or never (None)."""
    for step in steps:
        if user < step.load and now_s < step.end_s:
            return max(now_s, step.start_s)
    return None


def moved_due(steps: Sequence[LoadStep], even_s: float) -> float | None:
    """Where a due time of a stream at the highest step's rate falls when each step has its own rate.

    The stream's n-th request is due when the steps' rates add up to n: with steps 2@10s,4@10s (highest 4), an even
    time of 5 s (the 20th request) falls at 10 s, the end of the first step. None: after the last step.
    """
    wanted = even_s * most_load(steps)
    for step in steps:
        room = step.load * (step.end_s - step.start_s)
        if wanted < room:
            return step.start_s + wanted / step.load
        wanted -= room
    return None
