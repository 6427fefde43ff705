"""What do the records say?"""

from atoll.analyse.compare import Comparison, Difference, Verdict, compare_runs
from atoll.analyse.summary import (
    SLO,
    Distribution,
    Goodput,
    ReplicaSummary,
    RequestCounts,
    Summary,
    latencies,
    summarise,
)

__all__ = [
    "SLO",
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
