"""The first stack: the backend (atoll's control plane) and MongoDB beside vLLM and nginx, in one Compose file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atoll.errors import InputError

STACKS = ("app",)
BACKEND_PORT = 8090
MONGO_IMAGE = "mongo:8.0"  # a new major version refuses data of the one before the last, so the minor is pinned
BASE_IMAGE = "python:3.12.11-slim-bookworm"
MONGO_CACHE_GB = 1  # by default it takes half of the memory, which vLLM wants for the weights' page cache
USER = "10001:10001"
MONGO_PASSWORD = "${MONGO_PASSWORD:?is made by atoll render and stands in .env}"  # noqa: S105 - a reference
ATOLL_TOKEN = "${ATOLL_TOKEN:?is made by atoll render and stands in .env}"  # noqa: S105 - a reference
SECRETS = ("MONGO_PASSWORD", "VLLM_API_KEY", "ATOLL_TOKEN")


ENGINE_URL = "http://nginx:8080"  # inside the stack; the door spreads over the replicas that live
ENGINE_KEY = "${VLLM_API_KEY:-EMPTY}"  # OpenAI's client refuses an empty one


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnBackend:
    """Somebody's own service, which stands where our backend would."""

    name: str = "backend"  # as other containers know it
    image: str | None = None  # None: built from `context`
    context: str | None = None  # the Dockerfile's folder on this host; it stands in .env as ATOLL_BACKEND
    build: Mapping[str, Any] = field(default_factory=dict)  # more of Compose's `build`: dockerfile, target, args
    port: int = 8000  # that it listens on
    environment: Mapping[str, str] = field(default_factory=dict)  # as Compose reads it
    secrets: Mapping[str, str] = field(default_factory=dict)  # variables whose values stand in .env
    model_variables: tuple[str, ...] = ()  # of the environment: the model that requests ask for
    settings: Mapping[str, Any] = field(default_factory=dict)  # of its service, as it is: command, user, volumes
    networks: Mapping[str, Any] = field(default_factory=dict)  # its own, beside those of the stack
    volumes: Mapping[str, Any] = field(default_factory=dict)  # named ones
    checks_itself: bool = False  # its image or its Compose file says how it is asked whether it is alive
    mongo_image: str = MONGO_IMAGE
    notes: tuple[str, ...] = ()  # what was put right, and what was left out, a sentence each


def mongo_url(database: str) -> str:
    """MongoDB's address inside the stack, as Compose reads it."""
    return f"mongodb://atoll:{MONGO_PASSWORD}@mongo:27017/{database}?authSource=admin"


def check_stack(stack: str | None) -> None:
    if stack is not None and stack not in STACKS:
        raise InputError(f"{stack!r} is no stack; there is {' and '.join(STACKS)}.")


def app_services(
    *, backend_image: str, care: Mapping[str, Any], own: OwnBackend | None = None, model: str = "", door_port: int = 0
) -> dict[str, Any]:
    """Services `backend` and `mongo`. The backend is published to this machine alone, and nginx does not lead to it:
    who may load an engine may not delete runs.
    """
    if own is not None:
        return {"backend": _own_backend(own, care, model, door_port), "mongo": _mongo(care, own.mongo_image)}
    return {"backend": _backend(backend_image, care), "mongo": _mongo(care)}


def _own_backend(own: OwnBackend, care: Mapping[str, Any], model: str, door_port: int) -> dict[str, Any]:
    """It keeps its rights within its container, which its image may want; all else is as for ours."""
    source = {"image": own.image} if own.image is not None else {"build": _build_of(own)}
    networks = [*("desk", "replicas", "data"), *own.networks]
    environment = {**own.environment, **dict.fromkeys(own.model_variables, model.replace("$", "$$"))}
    probe = f"import socket; socket.create_connection(('127.0.0.1', {own.port}), 4).close()"
    check = {"test": ["CMD", "python", "-c", probe], "interval": "10s", "timeout": "5s", "retries": 6}
    return {
        **source,
        **own.settings,
        "environment": environment,
        "ports": [
            f"${{ATOLL_BACKEND_BIND:-127.0.0.1}}:${{ATOLL_BACKEND_PORT:-{published_port(own, door_port)}}}:{own.port}"
        ],
        "networks": networks if own.name == "backend" else {one: {"aliases": [own.name]} for one in networks},
        "depends_on": {"mongo": {"condition": "service_healthy"}, "nginx": {"condition": "service_healthy"}},
        **({} if own.checks_itself else {"healthcheck": {**check, "start_period": "60s"}}),
        **{name: value for name, value in care.items() if name != "cap_drop"},
    }


