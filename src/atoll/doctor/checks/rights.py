"""What a container may do: shared memory, the host, the GPUs, one name for many."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import engines, found, join, serving
from atoll.doctor.compose import Service
from atoll.doctor.edits import add_key, remove_item, remove_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, INFO, SAFE, rule

_SIZES = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "m": 2**20, "mb": 2**20, "g": 2**30, "gb": 2**30}


def _bytes(text: str) -> int | None:
    found_ = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text)
    factor = _SIZES.get(found_[2].lower()) if found_ is not None else None
    return int(float(found_[1]) * factor) if found_ is not None and factor is not None else None


@rule("DC004", ERROR, risk=SAFE)
def small_shared_memory(facts: Facts) -> Iterable[Finding]:
    for _, service in engines(facts, by_hand=True):
        assert service.vllm is not None
        tp, pp = service.vllm.tensor_parallel, service.vllm.pipeline_parallel
        if tp is None or pp is None or tp * pp < 2 or service.string("ipc") not in {None, "private"}:
            continue
        if any(target.rstrip("/") == "/dev/shm" for target in _laid_in(service)):  # noqa: S108 - the name is the point
            continue
        node = service.get("shm_size")
        size = _bytes(node.text or "") if node is not None and node.known else None
        if node is None:
            yield found(
                service,
                f"{service.name} has {tp * pp} workers and 64 MiB of shared memory",
                edits=add_key(service.node, ("shm_size: 16gb",)),
            )
        elif size is not None and size < 2**30:
            yield found(
                node,
                f"{service.name} has {tp * pp} workers and {node.text} of shared memory",
                edits=replace_value(node, "16gb"),
            )


def _laid_in(service: Service) -> Iterator[str]:
    """The places of a container that come from elsewhere: mounts and tmpfs."""
    yield from (mount.target for mount in service.mounts)
    temporary = service.get("tmpfs")
    yield from ((node.text or "").partition(":")[0] for node in (temporary.scalars() if temporary is not None else ()))


@rule("DC014", INFO, risk="The container gets its GPUs by the device request alone.")
def runtime_and_devices(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        for service in project.services:
            asked = service.get("deploy", "resources", "reservations", "devices") or service.get("gpus")
            runtime = service.get("runtime")
            if asked is not None and runtime is not None and runtime.text == "nvidia" and project.origin == "compose":
                yield found(
                    runtime, f"{service.name} asks for its GPUs twice", edits=remove_key(service.node, "runtime")
                )


@rule("DC015", ERROR)
def no_toolkit(facts: Facts) -> Iterable[Finding]:
    runtimes = facts.host.runtimes if facts.host is not None else None
    if runtimes is None or any("nvidia" in name or "cdi" in name for name in runtimes):
        return
    for project in facts.projects:
        for service in project.gpu_services if project.origin == "compose" else ():
            assert service.gpus is not None
            yield found(
                service.gpus.node, f"{service.name} wants GPUs and this Docker knows {join(sorted(runtimes))} only"
            )


@rule("DC018", ERROR, risk="The container loses rights that it has today.")
def takes_over_the_host(facts: Facts) -> Iterable[Finding]:
    for _, service in serving(facts, by_hand=True):
        if not service.serves_llm:
            continue
        node = service.get("privileged")
        if node is not None and node.text == "true":
            yield found(node, f"{service.name} is privileged", edits=remove_key(service.node, "privileged"))
        for mount in service.mounts:
            if mount.source is not None and mount.source.endswith("docker.sock"):
                yield found(mount.node, f"{service.name} holds Docker's socket", edits=remove_item(mount.node))


@rule("DC020", ERROR, risk=SAFE)
def one_name_for_many(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        for service in project.services:
            named = service.get("container_name")
            if service.replicas > 1 and named is not None:
                yield found(
                    named,
                    f"{service.replicas} replicas of {service.name} cannot have one name",
                    edits=remove_key(service.node, "container_name"),
                )
            if service.replicas > 1 and service.gpus is not None and service.gpus.ids is not None:
                yield found(service.gpus.node, f"{service.replicas} replicas of {service.name} get the same GPUs")
