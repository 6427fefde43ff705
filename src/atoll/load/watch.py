"""Counters of engines and GPUs while the load runs, on the load's own clock.

Each second the /metrics page of every engine is read, and the GPUs of this machine through NVML when it has any. What
comes is long-form: one row a counter and moment, so that any engine's counters fit.
"""

import asyncio
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from atoll.errors import InputError, RunFailed
from atoll.inventory.meter import open_gpus, read_gpus
from atoll.load.connect import Dialer, ask_for_text
from atoll.load.target import RequestOptions, Target, Timeouts, parse_target

EVERY_S = 1.0
GPU_COUNTERS = ("utilization", "memory_bytes", "power_w", "sm_clock_hz")


def _read_page(page: str) -> dict[str, float]:
    from atoll.engines import all_counter_names, read_counters  # brings in the whole stage

    return read_counters(page, all_counter_names()).known()


class Telemetry:
    """Rows of (time, source, name, value)."""

    def __init__(self) -> None:
        self._times = array("d")
        self._values = array("d")
        self._sources: list[str] = []
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._times)

    def add(self, time_s: float, source: str, name: str, value: float) -> None:
        self._times.append(time_s)
        self._values.append(value)
        self._sources.append(source)
        self._names.append(name)

    def grown(self, name: str) -> float:
        """By how much a counter of the engines grew from the first sample to the last, of all sources together."""
        first: dict[str, float] = {}
        last: dict[str, float] = {}
        for source, found, value in zip(self._sources, self._names, self._values, strict=True):
            if found == name:
                first.setdefault(source, value)
                last[source] = value
        return sum(last[source] - first[source] for source in last)

    def columns(self) -> dict[str, Any]:
        """Columns time_s (seconds from the start of the run), source, name, value."""
        import numpy as np

        return {
            "time_s": np.array(self._times, dtype=np.float64),
            "source": list(self._sources),
            "name": list(self._names),
            "value": np.array(self._values, dtype=np.float64),
        }


class Watch:
    """Samples engines and GPUs until it is stopped. Trouble costs a sample, never the run."""

    def __init__(self, pages: Sequence[str], *, options: RequestOptions, now: Callable[[], float]) -> None:
        """Raises InputError for a page that is no URL.

        Args:
            pages: URLs of /metrics, one a replica, in the replicas' order.
            options: how the engines are asked: key, certificates.
            now: the load's clock.
        """
        self.telemetry = Telemetry()
        self.missed = 0
        self._asking = RequestOptions(
            api_key=options.api_key,
            headers=options.headers,
            verify_tls=options.verify_tls,
            ca_file=options.ca_file,
            timeouts=Timeouts(connect_s=EVERY_S),
        )
        self._pages = [_page(url) for url in pages]
        self._now = now
        self._task: asyncio.Task[None] | None = None

    async def reachable(self) -> bool:
        """Whether the first page is one of an engine that we know."""
        try:
            return bool(self._pages) and bool(_read_page(await self._read(self._pages[0])))
        except RunFailed:
            return False

    def start(self, origin: float) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(origin))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, origin: float) -> None:
        gpus = await asyncio.to_thread(open_gpus)
        while True:
            began = self._now()
            await asyncio.gather(*(self._sample(number, page, origin) for number, page in enumerate(self._pages)))
            if gpus:
                for reading in await asyncio.to_thread(read_gpus, gpus):
                    for name in GPU_COUNTERS:
                        self.telemetry.add(began - origin, f"gpu {reading.index}", name, getattr(reading, name))
            await asyncio.sleep(max(0.05, EVERY_S - (self._now() - began)))

    async def _sample(self, number: int, page: tuple[Dialer, Target, str], origin: float) -> None:
        try:
            found = _read_page(await self._read(page))
        except RunFailed:
            self.missed += 1
            return
        moment = self._now() - origin
        for name, value in found.items():
            self.telemetry.add(moment, f"replica {number}", name, value)

    async def _read(self, page: tuple[Dialer, Target, str]) -> str:
        dialer, target, path = page
        if not dialer.is_resolved:
            await dialer.resolve()
        return await ask_for_text(dialer, target, self._asking, path, now=self._now)


def _page(url: str) -> tuple[Dialer, Target, str]:
    if "/" not in url.partition("://")[2]:
        raise InputError(f"{url!r} is no page of counters. Write it like http://127.0.0.1:8000/metrics.")
    target, _ = parse_target(url)
    path = "/" + url.partition("://")[2].partition("/")[2]
    return Dialer(target, RequestOptions()), target, path
