"""What the GPUs of this machine do right now, through NVML."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuReading:
    """One look at one GPU."""

    index: int  # nvidia-smi's number
    utilization: float  # share of the last moment in which a kernel ran, 0 to 1
    memory_bytes: float  # in use, by whomever
    memory_total_bytes: float
    power_w: float  # watts
    sm_clock_hz: float


@cache
def open_gpus() -> tuple[Any, ...]:
    """Handles of this machine's GPUs; none where NVML is not."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")  # asking costs less than importing pynvml, which asks the same
    except OSError:
        return ()
    import pynvml

    try:
        pynvml.nvmlInit()
        return tuple(pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()


def read_gpus(handles: Sequence[Any] | None = None) -> tuple[GpuReading, ...]:
    """A reading of each; a GPU that does not answer is left out."""
    known = open_gpus() if handles is None else handles
    if not known:
        return ()
    import pynvml

    found = []
    for index, handle in enumerate(known):
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            reading = GpuReading(
                index=index,
                utilization=pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
                memory_bytes=float(memory.used),
                memory_total_bytes=float(memory.total),
                power_w=pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
                sm_clock_hz=pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) * 1e6,
            )
        except pynvml.NVMLError:
            continue
        found.append(reading)
    return tuple(found)
