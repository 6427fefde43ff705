"""What do users send, what came back?"""

from atoll.traffic.record import Outcome, Record, RecordTable, Source, TokenSource
from atoll.traffic.request import Request
from atoll.traffic.workload import Arrivals, Lengths, Workload

__all__ = [
    "Arrivals",
    "Lengths",
    "Outcome",
    "Record",
    "RecordTable",
    "Request",
    "Source",
    "TokenSource",
    "Workload",
]
