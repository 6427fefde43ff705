"""Kubernetes: services and ingresses before vLLM."""

from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import found, number_in, of_kind
from atoll.doctor.checks.timeouts import USUAL_WAIT_S, needed_wait_s
from atoll.doctor.edits import add_key
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.kubernetes import Pod, pods
from atoll.doctor.rule import ERROR, WARNING, rule
from atoll.doctor.tree import Node


@rule("VL022", ERROR, risk="Variables named VLLM_SERVICE_* and the like are no longer there.")
def service_named_vllm(facts: Facts) -> Iterable[Finding]:
    for service in of_kind(facts, "Service"):
        if service.string("metadata", "name") != "vllm":
            continue
        for pod in pods(facts.manifests):
            if pod.spec.string("enableServiceLinks") != "false" and "VLLM_PORT" not in pod.service.environment:
                name = service.get("metadata", "name") or service
                yield found(
                    name,
                    f"the pods of {pod.name} get VLLM_PORT=tcp://... from this Service",
                    edits=add_key(pod.spec, ("enableServiceLinks: false",)),
                )


@rule("K8003", WARNING)
def spread_by_connection(facts: Facts) -> Iterable[Finding]:
    for service, pod in _fronts(facts):
        if pod.replicas > 1 and service.string("spec", "clusterIP") != "None":
            yield found(service, f"this Service spreads connections over {pod.replicas} engines at random")


def _fronts(facts: Facts) -> Iterator[tuple[Node, Pod]]:
    """Services with the pods that they select."""
    for service in of_kind(facts, "Service"):
        selector = service.get("spec", "selector")
        wanted = {name: value.text for name, value in selector.pairs()} if selector is not None else {}
        for pod in pods(facts.manifests):
            if wanted and wanted.items() <= pod.labels.items():
                yield service, pod


_INGRESS = "nginx.ingress.kubernetes.io"


@rule("K8004", WARNING)
def ingress_defaults(facts: Facts) -> Iterable[Finding]:
    fronts = {service.string("metadata", "name") for service, _ in _fronts(facts)}
    for ingress in of_kind(facts, "Ingress"):
        kind = ingress.string("spec", "ingressClassName") or ingress.string(
            "metadata", "annotations", "kubernetes.io/ingress.class"
        )
        backends = set(_backends(ingress))
        to_engine = backends & fronts or any("vllm" in (name or "") or "llm" in (name or "") for name in backends)
        if kind != "nginx" or not to_engine:
            continue
        said = {name: ingress.get("metadata", "annotations", f"{_INGRESS}/{name}") for name in _NEEDED_ANNOTATIONS}
        missing = [name for name, node in said.items() if node is None]
        short = said["proxy-read-timeout"]
        if missing:
            yield found(
                ingress.get("metadata") or ingress, f"ingress-nginx keeps its defaults for {' and '.join(missing)}"
            )
        if short is not None and number_in(short, USUAL_WAIT_S) < needed_wait_s(facts, short.file):
            yield found(short, f"ingress-nginx cuts an answer after {short.text} s of silence")


_NEEDED_ANNOTATIONS = ("proxy-read-timeout", "proxy-body-size")


def _backends(ingress: Node) -> Iterator[str | None]:
    rules = ingress.get("spec", "rules")
    for item in rules.items if rules is not None else ():
        paths = item.get("http", "paths")
        for path in paths.items if paths is not None else ():
            yield path.string("backend", "service", "name")
