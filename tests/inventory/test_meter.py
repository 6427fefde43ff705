"""GPU readings through NVML, as far as a machine without a GPU can tell: a stand-in for pynvml answers."""

import sys
from types import SimpleNamespace

from atoll.inventory.meter import GpuReading, read_gpus


class Lost(Exception):
    """NVML's own error."""


def nvml():
    """Two GPUs, the second of which has fallen off the bus."""

    def memory(handle):
        if handle == "lost":
            raise Lost
        return SimpleNamespace(used=40 << 30, total=80 << 30)

    return SimpleNamespace(
        NVMLError=Lost,
        NVML_CLOCK_SM=1,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=75),
        nvmlDeviceGetPowerUsage=lambda _: 412_500,
        nvmlDeviceGetClockInfo=lambda _, kind: 1980 * kind,
    )


def test_a_gpu_that_does_not_answer_is_left_out_and_units_are_si(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    assert read_gpus(("lost", "fine")) == (
        GpuReading(
            index=1,
            utilization=0.75,
            memory_bytes=40 << 30,
            memory_total_bytes=80 << 30,
            power_w=412.5,
            sm_clock_hz=1.98e9,
        ),
    )
    assert read_gpus(()) == ()
