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
    """A Kubernetes Service is called vllm.

    Consequence: Kubernetes puts VLLM_PORT=tcp://... into every pod of the namespace, which vLLM reads as its own port:
    ValueError at start.

    Evidence: envs.py of 0.32.0, get_vllm_port.

    Fix: Another name, or enableServiceLinks: false in the pod.

    Fails:
    ```k8s.yaml
    apiVersion: v1
    kind: Service
    metadata: {name: vllm}
    spec: {selector: {app: vllm}, ports: [{port: 80}]}
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: vllm}
    spec:
      template:
        metadata: {labels: {app: vllm}}
        spec:
          containers:
            - {name: vllm, image: "vllm/vllm-openai:v0.32.0", args: [m/model]}
    ```

    Passes:
    ```k8s.yaml
    apiVersion: v1
    kind: Service
    metadata: {name: vllm}
    spec: {selector: {app: vllm}, ports: [{port: 80}]}
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: vllm}
    spec:
      template:
        metadata: {labels: {app: vllm}}
        spec:
          enableServiceLinks: false
          containers:
            - {name: vllm, image: "vllm/vllm-openai:v0.32.0", args: [m/model]}
    ```
    """
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
    """A plain Service spreads requests over several engines.

    Consequence: It chooses at random for each connection: kept connections and long answers pile up on some engines.

    Evidence: https://dev.to/andygolubev/how-llm-d-prefix-cache-routing-made-qwen-7b-on-eks-23x-faster-2h8j (840 to
    359 s).

    Fix: nginx with least_conn, or an inference gateway, before the pods.

    Fails:
    ```k8s.yaml
    apiVersion: v1
    kind: Service
    metadata: {name: qwen}
    spec: {selector: {app: qwen}, ports: [{port: 80, targetPort: 8000}]}
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: qwen}
    spec:
      replicas: 4
      template:
        metadata: {labels: {app: qwen}}
        spec:
          containers:
            - {name: vllm, image: "vllm/vllm-openai:v0.32.0", args: [m/model]}
    ```

    Passes: a headless service, for a router that sees every pod
    ```k8s.yaml
    apiVersion: v1
    kind: Service
    metadata: {name: qwen}
    spec: {clusterIP: None, selector: {app: qwen}, ports: [{port: 80, targetPort: 8000}]}
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: qwen}
    spec:
      replicas: 4
      template:
        metadata: {labels: {app: qwen}}
        spec:
          containers:
            - {name: vllm, image: "vllm/vllm-openai:v0.32.0", args: [m/model]}
    ```
    """
    for service, pod in _fronts(facts):
        if pod.replicas > 1 and service.string("spec", "clusterIP") != "None":
            yield found(service, f"this Service deals connections out to {pod.replicas} engines at random")


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
    """ingress-nginx with its defaults before an engine.

    Consequence: Answers are cut after 60 s of silence, requests above 1 MiB refused (as NG001, NG018).

    Evidence: the annotations' documentation of ingress-nginx.

    Fix: The annotations proxy-read-timeout: "1800", proxy-body-size: 64m, proxy-buffering: "off".

    Fails:
    ```k8s.yaml
    apiVersion: networking.k8s.io/v1
    kind: Ingress
    metadata: {name: llm}
    spec:
      ingressClassName: nginx
      rules: [{http: {paths: [{path: /v1, backend: {service: {name: vllm-qwen, port: {number: 80}}}}]}}]
    ```

    Passes:
    ```k8s.yaml
    apiVersion: networking.k8s.io/v1
    kind: Ingress
    metadata:
      name: llm
      annotations:
        nginx.ingress.kubernetes.io/proxy-read-timeout: "1800"
        nginx.ingress.kubernetes.io/proxy-body-size: 64m
    spec:
      ingressClassName: nginx
      rules: [{http: {paths: [{path: /v1, backend: {service: {name: vllm-qwen, port: {number: 80}}}}]}}]
    ```
    """
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
