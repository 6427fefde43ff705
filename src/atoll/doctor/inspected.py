"""`docker inspect` output as a Compose project, so that the same checks see running containers."""

from dataclasses import replace

from atoll.doctor.compose import Project, Service
from atoll.doctor.form import listing, mapping, scalar
from atoll.doctor.tree import Node


def looks_like_inspect(root: Node) -> bool:
    return root.is_list and bool(root.items) and all(item.get("Config") is not None for item in root.items)


def project_of_inspect(root: Node) -> Project:
    """One service a container; lines are those of the JSON."""
    source = replace(root.source, fixable=False)
    services = tuple(_service(container) for container in root.items)
    return Project(name=source.path, sources=(source,), root=root, services=services, origin="inspect")


def _service(container: Node) -> Service:
    labels = container.get("Config", "Labels")
    label = labels.string("com.docker.compose.service") if labels is not None else None
    named = container.get("Name") or container
    name = label or (named.text or "container").lstrip("/")
    return Service(
        name=name,
        node=_compose_form(container),
        name_node=replace(named, source=replace(named.source, fixable=False)),
        project=container.source.path,
        env_file={},
    )


def _compose_form(container: Node) -> Node:
    host = container.get("HostConfig") or container
    config = container.get("Config") or container
    made: dict[str, Node | None] = {
        "image": config.get("Image"),
        "command": _filled(config.get("Cmd")),
        "entrypoint": _own_entrypoint(config),
        "environment": config.get("Env"),
        "ports": _ports(host.get("PortBindings")),
        "volumes": _mounts(container.get("Mounts")),
        "networks": _names(container.get("NetworkSettings", "Networks")),
        "network_mode": _unless(host.get("NetworkMode"), {"default", "bridge"}, wanted={"host"}),
        "ipc": _unless(host.get("IpcMode"), {"", "private", "shareable"}),
        "shm_size": _unless(host.get("ShmSize"), {"0", "67108864"}),
        "restart": _unless(host.get("RestartPolicy", "Name"), {"", "no"}),
        "privileged": _unless(host.get("Privileged"), {"false"}),
        "runtime": _unless(host.get("Runtime"), {"runc", ""}),
        "healthcheck": _healthcheck(config.get("Healthcheck")),
        "deploy": _devices(host.get("DeviceRequests")),
        "stop_grace_period": _seconds(config.get("StopTimeout")),
        "logging": _filled(host.get("LogConfig", "Config")),
        "cpuset": _unless(host.get("CpusetCpus"), {""}),
    }
    return mapping(container, made)


def _filled(node: Node | None) -> Node | None:
    return node if node is not None and (node.items or node.entries) else None


def _unless(node: Node | None, usual: set[str], wanted: set[str] | None = None) -> Node | None:
    if node is None or node.text is None or node.text in usual:
        return None
    return node if wanted is None or node.text in wanted else None


def _own_entrypoint(config: Node) -> Node | None:
    """The entrypoint, but not the one that vLLM's own image carries."""
    node = config.get("Entrypoint")
    if node is None:
        return None
    words = [item.text for item in node.items]
    ours = words in (["vllm", "serve"], ["python3", "-m", "vllm.entrypoints.openai.api_server"])
    return None if ours else listing(node, node.items)  # null, too, says that the image's own was cleared


def _ports(bindings: Node | None) -> Node | None:
    if bindings is None or not bindings.entries:
        return None
    made = []
    for target, listed in bindings.pairs():
        for binding in listed.items:
            ip, port = binding.string("HostIp") or "", binding.string("HostPort") or ""
            made.append(scalar(binding, f"{ip + ':' if ip else ''}{port}:{target}"))
    return listing(bindings, made)


def _mounts(mounts: Node | None) -> Node | None:
    if mounts is None or not mounts.items:
        return None
    made = []
    for mount in mounts.items:
        name = mount.string("Name") if mount.string("Type") == "volume" else mount.string("Source")
        anonymous = len(name or "") == 64  # Docker names a volume that nobody named by 64 hex digits
        target = mount.string("Destination") or ""
        made.append(scalar(mount, target if anonymous else f"{name}:{target}"))
    return listing(mounts, made)


def _names(networks: Node | None) -> Node | None:
    if networks is None or not networks.entries:
        return None
    return listing(networks, (scalar(entry.key, name) for name, entry in networks.entries.items()))


def _healthcheck(node: Node | None) -> Node | None:
    test = node.get("Test") if node is not None else None
    if node is None or test is None:
        return None
    values = {"test": test}
    for ours, theirs in (("interval", "Interval"), ("start_period", "StartPeriod"), ("timeout", "Timeout")):
        nanoseconds = node.string(theirs)
        if nanoseconds and nanoseconds.isdecimal():
            values[ours] = scalar(node, f"{int(nanoseconds) / 1e9:g}s")
    retries = node.get("Retries")
    if retries is not None:
        values["retries"] = retries
    return mapping(node, values)


def _devices(requests: Node | None) -> Node | None:
    if requests is None or not requests.items:
        return None
    made = []
    for request in requests.items:
        ids = _filled(request.get("DeviceIDs"))
        values = {"driver": scalar(request, "nvidia"), "capabilities": listing(request, [scalar(request, "gpu")])}
        if ids is not None:
            values["device_ids"] = ids
        else:
            values["count"] = request.get("Count") or scalar(request, "-1")
        made.append(mapping(request, values))
    devices = listing(requests, made)
    reservations = mapping(requests, {"devices": devices})
    return mapping(requests, {"resources": mapping(requests, {"reservations": reservations})})


def _seconds(node: Node | None) -> Node | None:
    return scalar(node, f"{node.text}s") if node is not None and (node.text or "").isdecimal() else None