def published_port(own: OwnBackend, door_port: int) -> int:
    """Its own port on this machine too, where the door does not have it."""
    return own.port if own.port != door_port else BACKEND_PORT


def _build_of(own: OwnBackend) -> dict[str, Any]:
    return {"context": "${ATOLL_BACKEND:?set it in .env to the folder of the backend's Dockerfile}", **own.build}


def _backend(image: str, care: Mapping[str, Any]) -> dict[str, Any]:
    probe = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{BACKEND_PORT}/health', timeout=4)"
    return {
        "image": image,
        "build": {"context": "./backend"},
        "environment": {
            "ATOLL_CATALOG": mongo_url("atoll"),
            "ATOLL_ENGINE_URL": f"{ENGINE_URL}/v1",
            "ATOLL_HOSTS": "${ATOLL_HOSTS:-}",
            "ATOLL_TOKEN": ATOLL_TOKEN,
            "ATOLL_WORKSPACE": "/workspace",
            "VLLM_API_KEY": "${VLLM_API_KEY:-}",
        },
        "volumes": ["workspace:/workspace"],
        "ports": [f"127.0.0.1:${{ATOLL_BACKEND_PORT:-{BACKEND_PORT}}}:{BACKEND_PORT}"],
        "networks": ["desk", "replicas", "data"],
        "depends_on": {"mongo": {"condition": "service_healthy"}},
        "user": USER,
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108
        "healthcheck": {
            "test": ["CMD", "python", "-c", probe],
            "interval": "10s",
            "timeout": "5s",
            "retries": 6,
            "start_period": "60s",
        },
        **care,
    }


def _mongo(care: Mapping[str, Any], image: str = MONGO_IMAGE) -> dict[str, Any]:
    """The health check asks by the container's own name: the server of the first start, which is still without
    users and about to be restarted, listens on 127.0.0.1 only.
    """
    return {
        "image": image,
        "command": ["--wiredTigerCacheSizeGB", str(MONGO_CACHE_GB), "--bind_ip_all"],
        "environment": {
            "MONGO_INITDB_ROOT_USERNAME": "atoll",
            "MONGO_INITDB_ROOT_PASSWORD": MONGO_PASSWORD,
        },
        "volumes": ["mongo-data:/data/db", "mongo-config:/data/configdb"],
        "networks": ["data"],
        "user": "999:999",  # the image's own mongodb user
        "read_only": True,  # its home is /data/db, and what it starts with goes to /tmp (docker-entrypoint.sh)
        "tmpfs": ["/tmp"],  # noqa: S108
        "healthcheck": {
            "test": ["CMD", "mongosh", "--quiet", "--host", "mongo", "--eval", "db.adminCommand('ping').ok"],
            "interval": "10s",
            "timeout": "10s",
            "retries": 6,
            "start_period": "60s",
        },
        **care,
    }


APP_VOLUMES: dict[str, Any] = {"workspace": {}, "mongo-data": {}, "mongo-config": {}}
# Docker publishes no port of a container that is on internal networks only.
APP_NETWORKS: dict[str, Any] = {"desk": {}, "data": {"internal": True}}


def dockerfile(base: str = BASE_IMAGE) -> str:
    """The control plane's image: dependencies in a layer of their own, so a new atoll does not install them again."""
    return f"""FROM {base}

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# In a closed network put the wheels into wheels/; where there is a network, this brings them:
# pip download -r requirements.txt -d wheels --only-binary=:all: --python-version 3.12
COPY requirements.txt wheel[s] /wheels/
RUN pip install --require-hashes -r /wheels/requirements.txt \\
  $(ls /wheels/*.whl >/dev/null 2>&1 && echo --no-index --find-links=/wheels)

COPY src /app/src
ENV PYTHONPATH=/app/src

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin atoll && install -d -o 10001 -g 10001 /workspace
USER 10001:10001
WORKDIR /tmp
EXPOSE {BACKEND_PORT}
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \\
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:{BACKEND_PORT}/health', timeout=4)"]
CMD ["python", "-m", "uvicorn", "--factory", "atoll.web.serving:app_from_environment", \\
     "--host", "0.0.0.0", "--port", "{BACKEND_PORT}"]
"""
