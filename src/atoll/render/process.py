"""A bundle for plain processes: nginx.conf, layout.yaml and process.yaml, the command line of every process."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from atoll.documents import Document
from atoll.engines import find_engine, served_name
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.render.bundle import Bundle, RenderSettings
from atoll.render.monitoring import (
    GPU_PORT,
    HOST_PORT,
    MONITORING,
    PROMETHEUS_PORT,
    Targets,
    check_extras,
    door_counters,
    monitoring_files,
)
from atoll.render.nginx import process_form, render_door
from atoll.render.parts import Part
from atoll.render.pool import Pool, UpstreamServer
from atoll.render.tls import tls_files, tls_modes

name = "process"
PROCESS_FILE = "process.yaml"
LOOPBACK = "127.0.0.1"


class ReplicaProcess(Document):
    """One replica's process, started in the bundle's folder."""

    number: int
    argv: tuple[str, ...]
    env: dict[str, str] = {}
    cpus: str | None = None  # the cores it belongs on: "0-31,64-95"
    host: str
    port: int
    health_path: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class RouterProcess(Document):
    """nginx, started in the bundle's folder; its own files lie there too."""

    argv: tuple[str, ...]
    host: str
    port: int
    health_path: str = "/nginx-health"
    tls: bool = False
    nginx: tuple[int, ...] | None = None  # the release that its file was written for; None: any

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


class ProcessPlan(Document):
    """What process.yaml holds: every process of a deployment. Secrets are not in it; they come by the environment."""

    name: str
    engine: str
    model: str  # the name that requests ask for
    replicas: tuple[ReplicaProcess, ...]
    router: RouterProcess


def render(layout: Layout, card: ModelCard, settings: RenderSettings) -> Bundle:
    check_extras(settings.extras)
    watched = MONITORING in settings.extras
    plan = plan_processes(layout, card, settings)
    upstreams = [UpstreamServer(number=r.number, host=r.host, port=r.port) for r in plan.replicas]
    files = {
        PROCESS_FILE: plan.to_yaml(),
        **process_door(layout, upstreams, plan.router, door_parts(plan, watched=watched)),
        **tls_files(settings.tls),
        "layout.yaml": layout.to_yaml(),
        "README.md": _readme(layout, plan) + (_monitoring_readme() if watched else ""),
    }
    if watched:
        targets = Targets(
            replicas=[f"{r.host}:{r.port}" for r in plan.replicas],
            door=f"{LOOPBACK}:{_free_port(plan)}",
            gpu=None if find_engine(layout.engine).emulates else f"{LOOPBACK}:{GPU_PORT}",
            host=f"{LOOPBACK}:{HOST_PORT}",
        )
        files |= monitoring_files(layout, targets, grafana_reads=f"http://{LOOPBACK}:{PROMETHEUS_PORT}")
    return Bundle(name=layout.name, files=files, modes=tls_modes(settings.tls))


def door_parts(plan: ProcessPlan, *, watched: bool) -> tuple[Part, ...]:
    """What stands in the door beside its replicas."""
    return (door_counters(_free_port(plan)),) if watched else ()


def _free_port(plan: ProcessPlan) -> int:
    """Behind the door's own, and no replica's."""
    taken = {plan.router.port, *(replica.port for replica in plan.replicas)}
    return next(port for port in range(plan.router.port % 65535 + 1, 65536) if port not in taken)


def _monitoring_readme() -> str:
    return f"""
`{MONITORING}/` is for a Prometheus and a Grafana of this machine; nothing of it is started here:

    prometheus --config.file={MONITORING}/prometheus.yml --web.listen-address={LOOPBACK}:{PROMETHEUS_PORT}

Grafana takes `{MONITORING}/grafana/provisioning` as its provisioning folder, and the dashboard from
`/var/lib/grafana/dashboards`, or by Import. DCGM exporter (-f {MONITORING}/dcgm.csv) and node exporter are read at
their usual ports, {GPU_PORT} and {HOST_PORT}.
"""


def process_door(
    layout: Layout, servers: Sequence[UpstreamServer], router: RouterProcess, parts: Sequence[Part] = ()
) -> Mapping[str, str]:
    """The files that nginx reads, for the replicas of a layout that listen there."""
    keep_alive_s = find_engine(layout.engine).keep_alive_s(layout.engine_version)
    pool = Pool(layout=layout, servers=servers, engine_keep_alive_s=keep_alive_s)
    form = process_form(router.host, router.port, tls=router.tls, version=router.nginx)
    return render_door([pool], form=form, parts=parts)


def made_of(layout: Layout, process: ReplicaProcess) -> str:
    """Names what a replica runs: its command line less the port and, where the engine reads it, the layout."""
    words = [word if word != str(process.port) else "PORT" for word in process.argv]
    told: list[object] = [words, process.env, process.cpus]
    if find_engine(layout.engine).emulates:
        told += [layout.model, layout.box.to_plain(), layout.flags.to_plain(), layout.engine_version]
        told.append(layout.replicas[process.number].replace(port=None).to_plain())
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def plan_processes(layout: Layout, card: ModelCard, settings: RenderSettings | None = None) -> ProcessPlan:
    settings = settings or RenderSettings()
    return ProcessPlan(
        name=layout.name,
        engine=layout.engine,
        model=served_name(card),
        replicas=tuple(_replica(layout, card, number) for number in range(len(layout.replicas))),
        router=RouterProcess(
            argv=("nginx", "-p", ".", "-c", "nginx.conf", "-e", "stderr"),
            host=LOOPBACK,
            port=layout.router.port,
            tls=settings.tls is not None,
            nginx=settings.nginx_version,
        ),
    )


def _replica(layout: Layout, card: ModelCard, number: int) -> ReplicaProcess:
    engine = find_engine(layout.engine)
    replica = layout.replicas[number]
    assert replica.port is not None  # given by render_bundle
    launch = engine.launch(layout, replica, card, host=LOOPBACK, port=replica.port)
    return ReplicaProcess(
        number=number,
        argv=launch.argv,
        env=launch.env,
        cpus=launch.cpus,
        host=LOOPBACK,
        port=replica.port,
        health_path=engine.health_path,
    )


def _readme(layout: Layout, plan: ProcessPlan) -> str:
    return f"""# {layout.name} as plain processes

    atoll up .        # {len(plan.replicas)} x {layout.engine}, then nginx on {plan.router.url}
    atoll status .
    atoll down .

`process.yaml` has the command line of every process, `nginx.conf` the router's configuration.
Everything listens on loopback; logs and temporary files stay in this folder.
"""
