"""Files that must outlive a container, and files that it is given."""

import re
from collections.abc import Iterable
from hashlib import sha256

from atoll.doctor.checks.places import engines, found
from atoll.doctor.compose import Service
from atoll.doctor.edits import Edits, add_item, add_key, add_volume
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.parts import Mount
from atoll.doctor.rule import ERROR, INFO, SAFE, WARNING, rule

_HUB_CACHE = "/root/.cache/huggingface"


def covers(mounts: Iterable[Mount], path: str) -> bool:
    """Whether a mount holds this path: at it or above it."""
    return any(path == mount.target.rstrip("/") or path.startswith(mount.target.rstrip("/") + "/") for mount in mounts)


@rule("DC011", WARNING, risk=SAFE)
def downloads_again(facts: Facts) -> Iterable[Finding]:
    for _, service in engines(facts, by_hand=True):
        home = weights_without_a_volume(service)
        if home is not None:
            own = _is_plain(service) and not is_offline(
                service
            )  # an image of one's own may hold the weights right there
            text = f"~/.cache/huggingface{'/hub' if _is_direct(service) else ''}:{home}"
            what = f"{service.name} keeps its model at {home}, which no volume holds"
            yield found(service, what, edits=_mount(service, text) if own else ())


def weights_without_a_volume(service: Service) -> str | None:
    """Where a model of the hub is kept, when no mount holds that place; None when one does, or it is no such model."""
    model = service.vllm.model if service.vllm is not None else None
    if service.vllm is None or model is None or model.startswith(("/", ".", "s3:", "gs:", "${")) or "://" in model:
        return None
    told = service.environment.get("HF_HOME") or service.environment.get("HF_HUB_CACHE")
    home = service.vllm.text("--download-dir") or (told.value if told is not None else None) or _HUB_CACHE
    weights = home.rstrip("/") if _is_direct(service) else f"{home.rstrip('/')}/hub"
    held = covers(service.mounts, home.rstrip("/")) or covers(service.mounts, weights)
    return None if held else home


def _is_direct(service: Service) -> bool:
    """Whether the weights lie right there, not in its folder `hub`: HF_HUB_CACHE and --download-dir."""
    named = "HF_HOME" not in service.environment and "HF_HUB_CACHE" in service.environment
    return named or (service.vllm is not None and service.vllm.has("--download-dir"))


def _is_plain(service: Service) -> bool:
    image = service.image
    known = image is not None and (image.engine_version is not None or image.newest_engine)
    return known and image is not None and image.is_vllms_own and service.get("build") is None


_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def is_offline(service: Service) -> bool:
    """Whether the hub is switched off."""
    told = [service.environment[name].value for name in _OFFLINE if name in service.environment]
    return any((value or "").lower() in {"1", "true", "yes", "on"} for value in told)


@rule("VL037", ERROR)
def offline_without_weights(facts: Facts) -> Iterable[Finding]:
    for _, service in engines(facts, by_hand=True):
        home, model = weights_without_a_volume(service), service.vllm.model if service.vllm is not None else None
        if (
            home is not None
            and is_offline(service)
            and _is_plain(service)
            and re.fullmatch(r"[\w.-]+/[\w.-]+", model or "")
        ):
            setting = next(service.environment[name] for name in _OFFLINE if name in service.environment)
            yield found(setting.node, f"{service.name} may not download {model}, and no mount holds {home}")


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
            edits = add_volume(service.node, project.files, f"{service.name}-cache", place)
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
