"""When somebody should be told: alert rules for Prometheus, each with where its threshold comes from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.engines import find_engine
from atoll.engines.engine import Engine
from atoll.layout.layout import Layout

ENGINE_JOB = "engine"
DOOR_JOB = "door"
GPU_JOB = "gpu"
HOST_JOB = "host"
# Of the requests, how many may miss the target: a target here is met at the 95th percentile.
MISSES_ALLOWED = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """One rule: true for so long, somebody is told."""

    name: str
    expression: str
    lasting: str  # Prometheus's `for`
    severity: str  # "page": users are hurt now; "ticket": look at it today
    summary: str
    source: str  # of the threshold

    def to_plain(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.lasting,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "source": self.source},
        }


def any_of(names: Sequence[str]) -> str:
    """The metric under whichever of its names the engine's version shows."""
    return names[0] if len(names) == 1 else f"({' or '.join(names)})"


def layout_alerts(layout: Layout, *, cards: bool, host: bool) -> dict[str, Any]:
    """The rules of a layout's deployment, as Prometheus reads them from a file.

    Args:
        layout: its replicas are counted, its target for TTFT is watched.
        cards: whether the GPUs are watched; an emulated layout has none.
        host: whether the machine is.
    """
    engine = find_engine(layout.engine)
    rules = [*_engine_alerts(engine), *_target_alerts(layout, engine), *_door_alerts()]
    rules += _card_alerts(layout) if cards else []
    rules += _host_alerts() if host else []
    return {"groups": [{"name": "atoll", "rules": [rule.to_plain() for rule in rules]}]}


def _engine_alerts(engine: Engine) -> Iterator[Alert]:
    """What an engine has no metric for is not watched."""
    names = engine.counters
    yield Alert(
        name="ReplicaDown",
        expression=f'up{{job="{ENGINE_JOB}"}} == 0',
        lasting="1m",
        severity="page",
        summary="Replica {{ $labels.replica }} does not answer; the others carry its load.",
        source="ours: longer than a restart of the process, shorter than a coffee",
    )
    if names.waiting:
        yield _queueing(any_of(names.waiting))
    if names.kv_usage:
        yield _cache_full(any_of(names.kv_usage))
    if names.preemptions:
        yield _preempting(names.preemptions[0])
    if names.running:
        yield _uneven(any_of(names.running))


def _queueing(waiting: str) -> Alert:
    return Alert(
        name="Queueing",
        expression=f'sum({waiting}) > 5 * count(up{{job="{ENGINE_JOB}"}} == 1)',
        lasting="5m",
        severity="page",
        summary="{{ $value }} requests wait; users see it as time to first token.",
        source="5 a replica is what autoscalers of vLLM aim at (ai.wmx.dev ADR 0014, Kestra's blueprint)",
    )


def _cache_full(usage: str) -> Alert:
    return Alert(
        name="KvCacheFull",
        expression=f"{usage} > 0.95",
        lasting="5m",
        severity="ticket",
        summary="Replica {{ $labels.replica }} has {{ $value | humanizePercentage }} of its KV cache in use.",
        source="vLLM preempts at 1.0; Kestra's blueprint warns at 0.85, which a planned load may reach",
    )


def _preempting(preemptions: str) -> Alert:
    return Alert(
        name="Preempting",
        expression=f"rate({preemptions}[5m]) > 0.1",
        lasting="5m",
        severity="ticket",
        summary="Replica {{ $labels.replica }} throws requests out of its KV cache and computes them again.",
        source="ours: 30 in five minutes; a plan that holds has none",
    )


def _uneven(running: str) -> Alert:
    return Alert(
        name="ReplicasUneven",
        expression=f"max({running}) > 2 * min({running}) + 8",
        lasting="10m",
        severity="ticket",
        summary="One replica runs {{ $value }} requests, more than twice what another runs.",
        source="ours: least_conn keeps replicas within a few requests of each other",
    )


# How many times faster than allowed, over a long and a short window, and what that is worth: SRE Workbook, chapter 5.
_BURNS = ((14.4, "1h", "5m", "page"), (6.0, "6h", "30m", "page"), (1.0, "3d", "6h", "ticket"))


