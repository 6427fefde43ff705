"""What somebody watches: a Grafana dashboard of a layout's deployment, per replica and in all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from atoll.engines import find_engine
from atoll.engines.engine import Engine
from atoll.layout.layout import Layout
from atoll.render.alerts import DOOR_JOB, ENGINE_JOB, any_of

_COLUMNS = 24  # of Grafana's grid
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WINDOW = "$__rate_interval"


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A chart: its queries by the name that each line gets (`{{label}}` is replaced)."""

    title: str
    unit: str  # Grafana's name: s, percentunit, reqps, short, watt, celsius, bytes
    queries: dict[str, str]
    width: int = 8
    help: str = ""


def dashboard(layout: Layout, *, cards: bool, host: bool) -> dict[str, Any]:
    """The dashboard as Grafana reads it from a file; the data source is chosen on the page, Prometheus by default."""
    engine = find_engine(layout.engine)
    panels = [*_for_users(layout, engine), *_per_replica(engine), *_at_the_door()]
    panels += _on_cards() if cards else []
    panels += _on_host() if host else []
    return {
        "uid": "atoll",
        "title": f"atoll: {layout.name}",
        "tags": ["atoll"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": list(_laid_out(panels)),
    }


def queries(made: dict[str, Any]) -> list[tuple[str, str]]:
    """Every panel's title with each of its expressions."""
    return [(panel["title"], target["expr"]) for panel in made["panels"] for target in panel["targets"]]


def _laid_out(panels: list[Panel]) -> Iterator[dict[str, Any]]:
    """From left to right, in rows of one height."""
    x = y = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > _COLUMNS:
            x, y = 0, y + 8
        yield {
            "id": number,
            "title": panel.title,
            "description": panel.help,
            "type": "timeseries",
            "gridPos": {"x": x, "y": y, "w": panel.width, "h": 8},
            "datasource": _SOURCE,
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": name, "datasource": _SOURCE}
                for place, (name, expression) in enumerate(panel.queries.items())
            ],
        }
        x += panel.width


def _quantile(share: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket[{_WINDOW}])))"


def _for_users(layout: Layout, engine: Engine) -> Iterator[Panel]:
    names, seconds = engine.counters, engine.histograms
    target = layout.slo.ttft_s if layout.slo is not None else None
    if seconds.first_token:
        first = seconds.first_token[0]
        lines = {f"p{round(share * 100)}": _quantile(share, first) for share in (0.5, 0.95, 0.99)}
        lines |= {"target of p95": f"vector({target:g})"} if target is not None else {}
        yield Panel(title="Time to first token", unit="s", queries=lines, help="As the engines see it, all replicas.")
    if seconds.token_gap:
        gap = " or ".join(f"({_quantile(0.5, name)})" for name in seconds.token_gap)
        high = " or ".join(f"({_quantile(0.95, name)})" for name in seconds.token_gap)
        yield Panel(title="Time between tokens", unit="s", queries={"p50": gap, "p95": high})
    counted = {"output": names.output_tokens, "prompt": names.prompt_tokens}
    yield Panel(
        title="Tokens/s",
        unit="short",
        queries={word: f"sum(rate({metrics[0]}[{_WINDOW}]))" for word, metrics in counted.items() if metrics},
    )


def _per_replica(engine: Engine) -> Iterator[Panel]:
    """What an engine has no metric for has no panel."""
    names = engine.counters
    first, output, preempted = engine.histograms.first_token, names.output_tokens, names.preemptions
    if first:
        yield _replicas("TTFT p95, each replica", "s", _quantile(0.95, first[0], "replica"))
    if output:
        yield _replicas("Output tokens/s, each replica", "short", f"sum by (replica) (rate({output[0]}[{_WINDOW}]))")
    gauges = (("Running", names.running), ("Waiting", names.waiting))
    for title, metrics in gauges:
        if metrics:
            yield _replicas(title, "short", f"sum by (replica) ({any_of(metrics)})")
    if names.kv_usage:
        yield _replicas("KV cache in use", "percentunit", f"max by (replica) ({any_of(names.kv_usage)})")
    if names.prefix_hits:
        shares = [
            f"(sum by (replica) (rate({hit}[{_WINDOW}])) / sum by (replica) (rate({asked}[{_WINDOW}])))"
            for hit, asked in zip(names.prefix_hits, names.prefix_queries, strict=True)
        ]
        yield _replicas("Prompt tokens found in the prefix cache", "percentunit", " or ".join(shares))
    if preempted:
        yield _replicas("Preemptions/s", "short", f"sum by (replica) (rate({preempted[0]}[{_WINDOW}]))")
    yield _replicas("Up", "short", f'up{{job="{ENGINE_JOB}"}}')


def _replicas(title: str, unit: str, expression: str) -> Panel:
    return Panel(title=title, unit=unit, queries={"replica {{replica}}": expression}, width=6)


def _at_the_door() -> Iterator[Panel]:
    counted = f'atoll_door_requests_total{{job="{DOOR_JOB}"}}'
    passed = f'atoll_door_requests_total{{job="{DOOR_JOB}",replica!=""}}'
    yield Panel(
        title="Answers of the door/s",
        unit="reqps",
        queries={"{{status}}": f"sum by (status) (rate({counted}[{_WINDOW}]))"},
    )
    yield Panel(
        title="The door's share for each replica",
        unit="percentunit",
        queries={
            "replica {{replica}}": f"sum by (replica) (rate({passed}[{_WINDOW}]))"
            f" / ignoring(replica) group_left() sum(rate({passed}[{_WINDOW}]))"
        },
    )


def _on_cards() -> Iterator[Panel]:
    """DCGM's names up to exporter 4.8."""
    label = "GPU {{gpu}}"
    yield Panel(
        title="Power", unit="watt", queries={label: "DCGM_FI_DEV_POWER_USAGE", "all": "sum(DCGM_FI_DEV_POWER_USAGE)"}
    )
    yield Panel(title="GPU temperature", unit="celsius", queries={label: "DCGM_FI_DEV_GPU_TEMP"})
    yield Panel(title="GPU in use", unit="percent", queries={label: "DCGM_FI_DEV_GPU_UTIL"})
    yield Panel(title="GPU memory", unit="bytes", queries={label: "DCGM_FI_DEV_FB_USED * 1048576"})


def _on_host() -> Iterator[Panel]:
    idle = f'sum(rate(node_cpu_seconds_total{{mode="idle"}}[{_WINDOW}])) / sum(rate(node_cpu_seconds_total[{_WINDOW}]))'
    yield Panel(title="CPU of the machine in use", unit="percentunit", queries={"all cores": f"1 - {idle}"})
    yield Panel(
        title="Memory of the machine in use",
        unit="bytes",
        queries={"in use": "node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes"},
    )
