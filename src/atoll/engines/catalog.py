"""The engines that atoll can start. Another one is a module of the same shape and a line here."""

from functools import reduce
from operator import add

from atoll.engines import emulated, vllm
from atoll.engines.counters import CounterNames
from atoll.engines.engine import Engine
from atoll.errors import InputError

_KNOWN: tuple[Engine, ...] = (vllm, emulated)
ENGINES = {engine.name: engine for engine in _KNOWN}


def find_engine(name: str) -> Engine:
    """The engine of that name; raises InputError with those there are."""
    try:
        return ENGINES[name]
    except KeyError:
        raise InputError(f"{name!r} is no engine that can be started; there are {', '.join(ENGINES)}.") from None


def all_counter_names() -> CounterNames:
    """Of all engines together: a server that is only measured does not say which engine it is."""
    return reduce(add, (engine.counters for engine in ENGINES.values()))
