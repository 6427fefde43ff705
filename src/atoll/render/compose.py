"""A bundle for Docker Compose: one service a replica, pinned to its GPUs, and nginx as the only door."""

import hashlib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any

from atoll.documents import write_yaml
from atoll.engines import Engine, Launch, emulated, find_engine, served_name
from atoll.engines.engine import is_path
from atoll.errors import InputError
from atoll.layout.layout import Layout, Replica
from atoll.model.card import ModelCard
from atoll.render.app import (
    APP_NETWORKS,
    APP_VOLUMES,
    BACKEND_PORT,
    OwnBackend,
    app_services,
    check_stack,
    dockerfile,
    published_port,
)
from atoll.render.bundle import Bundle, RenderSettings
from atoll.render.compose_readme import bundle_readme, stack_readme
from atoll.render.dotenv import show_value
from atoll.render.monitoring import (
    DOOR_PORT,
    GPU_PORT,
    GRAFANA_PORT,
    HOST_PORT,
    MONITORING,
    MONITORING_NETWORKS,
    MONITORING_VOLUMES,
    PROMETHEUS_PORT,
    Targets,
    check_extras,
    door_counters,
    monitoring_files,
    monitoring_services,
)
from atoll.render.nginx import CONTAINER_PORT, NginxForm, container_form, render_door
from atoll.render.parts import Part
from atoll.render.pool import Pool, UpstreamServer
from atoll.render.tls import CONTAINER_TLS_PORT, KEY, NGINX_USER, tls_files, tls_modes
from atoll.render.waiting import start_period_s

name = "compose"
COMPOSE_FILE = "compose.yaml"
BACKEND_IMAGE = emulated.image("")
NGINX_IMAGE = "nginx:1.31.3-alpine"  # `resolve` in an upstream needs 1.27.3; this is the version our tests run
NGINX_LABEL = "atoll.nginx"  # of nginx's container: its file when it was started
GPUS_LABEL, LAYOUT_LABEL = "atoll.gpus", "atoll.layout"  # of an emulated replica, which is given no devices
_NGINX_ID = f"{NGINX_USER}:{NGINX_USER}"
STOP_S = 130  # a little more than vLLM's own --shutdown-timeout


def render(layout: Layout, card: ModelCard, settings: RenderSettings) -> Bundle:
    check_stack(settings.stack)
    check_extras(settings.extras)
    files = {
        COMPOSE_FILE: _compose_head(layout, card.name) + write_yaml(_document(layout, card, settings)),
        **door_files(layout, settings),
        **tls_files(settings.tls),
        ".env": env_file(layout, settings),
        "layout.yaml": _with_hosts(layout).to_yaml(),
        "README.md": bundle_readme(layout, card) + stack_readme(layout, settings),
    }
    if _brings_atoll(layout, settings):
        files |= own_image(settings)
    if MONITORING in settings.extras:
        files |= monitoring_files(layout, _targets(layout), grafana_reads=f"http://prometheus:{PROMETHEUS_PORT}")
    owners = {KEY: settings.tls.owner} if settings.tls is not None else {}
    return Bundle(name=layout.name, files=files, modes={".env": 0o600, **tls_modes(settings.tls)}, owners=owners)


def own_image(settings: RenderSettings) -> dict[str, str]:
    """What an image with atoll is built from; its source is copied beside these."""
    return {"backend/Dockerfile": dockerfile(), "backend/requirements.txt": settings.requirements()}


def door_parts(*, watched: bool) -> tuple[Part, ...]:
    """What the door does beside passing requests on."""
    return (door_counters(host="0.0.0.0"),) if watched else ()  # noqa: S104 - no port is published


def _targets(layout: Layout) -> Targets:
    """As Prometheus reaches them on the bundle's networks."""
    return Targets(
        replicas=[f"{service_name(layout, number)}:{_port(one)}" for number, one in enumerate(layout.replicas)],
        door=f"nginx:{DOOR_PORT}",
        gpu=None if find_engine(layout.engine).emulates else f"dcgm-exporter:{GPU_PORT}",
        host=f"node-exporter:{HOST_PORT}",
    )


def _brings_atoll(layout: Layout, settings: RenderSettings) -> bool:
    """Whether an image with atoll is built from the bundle: for the backend, or for the emulated engine."""
    ours = settings.stack == "app" and settings.backend is None
    return ours or (find_engine(layout.engine).emulates and settings.engine_image is None)


