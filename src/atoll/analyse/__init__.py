"""What do the records say?"""

from atoll.analyse.compare import Comparison, Difference, Verdict, compare_runs
from atoll.analyse.summary import (
    Distribution,
    Goodput,
    ReplicaSummary,
    RequestCounts,
    Summary,
    latencies,
    summarise,
)
from atoll.analyse.window import Window, window_of

__all__ = [
    "Comparison",
    "Difference",
    "Distribution",
    "Goodput",
    "ReplicaSummary",
    "RequestCounts",
    "Summary",
    "Verdict",
    "Window",
    "compare_runs",
    "latencies",
    "summarise",
    "window_of",
]
