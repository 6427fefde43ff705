"""Kubernetes: what a pod needs to run vLLM, and what stands before it."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import found
from atoll.doctor.checks.timeouts import USUAL_WAIT_S, needed_wait_s
from atoll.doctor.edits import add_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.kubernetes import Pod, pods
from atoll.doctor.rule import ERROR, WARNING, rule
from atoll.doctor.tree import Node
from atoll.inventory.islands import islands


@rule("VL022", ERROR)
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
    for service in _of_kind(facts, "Service"):
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


def _of_kind(facts: Facts, kind: str) -> Iterator[Node]:
    return (manifest for manifest in facts.manifests if manifest.string("kind") == kind)


@rule("K8001", ERROR)
def pod_without_shared_memory(facts: Facts) -> Iterable[Finding]:
    """Tensor parallelism in a pod without a memory-backed /dev/shm.

    Consequence: /dev/shm is 64 MiB: SIGBUS, a hang or an NCCL error under load (as DC004).

    Evidence: vLLM's Kubernetes page; seen with Docker.

    Fix: emptyDir {medium: Memory, sizeLimit: 16Gi} mounted at /dev/shm.

    Fails:
    ```k8s.yaml
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: qwen}
    spec:
      template:
        spec:
          containers:
            - {name: vllm, image: "vllm/vllm-openai:v0.32.0", args: [m/model, -tp, "2"]}
    ```

    Passes:
    ```k8s.yaml
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: qwen}
    spec:
      template:
        spec:
          containers:
            - name: vllm
              image: vllm/vllm-openai:v0.32.0
              args: [m/model, -tp, "2"]
              volumeMounts: [{name: shm, mountPath: /dev/shm}]
          volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 16Gi}}]
    ```
    """
    for pod in pods(facts.manifests):
        command = pod.service.vllm
        tp, pp = (command.tensor_parallel, command.pipeline_parallel) if command is not None else (1, 1)
        size = tp * pp if tp is not None and pp is not None else None
        if size is not None and size > 1 and not _has_shared_memory(pod) and pod.spec.string("hostIPC") != "true":
            yield found(pod.container, f"{pod.name} has {size} workers and 64 MiB of shared memory")


def _has_shared_memory(pod: Pod) -> bool:
    mounts, volumes = pod.container.get("volumeMounts"), pod.spec.get("volumes")
    named = {
        mount.string("name")
        for mount in (mounts.items if mounts is not None else ())
        if mount.string("mountPath") == "/dev/shm"  # noqa: S108 - the name is the point
    }
    return any(
        volume.string("name") in named
        and (volume.string("emptyDir", "medium") == "Memory" or volume.get("emptyDir") is None)
        for volume in (volumes.items if volumes is not None else ())
    )


def _number(node: Node | None, default: float) -> float:
    return float(node.text) if node is not None and node.text and re.fullmatch(r"\d+", node.text) else default


@rule("K8002", ERROR)
def killed_while_loading(facts: Facts) -> Iterable[Finding]:
    """A liveness probe without a startup probe.

    Consequence: The pod is killed while it loads, for ever.

    Evidence: https://github.com/kubernetes-sigs/gateway-api-inference-extension/pull/550,
    https://github.com/llm-d/llm-d-benchmark/issues/83.

    Fix: A startupProbe on /health with failureThreshold x periodSeconds of 20 minutes or more.

    Fails:
    ```k8s.yaml
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: qwen}
    spec:
      template:
        spec:
          containers:
            - name: vllm
              image: vllm/vllm-openai:v0.32.0
              args: [m/model]
              livenessProbe: {httpGet: {path: /health, port: 8000}, initialDelaySeconds: 60, periodSeconds: 10}
    ```

    Passes:
    ```k8s.yaml
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: qwen}
    spec:
      template:
        spec:
          containers:
            - name: vllm
              image: vllm/vllm-openai:v0.32.0
              args: [m/model]
              livenessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 10}
              startupProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 10, failureThreshold: 180}
    ```
    """
    for pod in pods(facts.manifests):
        live, start = pod.container.get("livenessProbe"), pod.container.get("startupProbe")
        if live is None:
            continue
        probe = start or live
        budget = _number(probe.get("initialDelaySeconds"), 0)
        budget += _number(probe.get("periodSeconds"), 10) * _number(probe.get("failureThreshold"), 3)
        needed = 120 if start is not None else 300
        if budget < needed:
            yield found(probe, f"{pod.name} is killed {budget:g} s after its start when it does not answer yet")


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
    for service in _of_kind(facts, "Service"):
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
    for ingress in _of_kind(facts, "Ingress"):
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
        if short is not None and _number(short, USUAL_WAIT_S) < needed_wait_s(facts, short.file):
            yield found(short, f"ingress-nginx cuts an answer after {short.text} s of silence")


_NEEDED_ANNOTATIONS = ("proxy-read-timeout", "proxy-body-size")


def _backends(ingress: Node) -> Iterator[str | None]:
    rules = ingress.get("spec", "rules")
    for item in rules.items if rules is not None else ():
        paths = item.get("http", "paths")
        for path in paths.items if paths is not None else ():
            yield path.string("backend", "service", "name")


@rule("K8005", WARNING)
def any_two_gpus(facts: Facts) -> Iterable[Finding]:
    """A pod asks for several GPUs on nodes where only some are joined by NVLink.

    Consequence: The device plugin may hand out GPUs of two islands (as TP001).

    Evidence: https://github.com/NVIDIA/k8s-device-plugin/issues/436.

    Fix: Aligned allocation, dynamic resource allocation, or whole islands as nodes.

    Fails:
    ```topo.txt
            GPU0  GPU1  GPU2  GPU3
    GPU0    X     NV12  SYS   SYS
    GPU1    NV12  X     SYS   SYS
    GPU2    SYS   SYS   X     NV12
    GPU3    SYS   SYS   NV12  X
    ```
    ```k8s.yaml
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: qwen}
    spec:
      template:
        spec:
          containers:
            - name: vllm
              image: vllm/vllm-openai:v0.32.0
              args: [m/model, -tp, "2"]
              resources: {limits: {nvidia.com/gpu: "2"}}
    ```

    Passes: all joined by NVLink
    ```topo.txt
            GPU0  GPU1
    GPU0    X     NV12
    GPU1    NV12  X
    ```
    ```k8s.yaml
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: qwen}
    spec:
      template:
        spec:
          containers:
            - name: vllm
              image: vllm/vllm-openai:v0.32.0
              args: [m/model, -tp, "2"]
              resources: {limits: {nvidia.com/gpu: "2"}}
    ```
    """
    groups = islands(facts.box) if facts.box is not None else ()
    if len(groups) < 2 or max(len(group) for group in groups) < 2:
        return
    for pod in pods(facts.manifests):
        resources = pod.container.get("resources") or pod.container
        count = resources.get("limits", "nvidia.com/gpu") or resources.get("requests", "nvidia.com/gpu")
        asked = _number(count, 1)
        if count is not None and 1 < asked < sum(len(group) for group in groups):
            yield found(count, f"{pod.name} may get {asked:g} GPUs of different islands")


@rule("K8006", WARNING)
def short_grace(facts: Facts) -> Iterable[Finding]:
    """The pod's terminationGracePeriodSeconds is shorter than an answer (30 s by default).

    Consequence: Answers are cut at every rollout.

    Evidence: Kubernetes' documentation of pod termination.

    Fix: terminationGracePeriodSeconds: 130, with --shutdown-timeout 120 (VL018).

    Fails:
    ```k8s.yaml
    apiVersion: v1
    kind: Pod
    metadata: {name: qwen}
    spec:
      containers:
        - {name: vllm, image: "vllm/vllm-openai:v0.32.0", args: [m/model]}
    ```

    Passes:
    ```k8s.yaml
    apiVersion: v1
    kind: Pod
    metadata: {name: qwen}
    spec:
      terminationGracePeriodSeconds: 130
      containers:
        - {name: vllm, image: "vllm/vllm-openai:v0.32.0", args: [m/model]}
    ```
    """
    for pod in pods(facts.manifests):
        node = pod.spec.get("terminationGracePeriodSeconds")
        seconds = _number(node, 30)
        if seconds < (facts.load_at(pod.container.file).answer_s or 120):
            edits = (
                replace_value(node, "130")
                if node is not None
                else add_key(pod.spec, ("terminationGracePeriodSeconds: 130",))
            )
            yield found(
                node or pod.container, f"{pod.name} is killed {seconds:g} s after it is told to stop", edits=edits
            )


RULES = (
    service_named_vllm,
    pod_without_shared_memory,
    killed_while_loading,
    spread_by_connection,
    ingress_defaults,
    any_two_gpus,
    short_grace,
)