def _document(layout: Layout, card: ModelCard, settings: RenderSettings) -> dict[str, Any]:
    services: dict[str, Any] = {
        service_name(layout, number): replica_service(layout, card, settings, number)
        for number in range(len(layout.replicas))
    }
    services["nginx"] = nginx_service(layout, settings, door_files(layout, settings))
    networks: dict[str, Any] = {"door": {}, "replicas": {"internal": True}}
    volumes = _volumes(layout)
    if settings.stack == "app":
        own = settings.backend
        services |= app_services(
            backend_image=BACKEND_IMAGE,
            care=_care(stop_s=60),
            own=own,
            model=served_name(card),
            door_port=layout.router.port,
        )
        networks |= APP_NETWORKS | dict(own.networks if own is not None else {})
        volumes |= APP_VOLUMES if own is None else _without_ours(APP_VOLUMES) | dict(own.volumes)
    if MONITORING in settings.extras:
        cards = not find_engine(layout.engine).emulates
        services |= monitoring_services(layout, care=_care(stop_s=60), cards=cards)
        networks |= MONITORING_NETWORKS
        volumes |= MONITORING_VOLUMES
    document = {
        "name": project_name(layout.name),
        "x-atoll": {"model": served_name(card), "engine": layout.engine},
        "services": services,
        "networks": networks,
    }
    return {**document, "volumes": volumes} if volumes else document


def _without_ours(volumes: dict[str, Any]) -> dict[str, Any]:
    """The control plane's workspace is its own."""
    return {name: value for name, value in volumes.items() if name != "workspace"}


def project_name(name: str) -> str:
    """Compose allows small letters, digits, dashes and underscores."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name.lower())
    return f"atoll-{kept}"


def door_files(layout: Layout, settings: RenderSettings) -> dict[str, str]:
    servers = [
        UpstreamServer(number=number, host=service_name(layout, number), port=_port(replica))
        for number, replica in enumerate(layout.replicas)
    ]
    form = door_form(settings.nginx_image, tls=settings.tls is not None)
    return compose_door(layout, servers, form, door_parts(watched=MONITORING in settings.extras))


def door_form(image: str | None, *, tls: bool) -> NginxForm:
    return container_form(image or NGINX_IMAGE, tls=tls)


def compose_door(
    layout: Layout, servers: Sequence[UpstreamServer], form: NginxForm, parts: Sequence[Part] = ()
) -> dict[str, str]:
    """The files that nginx reads, for the replicas of a layout that listen there."""
    keep_alive_s = find_engine(layout.engine).keep_alive_s(layout.engine_version)
    pool = Pool(layout=layout, servers=servers, engine_keep_alive_s=keep_alive_s)
    return render_door([pool], form=form, parts=parts)


def _with_hosts(layout: Layout) -> Layout:
    """Where the router goes by hash it goes by the replicas' names, so the simulator has to know them."""
    if not layout.router.policy.is_affine:
        return layout
    named = (replica.replace(host=service_name(layout, number)) for number, replica in enumerate(layout.replicas))
    return layout.replace(replicas=tuple(named))


def service_name(layout: Layout, number: int) -> str:
    return service_of(layout.engine, number)


def service_of(engine: str, number: int) -> str:
    return f"{engine}-{number}"


def _port(replica: Replica) -> int:
    assert replica.port is not None  # given by render_bundle
    return replica.port


def replica_service(layout: Layout, card: ModelCard, settings: RenderSettings, number: int) -> dict[str, Any]:
    engine = find_engine(layout.engine)
    replica = layout.replicas[number]
    inside = layout.replace(model=model_inside(layout))
    launch = engine.launch(inside, replica, card, host="0.0.0.0", port=_port(replica))  # noqa: S104
    words = len(engine.program)
    service: dict[str, Any] = {
        "image": settings.engine_image or engine.image(layout.engine_version),
        "entrypoint": list(launch.argv[:words]),
        "command": [word.replace("$", "$$") for word in launch.argv[words:]],  # Compose would read $ as a variable
        "environment": _container_environment(layout, engine, launch),
        "volumes": _replica_volumes(engine, number),
        "networks": ["replicas"],
        "healthcheck": _health_check(engine, replica, card),
        **_gpu_settings(engine, layout, replica, launch),
        **_care(stop_s=STOP_S),
    }
    if engine.emulates:
        build = {"build": {"context": "./backend"}} if settings.engine_image is None else {}
        service |= {**build, "working_dir": "/bundle", "read_only": True, "tmpfs": ["/tmp"]}  # noqa: S108
        service["labels"] = _emulated_labels(layout, replica)
    return service


