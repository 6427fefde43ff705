"""Files that must outlive a container, and files that it is given."""

from collections.abc import Iterable
from hashlib import sha256

from atoll.doctor.checks.places import engines, found
from atoll.doctor.compose import Service
from atoll.doctor.edits import (
    Edits,
    add_item,
    add_key,
    add_volume,
)
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.parts import Mount
from atoll.doctor.rule import INFO, SAFE, WARNING, rule

_HUB_CACHE = "/root/.cache/huggingface"


def covers(mounts: Iterable[Mount], path: str) -> bool:
    """Whether a mount holds this path: at it or above it."""
    return any(path == mount.target.rstrip("/") or path.startswith(mount.target.rstrip("/") + "/") for mount in mounts)


@rule("DC011", WARNING, risk=SAFE)
def downloads_again(facts: Facts) -> Iterable[Finding]:
    for _, service in engines(facts, by_hand=True):
        assert service.vllm is not None
        model = service.vllm.model
        if model is None or model.startswith(("/", ".", "s3:", "gs:", "${")) or "://" in model:
            continue
        home = service.environment.get("HF_HOME") or service.environment.get("HF_HUB_CACHE")
        place = service.vllm.text("--download-dir") or (home.value if home is not None else None) or _HUB_CACHE
        if not covers(service.mounts, place.rstrip("/")) and not covers(service.mounts, _weights(service, place)):
            yield found(
                service,
                f"{service.name} keeps its model at {place}, which no volume holds",
                edits=_mount(service, f"~/.cache/huggingface:{place}"),
            )


def _weights(service: Service, home: str) -> str:
    """Where the weights themselves lie: in the folder `hub` of HF_HOME, or right in HF_HUB_CACHE and --download-dir."""
    direct = "HF_HOME" not in service.environment and "HF_HUB_CACHE" in service.environment
    told = service.vllm is not None and service.vllm.has("--download-dir")
    return home.rstrip("/") if direct or told else f"{home.rstrip('/')}/hub"


def _mount(service: Service, text: str) -> Edits:
    listed = service.get("volumes")
    if listed is not None:
        return add_item(listed, text)
    return add_key(service.node, ("volumes:", f"  - {text}"))


@rule("DC012", INFO, risk=SAFE, habit=True)
def compiles_again(facts: Facts) -> Iterable[Finding]:
    for project, service in engines(facts):
        assert service.vllm is not None
        root = service.environment.get("VLLM_CACHE_ROOT")
        place = (root.value if root is not None and root.value else "/root/.cache/vllm").rstrip("/")
        if not covers(service.mounts, place) and not service.vllm.has("--enforce-eager"):
            edits = add_volume(service.node, project.root, f"{service.name}-cache", place)
            yield found(service, f"{service.name} compiles its kernels again in every new container", edits=edits)


@rule("DC021", WARNING)
def old_file_stays(facts: Facts) -> Iterable[Finding]:
    for config in facts.nginx:
        service = config.service
        if service is None or not any(route.config is config for route in facts.routes):
            continue
        for mount in service.mounts:
            if (
                mount.kind == "bind"
                and mount.target.endswith(".conf")
                and not _follows_the_file(service, config.source.text)
            ):
                yield found(mount.node, f"the container keeps its old {mount.target} when {mount.source} is replaced")


def _follows_the_file(service: Service, text: str) -> bool:
    """Whether a label carries the file's hash, so that Compose makes the container anew with it."""
    digest = sha256(text.encode()).hexdigest()
    labels = service.get("labels")
    values = [value.text for _, value in labels.pairs()] if labels is not None else []
    values += [(item.text or "").partition("=")[2] for item in labels.items] if labels is not None else []
    return any(value and len(value) >= 8 and digest.startswith(value) for value in values)