def _target_alerts(layout: Layout, engine: Engine) -> Iterator[Alert]:
    """How fast the misses that the target allows are used up: sure by the long window, over soon by the short one."""
    target = None if layout.slo is None else layout.slo.ttft_s
    names = engine.histograms
    bound = next((one for one in names.first_token_bounds if target is not None and one >= target), None)
    if bound is None:
        return
    for speed, long, short, severity in _BURNS:
        share = speed * MISSES_ALLOWED
        if share >= 1:
            continue
        missed = [_missed(names.first_token[0], bound, window) for window in (long, short)]
        yield Alert(
            name=f"TtftTargetMissed{long}",
            expression=" and ".join(f"({one}) > {share:g}" for one in missed),
            lasting="2m",
            severity=severity,
            summary=f"{{{{ $value | humanizePercentage }}}} of the requests of the last {long} had their first token"
            f" after more than {bound:g} s (target {target:g} s for 95 of 100).",
            source=f"{speed:g} times what the target allows, over {long} and {short}: SRE Workbook, chapter 5",
        )


def _missed(histogram: str, bound: float, window: str) -> str:
    """The share of requests above a bucket's bound, which pages write as 1 or as 1.0."""
    within = f'{histogram}_bucket{{le=~"{bound:g}|{float(bound)}"}}'
    return f"1 - sum(rate({within}[{window}])) / sum(rate({histogram}_count[{window}]))"


def _door_alerts() -> Iterator[Alert]:
    failed = f'sum(rate(atoll_door_requests_total{{job="{DOOR_JOB}",status="5xx"}}[5m]))'
    every = f'sum(rate(atoll_door_requests_total{{job="{DOOR_JOB}"}}[5m]))'
    yield Alert(
        name="DoorFails",
        expression=f"{failed} / {every} > 0.01",
        lasting="5m",
        severity="page",
        summary="{{ $value | humanizePercentage }} of what the door answers are 5xx.",
        source="ours: with one of several replicas down the retry keeps it near 0",
    )
    yield Alert(
        name="DoorDown",
        expression=f'up{{job="{DOOR_JOB}"}} == 0',
        lasting="1m",
        severity="page",
        summary="nginx does not answer: nobody is served.",
        source="ours",
    )


def _card_alerts(layout: Layout) -> Iterator[Alert]:
    """DCGM's names up to exporter 4.8; 4.9 renames them."""
    wanted = sum(len(replica.gpus) for replica in layout.replicas)
    yield Alert(
        name="GpuError",
        expression="DCGM_FI_DEV_XID_ERRORS > 0",
        lasting="0m",
        severity="page",
        summary="GPU {{ $labels.gpu }} reports XID {{ $value }}.",
        source="NVIDIA's catalogue of XID errors tells what the number means",
    )
    yield Alert(
        name="GpuLost",
        expression=f"count(DCGM_FI_DEV_GPU_TEMP) < {wanted} or absent(DCGM_FI_DEV_GPU_TEMP)",
        lasting="2m",
        severity="page",
        summary=f"Fewer than the layout's {wanted} GPUs are there.",
        source="the layout",
    )
    yield Alert(
        name="GpuThrottledByHeat",
        expression="rate(DCGM_FI_DEV_THERMAL_VIOLATION[5m]) > 0",
        lasting="5m",
        severity="ticket",
        summary="GPU {{ $labels.gpu }} runs slower because it is too hot.",
        source="the driver's own account of throttling; the limit differs from card to card",
    )
    yield Alert(
        name="NvlinkErrors",
        expression="increase(DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL[10m]) > 0"
        " or increase(DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL[10m]) > 100",
        lasting="0m",
        severity="ticket",
        summary="GPU {{ $labels.gpu }} has errors on NVLink: all-reduces slow down, then fail.",
        source="ours: a link that recovers once is worth a look; single CRC errors are repeated and forgotten",
    )


def _host_alerts() -> Iterator[Alert]:
    free = 'node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|squashfs"}'
    size = 'node_filesystem_size_bytes{fstype!~"tmpfs|overlay|squashfs"}'
    yield Alert(
        name="DiskNearlyFull",
        expression=f"{free} / {size} < 0.05",
        lasting="15m",
        severity="ticket",
        summary="{{ $labels.mountpoint }} has {{ $value | humanizePercentage }} left.",
        source="ours",
    )
    yield Alert(
        name="MemoryNearlyFull",
        expression="node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < 0.05",
        lasting="5m",
        severity="page",
        summary="The machine has {{ $value | humanizePercentage }} of its memory left; the kernel may end an engine.",
        source="ours",
    )