def _emulated_labels(layout: Layout, replica: Replica) -> dict[str, str]:
    """What it is beside its command line: Compose replaces it when that part of the layout changes."""
    told = [layout.model, layout.engine_version, layout.box.to_yaml(), layout.flags.to_yaml(), replica.to_yaml()]
    return {GPUS_LABEL: ",".join(map(str, replica.gpus)), LAYOUT_LABEL: _fingerprint("\n".join(told))}


def _container_environment(layout: Layout, engine: Engine, launch: Launch) -> dict[str, str]:
    """Without CUDA_VISIBLE_DEVICES: a container counts the GPUs it was given from 0."""
    own = {key: value for key, value in launch.env.items() if key != "CUDA_VISIBLE_DEVICES"}
    if not engine.emulates and not is_path(layout.model):
        own |= {"HF_HOME": "/models", "HF_MODULES_CACHE": "/tmp/hf-modules"}  # noqa: S108 - /models is read-only
    return {**own, "VLLM_API_KEY": "${VLLM_API_KEY:-}"}


def model_inside(layout: Layout) -> str:
    """A folder is found under /models in the container; a name stays a name, looked up in the hub's cache there."""
    return f"/models/{PurePosixPath(layout.model).name}" if is_path(layout.model) else layout.model


def _replica_volumes(engine: Engine, number: int) -> list[str]:
    if engine.emulates:
        return ["./layout.yaml:/bundle/layout.yaml:ro"]
    models = "${ATOLL_MODELS:?set it in .env to the folder that holds the models}:/models:ro"
    return [models] if engine.cache_folder is None else [models, f"cache-{number}:{engine.cache_folder}"]


def _volumes(layout: Layout) -> dict[str, Any]:
    if find_engine(layout.engine).cache_folder is None:
        return {}
    return {f"cache-{number}": {} for number in range(len(layout.replicas))}


def _health_check(engine: Engine, replica: Replica, card: ModelCard) -> dict[str, Any]:
    return {
        "test": ["CMD", *engine.health_command(_port(replica))],
        "interval": "10s",
        "timeout": "5s",
        "retries": 6,
        "start_period": f"{start_period_s(card)}s",
    }


