"""Kubernetes: what a pod needs to run vLLM."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found, number_in
from atoll.doctor.edits import add_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.kubernetes import Pod, pods
from atoll.doctor.rule import ERROR, WARNING, rule
from atoll.inventory.islands import islands


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
        budget = number_in(probe.get("initialDelaySeconds"), 0)
        budget += number_in(probe.get("periodSeconds"), 10) * number_in(probe.get("failureThreshold"), 3)
        needed = 120 if start is not None else 300
        if budget < needed:
            yield found(probe, f"{pod.name} is killed {budget:g} s after its start when it does not answer yet")


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
        asked = number_in(count, 1)
        if count is not None and 1 < asked < sum(len(group) for group in groups):
            yield found(count, f"{pod.name} may get {asked:g} GPUs of different islands")


@rule("K8006", WARNING, risk="Pods live on for longer after they are told to stop.")
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
        seconds = number_in(node, 30)
        if seconds < (facts.load_at(pod.container.file).answer_s or 120):
            edits = (
                replace_value(node, "130")
                if node is not None
                else add_key(pod.spec, ("terminationGracePeriodSeconds: 130",))
            )
            yield found(
                node or pod.container, f"{pod.name} is killed {seconds:g} s after it is told to stop", edits=edits
            )
