"""Kubernetes objects as the checks see them; their vLLM containers also as services, for the rules over options."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from atoll.doctor.compose import Project, Service
from atoll.doctor.tree import Member, Node

_TEMPLATED = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Pod:
    """The pod of a workload, with the container that runs vLLM."""

    workload: Node
    spec: Node
    container: Node
    service: Service  # the container, as the rules over options read it

    @property
    def name(self) -> str:
        return self.workload.string("metadata", "name") or "?"

    @property
    def replicas(self) -> int:
        text = self.workload.string("spec", "replicas") or "1"
        return int(text) if text.isdecimal() else 1

    @property
    def labels(self) -> Mapping[str, str]:
        node = self.workload.get("spec", "template", "metadata", "labels") or self.workload.get("metadata", "labels")
        return {name: value.text or "" for name, value in node.pairs()} if node is not None else {}


def pods(manifests: Sequence[Node]) -> Iterator[Pod]:
    """The pods that run vLLM."""
    for manifest in manifests:
        spec = manifest.get("spec", "template", "spec") if manifest.string("kind") in _TEMPLATED else None
        spec = manifest.get("spec") if manifest.string("kind") == "Pod" else spec
        containers = spec.get("containers") if spec is not None else None
        for container in containers.items if containers is not None else ():
            service = _service(manifest, container)
            if spec is not None and service is not None and service.vllm is not None:
                yield Pod(workload=manifest, spec=spec, container=container, service=service)


def _service(manifest: Node, container: Node) -> Service | None:
    name = container.get("name") or container
    if not container.is_map:
        return None
    made: dict[str, Node | None] = {
        "image": container.get("image"),
        "entrypoint": container.get("command"),
        "command": container.get("args"),
        "environment": _variables(container.get("env")),
    }
    entries = {key: Member(replace(name, text=key, raw=key), node) for key, node in made.items() if node is not None}
    node = replace(container, entries=entries, style="flow")  # no key of a compose file is ever added here
    return Service(
        name=manifest.string("metadata", "name") or name.text or "vllm",
        node=node,
        name_node=name,
        project=manifest.source.path,
        env_file={},
    )


def _variables(listed: Node | None) -> Node | None:
    if listed is None:
        return None
    items = [(item.string("name"), item.get("value")) for item in listed.items]
    entries = {name: Member(value, value) for name, value in items if name and value is not None}
    return replace(
        listed, tag="map", items=(), entries=entries, style="flow", source=replace(listed.source, fixable=False)
    )


def project_of_manifests(manifests: Sequence[Node]) -> Project | None:
    """The vLLM containers as services; None when there are none."""
    found = tuple(pods(manifests))
    if not found:
        return None
    sources = tuple(dict.fromkeys(pod.workload.source for pod in found))
    services = tuple(pod.service for pod in found)
    return Project(name="kubernetes", sources=sources, root=manifests[0], services=services, origin="kubernetes")
