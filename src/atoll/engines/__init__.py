"""How is each engine spoken to?"""

from atoll.engines.catalog import ENGINES, all_counter_names, find_engine
from atoll.engines.counters import CounterNames, Counters, read_counters
from atoll.engines.engine import Engine, Launch, served_name

__all__ = [
    "ENGINES",
    "CounterNames",
    "Counters",
    "Engine",
    "Launch",
    "all_counter_names",
    "find_engine",
    "read_counters",
    "served_name",
]
