"""Somebody's own backend, read from its Dockerfile and Compose file, to stand in the app stack."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atoll.doctor.compose import Project, Service
from atoll.doctor.files import DiskFiles
from atoll.doctor.gather import gather
from atoll.documents import parse_yaml
from atoll.errors import InputError
from atoll.outside.files import read_text
from atoll.render.app import ENGINE_KEY, ENGINE_URL, MONGO_IMAGE, MONGO_PASSWORD, OwnBackend, mongo_url
from atoll.render.reference import check_image

COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
DEFAULT_PORT = 8000  # uvicorn's
LIKELY = ("backend", "api", "app", "server", "web")
OURS = frozenset({"door", "replicas", "desk", "data"})  # networks of the stack
KEPT = ("command", "entrypoint", "working_dir", "user", "tmpfs", "shm_size", "extra_hosts", "healthcheck", "labels")
_ENGINE_NAME = re.compile(r"OPENAI|VLLM|LLM|INFERENCE", re.IGNORECASE)
_KEY_NAME = re.compile(r"(OPENAI|VLLM|LLM).*KEY$", re.IGNORECASE)
_MODEL_NAME = re.compile(r"(^|_)MODEL(_?(NAME|ID))?$", re.IGNORECASE)
_MONGO_USER = re.compile(r"MONGO.*(USER|USERNAME)$", re.IGNORECASE)
_MONGO_PASSWORD = re.compile(r"MONGO.*(PASS|PASSWORD)$", re.IGNORECASE)
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|SECRET_KEY|PASSWORD|API_KEY|ACCESS_KEY)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(hf_|sk-|ghp_)[A-Za-z0-9_-]{8,}")
_HERE = frozenset({"localhost", "127.0.0.1", "host.docker.internal", "0.0.0.0"})  # noqa: S104 - compared, not bound


def read_backend(given: str) -> OwnBackend:
    """What `--backend DIR|IMAGE` means.

    A folder holds a Dockerfile, or a Compose file with one service that is built; the Compose file may also lie beside
    the folder. What it says of the service is kept, and what cannot work or is unsafe in the stack is put right: see
    the notes.

    Raises:
        InputError: neither Dockerfile nor Compose file, or several services that it could be.
    """
    folder = Path(given).expanduser()
    if not folder.is_dir():
        if given.startswith((".", "/", "~")):
            raise InputError(f"--backend {given}: there is no such folder.")
        return OwnBackend(image=check_image(given, option="--backend"), **_guessed())
    found = _service_of(folder.resolve())
    context, dockerfile = (folder.resolve(), "Dockerfile") if found is None else _build_place(*found[1:])
    if not (context / dockerfile).is_file():
        raise InputError(
            f"--backend {given}: there is no {dockerfile} in {context}, and no Compose file names another."
        )
    image = _read_dockerfile(read_text(context / dockerfile))
    if found is None:
        made = OwnBackend(**_guessed(image.environment), port=image.port or DEFAULT_PORT)
    else:
        made = _from_compose(*found, image)
    name = {"dockerfile": dockerfile} if dockerfile != "Dockerfile" else {}
    return replace(
        made,
        context=str(context),
        build={**name, **made.build},
        checks_itself=made.checks_itself or image.checks_itself,
    )


@dataclass(frozen=True, kw_only=True)
class _Image:
    """What a Dockerfile says of the program."""

    port: int | None
    environment: dict[str, str]
    checks_itself: bool


def _read_dockerfile(text: str) -> _Image:
    """The last stage is what runs; a port of the command goes before EXPOSE."""
    joined = re.sub(r"\\[ \t]*\n", " ", text)
    stage = re.split(r"(?im)^[ \t]*FROM\s", joined)[-1]
    lines = [line.strip().split(None, 1) for line in stage.splitlines() if len(line.strip().split(None, 1)) == 2]
    said = [(word.upper(), rest) for word, rest in lines]
    commands = " ".join(_words(rest) for word, rest in said if word in {"CMD", "ENTRYPOINT"})
    exposed = [int(number) for word, rest in said if word == "EXPOSE" for number in re.findall(r"\b(\d+)", rest)]
    environment: dict[str, str] = {}
    for word, rest in said:
        if word == "ENV":
            environment |= dict(re.findall(r"""([A-Za-z_]\w*)=["']?([^\s"']*)""", rest))
    return _Image(
        port=_port_of(commands) or next(iter(exposed), None),
        environment=environment,
        checks_itself=any(word == "HEALTHCHECK" and not rest.upper().startswith("NONE") for word, rest in said),
    )


def _words(rest: str) -> str:
    """A command in either of its forms."""
    try:
        listed = json.loads(rest)
    except ValueError:
        return rest
    return " ".join(map(str, listed)) if isinstance(listed, list) else rest


def _port_of(command: str) -> int | None:
    """Of uvicorn, fastapi, hypercorn and gunicorn."""
    found = re.search(r"--port[ =](\d+)|(?:--bind|-b)[ =]\S*?:(\d+)", command)
    return int(found[1] or found[2]) if found else None


def _guessed(said: dict[str, str] | None = None) -> dict[str, Any]:
    """Nothing tells how it finds its model and its database: the names that such services usually read are set."""
    said = said or {}
    environment = {
        "MONGO_URL": mongo_url("app"),
        "MONGODB_URI": mongo_url("app"),
        "OPENAI_BASE_URL": f"{ENGINE_URL}/v1",
        "OPENAI_API_KEY": ENGINE_KEY,
        "MODEL_NAME": "",
    }
    rewritten = {
        name: value for name, old in said.items() if (value := _rewritten(name, old, frozenset(), frozenset()))
    }
    given = ", ".join(environment)
    note = f"No Compose file says how it is set up, so it is given {given}; change them where it reads others."
    return {"environment": environment | rewritten, "model_variables": ("MODEL_NAME",), "notes": (note,)}


def _service_of(folder: Path) -> tuple[Project, Service, Path] | None:
    """The service that is the backend, with the folder of its Compose file; None where no Compose file builds one."""
    for place in (folder, folder.parent):
        file = next((place / name for name in COMPOSE_NAMES if (place / name).is_file()), None)
        if file is None:
            continue
        parse_yaml(read_text(file), origin=str(file))  # what is no YAML is told with its line
        projects = gather([str(file)], DiskFiles()).projects
        built = [(project, one) for project in projects for one in project.services if one.get("build") is not None]
        mine = [(project, one) for project, one in built if _build_place(one, place)[0] == folder]
        chosen = mine or (built if place == folder else [])
        likely = [(project, one) for project, one in chosen if one.name in LIKELY] if len(chosen) > 1 else chosen
        if len(likely) > 1 or (chosen and not likely):
            names = ", ".join(one.name for _, one in chosen)
            raise InputError(
                f"{file} builds several services ({names}); give --backend the folder of one's Dockerfile."
            )
        if likely:
            return (*likely[0], place)
    return None


def _build_place(service: Service, place: Path) -> tuple[Path, str]:
    """The folder that the image is built from, and its Dockerfile's name."""
    build = service.get("build")
    context = (build.text if build is not None and build.is_scalar else service.string("build", "context")) or "."
    return (place / context).resolve(), service.string("build", "dockerfile") or "Dockerfile"


def _from_compose(project: Project, service: Service, place: Path, image: _Image) -> OwnBackend:
    """What the Compose file says of the service, put right."""
    engines = frozenset(name for one in project.services if _is_engine(one) for name in one.names)
    mongos = frozenset(name for one in project.services if one.kind == "mongo" for name in one.names)
    models = {one.vllm.text("--served-model-name") or one.vllm.model for one in project.services if one.vllm}
    environment, secrets, model_variables, notes = {}, {}, [], []
    settings = {name: setting.value for name, setting in service.environment.items()}
    for name, value in ({**image.environment, **settings}).items():
        if value is None:
            environment[name] = f"${{{name}:-}}"
        elif (made := _rewritten(name, value, engines, mongos)) is not None:
            environment[name] = made
            notes.append(f"{name} was {_as_told(name, value)}: it is {_what_it_is(made)} now.")
        elif value in models or (_MODEL_NAME.search(name) and "/" in value):
            environment[name] = value
            model_variables.append(name)
        elif _SECRET_NAME.search(name) or _SECRET_VALUE.match(value):
            environment[name], secrets[name] = f"${{{name}:-}}", value
            notes.append(f"The value of {name} stands in .env, not in the Compose file.")
        else:
            environment[name] = value.replace("$", "$$")
    networks = dict(_networks(project, service))
    mounts, volumes = _mounts(project, service, place)
    return OwnBackend(
        name=service.name,
        build=_build_settings(service),
        port=next((port for one in service.ports for port in one.targets()), None) or image.port or DEFAULT_PORT,
        environment=environment,
        secrets=secrets,
        model_variables=tuple(model_variables),
        settings={**_kept(service), **({"volumes": mounts} if mounts else {})},
        networks=networks,
        volumes=volumes,
        checks_itself=service.has_healthcheck,
        mongo_image=_mongo_image(project),
        notes=(*notes, *_notes(project, service)),
    )


def _is_engine(service: Service) -> bool:
    """What answers /v1 in their file: an engine, a router, or nginx before them."""
    return service.serves_llm or service.kind == "nginx"


def _rewritten(name: str, value: str, engines: frozenset[str], mongos: frozenset[str]) -> str | None:
    """The value that works in the stack, where the one that is there would not."""
    if "://" in value:
        made = _rewritten_url(name, value, engines)
    else:
        host, colon, _ = value.partition(":")
        made = ("nginx:8080" if colon else "nginx") if host in engines else "mongo" if host in mongos else None
    by_name = ((_KEY_NAME, ENGINE_KEY), (_MONGO_USER, "atoll"), (_MONGO_PASSWORD, MONGO_PASSWORD))
    return made or next((ours for pattern, ours in by_name if pattern.search(name)), None)


def _rewritten_url(name: str, value: str, engines: frozenset[str]) -> str | None:
    parts = urlsplit(value)
    if parts.scheme.startswith("mongodb"):
        return mongo_url(parts.path.strip("/") or "app")
    if parts.hostname in engines or (parts.hostname in _HERE and _ENGINE_NAME.search(name)):
        return ENGINE_URL + (parts.path.rstrip("/") if parts.path != "/" else "")
    return None


def _what_it_is(made: str) -> str:
    if made == ENGINE_KEY:
        return "the key of .env"
    return "MongoDB with the password of .env" if MONGO_PASSWORD in made else made


def _as_told(name: str, value: str) -> str:
    """A value for people to read, which holds no password."""
    if "://" in value:
        return re.sub(r"//[^/@]*@", "//...@", value)
    return "a secret of the Compose file" if _SECRET_NAME.search(name) and value != "EMPTY" else value


def _kept(service: Service) -> dict[str, Any]:
    return {name: node.plain() for name in KEPT if (node := service.get(name)) is not None}


def _build_settings(service: Service) -> dict[str, Any]:
    build = service.get("build")
    if build is None or not build.is_map:
        return {}
    return {name: node.plain() for name, node in build.pairs() if name not in {"context", "dockerfile"}}


def _networks(project: Project, service: Service) -> Iterator[tuple[str, Any]]:
    """Its own, as they are declared; a name of the stack's gets another one."""
    for name in service.networks:
        if name == "default":
            continue
        node = project.root.get("networks", name)
        plain = node.plain() if node is not None and node.is_map else {}
        yield (f"own-{name}" if name in OURS else name), plain or {}


def _mounts(project: Project, service: Service, place: Path) -> tuple[list[str], dict[str, Any]]:
    """Its volumes; folders by their whole path, since the bundle lies elsewhere."""
    listed, named = [], {}
    for mount in service.mounts:
        if mount.source is None or mount.kind not in {"bind", "volume"}:
            continue
        source = str((place / mount.source).resolve()) if mount.kind == "bind" else mount.source
        only_read = (mount.node.text or "").endswith(":ro") or mount.node.string("read_only") == "true"
        listed.append(f"{source}:{mount.target}" + (":ro" if only_read else ""))
        if mount.kind == "volume":
            node = project.root.get("volumes", mount.source)
            named[mount.source] = (node.plain() if node is not None and node.is_map else {}) or {}
    return listed, named


def _mongo_image(project: Project) -> str:
    """Theirs where it names a version: MongoDB refuses data of another major one."""
    texts = [one.string("image") or "" for one in project.services if one.kind == "mongo"]
    return next((text for text in texts if re.search(r":\d", text)), MONGO_IMAGE)


def _notes(project: Project, service: Service) -> Iterator[str]:
    if any(port.open_to_all for port in service.ports):
        yield "It was open to every network; ATOLL_BACKEND_BIND in .env says who reaches it now."
    for one in project.services:
        if one.kind == "mongo":
            strange = [mount.target for mount in one.mounts if mount.target not in {"/data/db", "/data/configdb"}]
            lost = f" Its volume was at {strange[0]}, where MongoDB keeps nothing." if strange else ""
            yield f"{one.name} is the stack's MongoDB: with a password, published nowhere, its data at /data/db.{lost}"
        elif _is_engine(one):
            yield f"{one.name} makes way for the layout's replicas behind nginx."
        elif one is not service:
            yield f"{one.name} is left out; put it into compose.override.yaml beside compose.yaml."
