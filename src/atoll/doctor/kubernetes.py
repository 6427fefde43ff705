"""Kubernetes objects as the checks see them; their vLLM containers also as services, for the rules over options.

A pod's description looks the same in a Deployment, a LeaderWorkerSet, an InferenceService or a chart's values: a
mapping with a list of `containers`. It is found wherever it stands.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from atoll.doctor.compose import Project, Service
from atoll.doctor.form import gpu_devices, mapping, scalar
from atoll.doctor.inside import inline_source, started_in
from atoll.doctor.kustomize import image_in
from atoll.doctor.launch import made_of
from atoll.doctor.tree import Member, Node, Source
from atoll.doctor.vllm import VllmCommand, newest_version, table_for
from atoll.doctor.words import Word, word_list, words_of

_DEEPEST = 14
GPU_KINDS = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/xe", "gpu.intel.com/i915", "habana.ai/gaudi")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pod:
    """The pod of a workload, with the container that runs vLLM."""

    workload: Node
    spec: Node
    container: Node
    service: Service  # the container, as the rules over options read it
    template: Node | None = None  # what holds the pod's metadata beside its spec

    @property
    def name(self) -> str:
        return self.workload.string("metadata", "name") or self.container.string("name") or "?"

    @property
    def replicas(self) -> int:
        text = self.workload.string("spec", "replicas") or "1"
        return int(text) if text.isdecimal() else 1

    @property
    def labels(self) -> Mapping[str, str]:
        own = self.template.get("metadata", "labels") if self.template is not None else None
        node = own or self.workload.get("metadata", "labels")
        return {name: value.text or "" for name, value in node.pairs()} if node is not None else {}


def pods(manifests: Sequence[Node]) -> tuple[Pod, ...]:
    """The pods that run vLLM."""
    return _pods(tuple(manifests))


@lru_cache(maxsize=2)  # every rule asks for those of the same facts
def _pods(manifests: tuple[Node, ...]) -> tuple[Pod, ...]:
    return tuple(pod for manifest in manifests for pod in _pods_of(manifest, manifests))


def _pods_of(manifest: Node, manifests: Sequence[Node]) -> Iterator[Pod]:
    for spec, template in pod_specs(manifest) if not _is_asked_for(manifest, manifests) else ():
        containers = spec.get("containers")
        for container in containers.items if containers is not None else ():
            service = service_of(manifest, spec, container, manifests)
            if service is not None and service.vllm is not None:
                yield Pod(workload=manifest, spec=spec, container=container, service=service, template=template)
    predictor = manifest.get("spec", "predictor")
    model = predictor.get("model") if predictor is not None else None
    if predictor is not None and model is not None and model.is_map:
        runtime = _runtime(model.string("runtime"), manifests)
        service = _served_model(manifest, model, runtime, manifests)
        if service is not None:
            spec, container = _over(runtime, predictor), _over(runtime.get("containers", 0) if runtime else None, model)
            yield Pod(workload=manifest, spec=spec, container=container, service=service)


def pod_specs(node: Node, above: Node | None = None, depth: int = 0) -> Iterator[tuple[Node, Node | None]]:
    """Every mapping with a list of containers, and what it stands in."""
    if depth > _DEEPEST:
        return
    containers = node.get("containers")
    if containers is not None and any(_is_container(item) for item in containers.items):
        yield node, above
        return
    for child in (*(value for _, value in node.pairs()), *node.items):
        yield from pod_specs(child, node, depth + 1)


def _is_container(item: Node) -> bool:
    return item.is_map and any(item.get(key) is not None for key in ("image", "command", "args"))


def service_of(manifest: Node, spec: Node, container: Node, manifests: Sequence[Node] = ()) -> Service | None:
    """A container as a service; None for what is no container."""
    if not container.is_map:
        return None
    values = {name: value.text for name, value in (_variables(container.get("env")) or {}).items()}
    made: dict[str, Node | None] = {
        "image": image_in(container.get("image"), manifests),
        "entrypoint": _filled(container.get("command"), values),
        "command": _filled(container.get("args"), values),
        "environment": _environment(container.get("env")),
        "gpus": _gpus(manifest, container),
    }
    service = _in_compose_form(manifest, container, made)
    if service.vllm is None:
        launched = _launched(service, spec, container, manifests)
        service = replace(service, launched=launched) if launched is not None else service
    return service


def _in_compose_form(manifest: Node, container: Node, made: Mapping[str, Node | None]) -> Service:
    name = container.get("name") or container
    entries = {key: Member(replace(name, text=key, raw=key), node) for key, node in made.items() if node is not None}
    place = replace(name, source=replace(name.source, fixable=False))
    node = replace(container, entries=entries, style="flow", source=place.source)  # no key is ever added here
    return Service(
        name=manifest.string("metadata", "name") or name.text or "vllm",
        node=node,
        name_node=name,
        project=manifest.source.path,
        env_file={},
        open_tag=True,
    )


def _variables(listed: Node | None) -> dict[str, Node] | None:
    items = [(item.string("name"), item.get("value")) for item in listed.items] if listed is not None else []
    return {name: value for name, value in items if name and value is not None}


def _environment(listed: Node | None) -> Node | None:
    return mapping(listed, _variables(listed) or {}) if listed is not None else None


def _filled(node: Node | None, values: Mapping[str, str | None]) -> Node | None:
    """Words with `$(NAME)` filled in from the container's own variables."""
    if node is None or not node.is_list or not any("$(" in (item.text or "") for item in node.items):
        return node
    return replace(node, items=tuple(_filled_item(item, values) for item in node.items))


