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

__all__ = [
    "Comparison",
    "Difference",
    "Distribution",
    "Goodput",
    "ReplicaSummary",
    "RequestCounts",
    "Summary",
    "Verdict",
    "compare_runs",
    "latencies",
    "summarise",
]
