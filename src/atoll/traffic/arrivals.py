"""Due times of an open loop, from a generator handed in: requests come whether or not the last ones have ended."""

from collections.abc import Iterator

import numpy as np

from atoll.errors import BadTraffic
from atoll.traffic.workload import Arrivals, Workload

_BATCH = 1024  # gaps drawn at once; the stream of gaps does not depend on it


def due_times(workload: Workload, rng: np.random.Generator) -> Iterator[float]:
    """Seconds from the start of the run, rising, without end; the first request is due after the first gap.

    Args:
        workload: its `arrivals`, `rate` and `burstiness` count.
        rng: draws the gaps; the same generator state gives the same times.
    """
    due = 0.0
    while True:
        for gap in _gaps(workload, rng):
            due += gap
            yield due


def _gaps(workload: Workload, rng: np.random.Generator) -> list[float]:
    if workload.rate is None:
        raise BadTraffic("open-loop arrivals need a rate.")
    mean = 1 / workload.rate
    if workload.arrivals is Arrivals.CONSTANT:
        return [mean] * _BATCH
    if workload.arrivals is Arrivals.POISSON:
        return list(rng.exponential(mean, size=_BATCH).tolist())
    if workload.arrivals is Arrivals.BURSTY:
        # Gamma gaps of shape b and mean 1/rate, as in vLLM's `--burstiness`: b = 1 is Poisson, b < 1 comes in bursts.
        shape = workload.burstiness
        return list(rng.gamma(shape, mean / shape, size=_BATCH).tolist())
    raise BadTraffic(f"{workload.arrivals} arrivals have no due times of their own.")
