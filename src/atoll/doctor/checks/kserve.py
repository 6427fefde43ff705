"""KServe: what it takes for granted of a predictor's container."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.kubernetes import pods
from atoll.doctor.rule import ERROR, rule

_TAKEN_FOR_GRANTED = 8080


@rule("K8008", ERROR)
def nobody_on_8080(facts: Facts) -> Iterable[Finding]:
    for pod in pods(facts.manifests):
        if pod.container.get("modelFormat") is not None:
            continue  # KServe's own server, or a runtime's, which listens where it should
        listening = pod.service.listen_port
        if pod.workload.string("kind") != "InferenceService" or pod.container.get("ports") is not None:
            continue
        if listening is not None and listening != _TAKEN_FOR_GRANTED:
            asked = f"KServe asks {pod.name} on port {_TAKEN_FOR_GRANTED}, which no `ports` changes"
            yield found(pod.container, f"{asked}; it listens on {listening}")