def _filled_item(item: Node, values: Mapping[str, str | None]) -> Node:
    text = item.text or ""
    if "$(" not in text:
        return item
    filled = re.sub(r"\$\(([A-Za-z_]\w*)\)", lambda match: values.get(match[1]) or f"${{{match[1]}}}", text)
    return scalar(item, filled)


def _gpus(manifest: Node, container: Node) -> Node | None:
    """The cards of `resources`; none for pods that share a model over several (LeaderWorkerSet, Ray)."""
    resources = container.get("resources")
    if resources is None or manifest.get("spec", "leaderWorkerTemplate") is not None or _is_ray(manifest):
        return None
    for part in ("limits", "requests"):
        for kind in GPU_KINDS:
            asked = resources.get(part, kind)
            if asked is not None and asked.text and asked.text.isdecimal():
                return gpu_devices(asked, count=asked.text, allotted=True)
    return None


def _is_ray(manifest: Node) -> bool:
    return (manifest.string("kind") or "").startswith("Ray")


def _launched(service: Service, spec: Node, container: Node, manifests: Sequence[Node]) -> VllmCommand | None:
    """The vLLM that a script of a ConfigMap starts."""
    words = (*words_of(service.get("entrypoint")), *words_of(service.get("command")))
    for place, word in enumerate(words[:4]):
        if word.text.startswith("/") and " " not in word.text:
            script = _mounted(word.text, spec, container, manifests)
            found = started_in(script, words[place + 1 :], service.given_variables)
            if found is not None:
                return found
    return None


def _mounted(path: str, spec: Node, container: Node, manifests: Sequence[Node]) -> Source | None:
    """The text of a ConfigMap that appears at this path."""
    mounts, volumes = container.get("volumeMounts"), spec.get("volumes")
    for mount in mounts.items if mounts is not None else ():
        beneath = path.removeprefix((mount.string("mountPath") or "\0").rstrip("/")).lstrip("/")
        if beneath == path.lstrip("/"):
            continue
        key = mount.string("subPath") or beneath
        for volume in volumes.items if volumes is not None else ():
            if volume.string("name") == mount.string("name"):
                return _config_map(volume.string("configMap", "name"), key, manifests)
    return None


def _config_map(name: str | None, key: str, manifests: Sequence[Node]) -> Source | None:
    for manifest in manifests:
        if manifest.string("kind") == "ConfigMap" and manifest.string("metadata", "name") == name:
            text = manifest.get("data", key)
            return inline_source(text) if text is not None and text.text is not None else None
    return None


# KServe ------------------------------------------------------------------------------------------------------------

_SERVED_BY_VLLM = {"huggingface", "vllm"}


def _served_model(manifest: Node, model: Node, runtime_spec: Node | None, manifests: Sequence[Node]) -> Service | None:
    """`predictor.model`: its runtime's container with these arguments, or KServe's own server of that format."""
    runtime = runtime_spec.get("containers", 0) if runtime_spec is not None else None
    form = (model.string("modelFormat", "name") or "").lower()
    if runtime is None and form not in _SERVED_BY_VLLM:
        return None
    args = [*(words_of(runtime.get("args")) if runtime is not None else ()), *words_of(model.get("args"))]
    made = {
        "image": image_in(model.get("image") or (runtime.get("image") if runtime is not None else None), manifests),
        "entrypoint": runtime.get("command") if runtime is not None else None,
        "command": word_list(args, model) if runtime is not None else model.get("args"),
        "environment": _environment(model.get("env")),
        "gpus": _gpus(manifest, model),
    }
    service = _in_compose_form(manifest, model, made)
    launched = made_of(args if runtime is not None else _known_to_vllm(args))
    return service if service.vllm is not None and runtime is not None else replace(service, launched=launched)


_RUNTIMES = {"ServingRuntime", "ClusterServingRuntime"}


def _runtime(name: str | None, manifests: Sequence[Node]) -> Node | None:
    """The pod of the runtime that has this name."""
    for manifest in manifests:
        if name and manifest.string("metadata", "name") == name and manifest.string("kind") in _RUNTIMES:
            return manifest.get("spec")
    return None


def _is_asked_for(manifest: Node, manifests: Sequence[Node]) -> bool:
    """Whether it is a runtime that a model here names: it is looked at there, with that model's arguments."""
    if manifest.string("kind") not in _RUNTIMES:
        return False
    name = manifest.string("metadata", "name")
    return any(other.string("spec", "predictor", "model", "runtime") == name for other in manifests)


def _over(below: Node | None, above: Node) -> Node:
    """The keys of both; those of the one above count."""
    return replace(above, entries={**below.entries, **above.entries}) if below is not None else above


def _known_to_vllm(words: Sequence[Word]) -> list[Word]:
    """KServe's server hands vLLM's options through; its own (`--model_name`) are left out."""
    table = table_for(newest_version())
    kept: list[Word] = []
    for word in words:
        name = re.sub(r"_", "-", word.text.partition("=")[0])
        own = word.text.startswith("--") and not table.known(name)
        kept += [] if own else [word]
    return kept


def project_of_manifests(manifests: Sequence[Node], more: Sequence[Service] = ()) -> Project | None:
    """The vLLM containers, and those of charts' values, as services; None when there are none."""
    services = (*(pod.service for pod in pods(manifests)), *more)
    if not services:
        return None
    sources = tuple(dict.fromkeys(service.name_node.source for service in services))
    root = manifests[0] if manifests else services[0].node
    return Project(name="kubernetes", sources=sources, root=root, services=services, origin="kubernetes")
