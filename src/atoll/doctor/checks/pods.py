"""Kubernetes: what a pod needs to run vLLM."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import found, number_in
from atoll.doctor.edits import add_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.kubernetes import Pod, pods
from atoll.doctor.rule import ERROR, WARNING, rule
from atoll.doctor.tree import Node
from atoll.doctor.words import words_of
from atoll.inventory.islands import islands


@rule("K8001", ERROR)
def pod_without_shared_memory(facts: Facts) -> Iterable[Finding]:
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
    for pod in pods(facts.manifests):
        live, start = pod.container.get("livenessProbe"), pod.container.get("startupProbe")
        if live is None:
            continue
        probe = start or live
        budget = number_in(probe.get("initialDelaySeconds"), 0)
        budget += number_in(probe.get("periodSeconds"), 10) * number_in(probe.get("failureThreshold"), 3)
        needed = 120 if start is not None else 300
        if budget < needed:
            yield found(probe, f"{pod.name} is killed {budget:g} s after its start if it does not answer by then")


def _looks_first(pod: Pod, count: Node) -> bool:
    """Whether an init container with the same cards looks at how they are joined: the main one gets those it had."""
    before = pod.spec.get("initContainers")
    for one in before.items if before is not None else ():
        words = " ".join(word.text for key in ("command", "args") for word in words_of(one.get(key)))
        if one.string("resources", "limits", "nvidia.com/gpu") == count.text and re.search("topo|island|nvlink", words):
            return True
    return False


@rule("K8005", WARNING)
def any_two_gpus(facts: Facts) -> Iterable[Finding]:
    groups = islands(facts.box) if facts.box is not None else ()
    if len(groups) < 2 or max(len(group) for group in groups) < 2:
        return
    for pod in pods(facts.manifests):
        resources = pod.container.get("resources") or pod.container
        count = resources.get("limits", "nvidia.com/gpu") or resources.get("requests", "nvidia.com/gpu")
        asked = number_in(count, 1)
        if count is not None and 1 < asked < sum(len(group) for group in groups) and not _looks_first(pod, count):
            yield found(count, f"{pod.name} may get {asked:g} GPUs of different islands")


@rule("K8006", WARNING, risk="Pods live on for longer after they are told to stop.")
def short_grace(facts: Facts) -> Iterable[Finding]:
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
