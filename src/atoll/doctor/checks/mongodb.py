"""MongoDB beside the engines."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import found, join
from atoll.doctor.checks.ports import on_loopback
from atoll.doctor.command_edits import add_option
from atoll.doctor.compose import Project, Service
from atoll.doctor.edits import Edits, add_key, add_volume, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.parts import Setting
from atoll.doctor.rule import ERROR, INFO, WARNING, rule
from atoll.doctor.words import words_of


def _databases(facts: Facts) -> Iterator[tuple[Project, Service]]:
    for project in facts.projects:
        for service in project.services if project.origin != "kubernetes" else ():
            if service.kind == "mongo":
                yield project, service


def _words(service: Service) -> list[str]:
    both = (*words_of(service.get("entrypoint")), *words_of(service.get("command")))
    return [word.text for word in both]


def _has_option(service: Service, *names: str) -> bool:
    return any(word.split("=")[0] in names for word in _words(service))


def _is_bitnami(service: Service) -> bool:
    return service.image is not None and "bitnami" in service.image.path


def _data_folder(service: Service) -> str:
    words = _words(service)
    for place, word in enumerate(words):
        if word.startswith("--dbpath="):
            return word.partition("=")[2].rstrip("/")
        if word == "--dbpath" and place + 1 < len(words):
            return words[place + 1].rstrip("/")
    return "/bitnami/mongodb" if _is_bitnami(service) else "/data/db"


_USERS = (
    "MONGO_INITDB_ROOT_USERNAME",
    "MONGO_INITDB_ROOT_USERNAME_FILE",
    "MONGODB_ROOT_PASSWORD",
    "MONGODB_INITDB_ROOT_USERNAME",
)


def _has_auth(service: Service) -> bool:
    if any(name in service.environment for name in _USERS):
        return True
    return _has_option(service, "--auth", "--keyFile", "--config", "-f")


@rule("MG001", ERROR, risk="MongoDB starts with an empty volume at the right place; move the data first.")
def data_elsewhere(facts: Facts) -> Iterable[Finding]:
    for project, service in _databases(facts):
        folder = _data_folder(service)
        node = service.get("tmpfs")
        temporary = [item.text or "" for item in node.scalars()] if node is not None else []
        held = [mount for mount in service.mounts if mount.target.rstrip("/") == folder and mount.source is not None]
        if held or any(text.split(":")[0].rstrip("/") == folder for text in temporary):
            continue
        near = next((m for m in service.mounts if m.source is not None and _is_for_data(m.target)), None)
        if near is not None:
            yield found(
                near.node,
                f"{service.name} keeps its data at {folder}; this volume is at {near.target}",
                edits=_moved(service, near.target, folder),
            )
        else:
            edits = add_volume(service.node, project.files, f"{service.name}_data", folder)
            yield found(service, f"{service.name} keeps its data at {folder}, and no volume is there", edits=edits)


def _is_for_data(target: str) -> bool:
    return not re.search(r"initdb|configdb|\.(js|sh|key|pem|conf|ya?ml)$|/etc/|certs", target)


def _moved(service: Service, target: str, folder: str) -> Edits:
    for mount in service.mounts:
        if mount.target != target:
            continue
        if mount.node.is_map:
            node = mount.node.get("target")
            return replace_value(node, folder) if node is not None else ()
        raw = mount.node.raw or ""
        source, _, rest = raw.partition(":")
        mode = rest[len(target) :]
        return replace_value(mount.node, f"{source}:{folder}{mode}") if rest.startswith(target) else ()
    return ()


@rule("MG002", ERROR, risk="Whoever reaches MongoDB's port from another machine no longer does.")
def open_database(facts: Facts) -> Iterable[Finding]:
    for _, service in _databases(facts):
        node = service.get("network_mode")
        if (
            service.host_network
            and node is not None
            and not _has_auth(service)
            and not _has_option(service, "--bind_ip")
        ):
            yield found(node, f"{service.name} is open to every network of the host, without a password")
        for port in service.ports:
            if port.open_to_all and not _has_auth(service):
                yield found(
                    port.node, f"{service.name} is open to every network, without a password", edits=on_loopback(port)
                )


@rule("MG003", WARNING)
def no_root_user(facts: Facts) -> Iterable[Finding]:
    for _, service in _databases(facts):
        if not _has_auth(service):
            yield found(service, f"{service.name} asks nobody for a password")


@rule("MG004", INFO)
def user_too_late(facts: Facts) -> Iterable[Finding]:
    running = [service for project, service in _databases(facts) if project.origin == "inspect"]
    for project, service in _databases(facts):
        old = next((one for one in running if _same_data(service, one)), None) if project.origin == "compose" else None
        late = [setting for setting in service.environment.values() if old is not None and _is_late(setting, old)]
        if late and old is not None:
            names = join([setting.name for setting in late])
            yield found(late[0].node, f"{old.name} already has its data; {names} will not be read")


def _is_late(setting: Setting, old: Service) -> bool:
    """Whether a variable for the first start is not what the running container was started with."""
    if not setting.name.startswith("MONGO_INITDB_"):
        return False
    before = old.environment.get(setting.name)
    return before is None or (setting.known and before.known and setting.value != before.value)


def _same_data(service: Service, running: Service) -> bool:
    """Whether both keep their data in one place: a volume, whose project stands before its name, or a folder."""
    mine, theirs = _data_source(service), _data_source(running)
    if mine is None or theirs is None:
        return False
    return theirs == mine or theirs.endswith((f"_{mine}", f"/{mine.removeprefix('./')}"))


def _data_source(service: Service) -> str | None:
    folder = _data_folder(service)
    return next((mount.source for mount in service.mounts if mount.target.rstrip("/") == folder), None)


@rule("MG005", WARNING)
def unpinned_database(facts: Facts) -> Iterable[Finding]:
    for _, service in _databases(facts):
        image, node = service.image, service.get("image")
        if image is not None and node is not None and image.digest is None and image.tag in {None, "latest"}:
            yield found(node, f"{node.text} names no version: a pull may bring another major one")


@rule("MG006", INFO, risk="MongoDB's cache is limited to 1 GB.")
def cache_of_half_the_memory(facts: Facts) -> Iterable[Finding]:
    for project, service in _databases(facts):
        limited = service.get("mem_limit") or service.get("deploy", "resources", "limits", "memory")
        if not project.vllm or limited is not None or _has_option(service, "--wiredTigerCacheSizeGB", "--config", "-f"):
            continue
        command = service.get("command")
        words = words_of(command)
        option = ("--wiredTigerCacheSizeGB", "1")
        edits = (
            add_option(words, option, command) if words else add_key(service.node, (f"command: {' '.join(option)}",))
        )
        yield found(service, f"{service.name} may take half of the memory beside {project.vllm[0].name}", edits=edits)


@rule("MG007", WARNING)
def no_replica_set(facts: Facts) -> Iterable[Finding]:
    for project, service in _databases(facts):
        if _has_option(service, "--replSet", "--config", "-f") or "MONGODB_REPLICA_SET_NAME" in service.environment:
            continue
        for other in project.services:
            for setting in other.environment.values():
                value = setting.value or ""
                if "replicaSet=" in value and any(f"{name}:" in value or f"{name}/" in value for name in service.names):
                    yield found(setting.node, f"{other.name} asks for a replica set; {service.name} is none")


@rule("MG008", INFO, risk="Docker marks MongoDB unhealthy while mongosh cannot ask it; the image must have mongosh.")
def database_not_asked(facts: Facts) -> Iterable[Finding]:
    for project, service in _databases(facts):
        waiting = [other.name for other in project.services if service.name in other.depends_on]
        if waiting and not service.has_healthcheck:
            lines = (
                "healthcheck:",
                """  test: ["CMD", "mongosh", "--quiet", "--eval", "db.adminCommand('ping').ok"]""",
                "  interval: 10s",
                "  timeout: 5s",
                "  retries: 6",
            )
            edits = add_key(service.node, lines) if service.get("healthcheck") is None else ()
            yield found(service, f"{waiting[0]} starts before {service.name} answers", edits=edits)