def _gpu_settings(engine: Engine, layout: Layout, replica: Replica, launch: Launch) -> dict[str, Any]:
    """The replica's own GPUs as container engines call them, and room for what its workers share."""
    found: dict[str, Any] = {}
    if not engine.emulates:
        device = {"driver": "nvidia", "device_ids": list(layout.box.device_ids(replica.gpus)), "capabilities": ["gpu"]}
        found["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    if not engine.emulates and len(replica.gpus) > 1:
        # Docker gives 64 MiB; vLLM's ring to its workers is 24 MiB x 10 and NCCL takes the rest.
        found["shm_size"] = "16gb"
        found["ulimits"] = {"memlock": -1, "stack": 67108864}
    if launch.cpus is not None:
        found["cpuset"] = launch.cpus
    return found


def _care(*, stop_s: int, stop_signal: str | None = None) -> dict[str, Any]:
    """What every service gets: it comes back, it may finish its answers, it cannot grow its rights or fill the disk."""
    return {
        "init": True,
        "restart": "unless-stopped",
        **({"stop_signal": stop_signal} if stop_signal else {}),
        "stop_grace_period": f"{stop_s}s",
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "logging": {"driver": "json-file", "options": {"max-size": "50m", "max-file": "3"}},
    }


def nginx_service(layout: Layout, settings: RenderSettings, door: Mapping[str, str]) -> dict[str, Any]:
    """It waits for no replica: it asks Docker's DNS again and again, and serves with those that are there."""
    probe = f"http://127.0.0.1:{CONTAINER_PORT}/nginx-health"
    tls = settings.tls is not None
    inside = CONTAINER_TLS_PORT if tls else CONTAINER_PORT
    return {
        "image": settings.nginx_image or NGINX_IMAGE,
        # the image's own nginx user; 8080 needs no rights. The key is for its owner's eyes alone.
        "user": f"${{ATOLL_NGINX_USER:-{_NGINX_ID}}}" if tls else _NGINX_ID,
        "ports": [f"${{ATOLL_BIND:-{bind_address(settings.bind)}}}:${{ATOLL_PORT:-{layout.router.port}}}:{inside}"],
        "volumes": [f"./{name}:/etc/nginx/{name}:ro" for name in [*door, *(["tls"] if tls else [])]],
        "networks": ["door", "replicas"],
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108
        "healthcheck": {
            "test": ["CMD", "wget", "-q", "-O", "/dev/null", probe],
            "interval": "5s",
            "timeout": "3s",
            "retries": 3,
            "start_period": "10s",
        },
        "labels": {f"atoll.{name.partition('.')[0]}": _fingerprint(text) for name, text in door.items()},
        **_care(stop_s=STOP_S, stop_signal="SIGQUIT"),  # nginx ends its answers first
    }


def _fingerprint(text: str) -> str:
    """In a label it makes Compose replace nginx when only its file changed: a bind mount keeps showing the old one."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _compose_head(layout: Layout, name: str) -> str:
    return (
        f"# {layout.name}: {len(layout.replicas)} x {name}, made by atoll from layout.yaml.\n"
        "# Change the layout and render again rather than this file. Settings of this machine stand in .env.\n"
    )


def env_file(layout: Layout, settings: RenderSettings) -> str:
    lines = [
        "# Who reaches the door: 127.0.0.1 is this machine alone, 0.0.0.0 the network (then set VLLM_API_KEY).",
        f"ATOLL_BIND={bind_address(settings.bind)}",
        f"ATOLL_PORT={layout.router.port}",
    ]
    if settings.tls is not None:
        lines += [
            "# Who nginx runs as: the user and group that tls/door.key belongs to.",
            f"ATOLL_NGINX_USER={settings.tls.owner[0]}:{settings.tls.owner[1]}",
        ]
    if not find_engine(layout.engine).emulates:
        lines += [
            "# Mounted read-only at /models, so its files must be readable by all.",
            _models_line(layout, settings),
        ]
    lines += [
        "# Clients send it as `Authorization: Bearer ...`; empty means that nobody is asked.",
        f"VLLM_API_KEY={show_value(settings.secrets.get('VLLM_API_KEY', ''))}",
    ]
    if MONITORING in settings.extras:
        lines += [
            "# Grafana takes the password of its user admin on its first start only.",
            f"GRAFANA_PASSWORD={settings.secrets.get('GRAFANA_PASSWORD', '')}",
            f"ATOLL_GRAFANA_PORT={GRAFANA_PORT}",
            f"ATOLL_PROMETHEUS_PORT={PROMETHEUS_PORT}",
            "ATOLL_KEEP_METRICS=30d",
        ]
    if settings.stack == "app":
        lines += [
            "# MongoDB takes it on its first start only; it is changed there, not here.",
            f"MONGO_PASSWORD={settings.secrets.get('MONGO_PASSWORD', '')}",
            *(_control_plane_lines(settings) if settings.backend is None else _backend_lines(settings.backend, layout)),
        ]
    return "\n".join(lines) + "\n"


def _control_plane_lines(settings: RenderSettings) -> list[str]:
    return [
        "# Who holds it may do everything in the control plane.",
        f"ATOLL_TOKEN={settings.secrets.get('ATOLL_TOKEN', '')}",
        "# The backend's port on this machine, and further names it may be asked under (a,b).",
        f"ATOLL_BACKEND_PORT={BACKEND_PORT}",
        "ATOLL_HOSTS=",
    ]


def _backend_lines(own: OwnBackend, layout: Layout) -> list[str]:
    lines = [
        "# Who reaches the backend: 127.0.0.1 is this machine alone, 0.0.0.0 the network.",
        "ATOLL_BACKEND_BIND=127.0.0.1",
        f"ATOLL_BACKEND_PORT={published_port(own, layout.router.port)}",
    ]
    if own.context is not None:
        lines += ["# The folder of its Dockerfile.", f"ATOLL_BACKEND={show_value(own.context)}"]
    if own.secrets:
        lines.append("# The backend's own.")
    return [*lines, *(f"{name}={show_value(value)}" for name, value in own.secrets.items())]


def bind_address(text: str) -> str:
    """An address as Compose takes it, IPv6 in brackets; raises InputError for what is no address."""
    try:
        address = ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise InputError(f"--bind {text!r} is no address of this machine, such as 127.0.0.1, 0.0.0.0 or ::1.") from None
    return f"[{address}]" if address.version == 6 else str(address)


def _models_line(layout: Layout, settings: RenderSettings) -> str:
    folder = models_folder(layout, settings)
    return "ATOLL_MODELS=${HOME}/.cache/huggingface" if folder is None else f"ATOLL_MODELS={show_value(folder)}"


def models_folder(layout: Layout, settings: RenderSettings) -> str | None:
    """The host's folder that is mounted at /models; None where neither the settings nor the model say one."""
    if settings.models is not None:
        return settings.models
    return str(PurePosixPath(layout.model).parent) if is_path(layout.model) else None
