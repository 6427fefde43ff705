"""How is each engine spoken to?"""

from atoll.engines.catalog import ENGINES, find_engine
from atoll.engines.engine import Counters, Engine, Launch, served_name

__all__ = ["ENGINES", "Counters", "Engine", "Launch", "find_engine", "served_name"]
