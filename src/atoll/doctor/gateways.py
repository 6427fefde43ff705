"""Doors that are written in YAML: LiteLLM's and Traefik's files, Traefik's labels, Envoy's clusters."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from atoll.doctor.compose import Service
from atoll.doctor.door import Backend, Door, Wait, backend, present, seconds
from atoll.doctor.parts import environment_nodes
from atoll.doctor.tree import Node

_DEEPEST = 25


# LiteLLM -----------------------------------------------------------------------------------------------------------


def door_of_litellm(root: Node) -> Door | None:
    """LiteLLM's config.yaml; None for a model_list of something else."""
    listed = root.get("model_list")
    items = [item.get("litellm_params") for item in listed.items] if listed is not None else []
    params = [item for item in items if item is not None and item.is_map]
    if not params:
        return None
    backends = [_litellm_backend(item) for item in params]
    waits = [wait for item in params for wait in _limits(item, ("timeout",))]
    for section, names in (
        ("router_settings", ("timeout",)),
        ("litellm_settings", ("request_timeout",)),
    ):
        inside = root.get(section)
        waits += list(_limits(inside, names)) if inside is not None else []
    key = root.get("general_settings", "master_key")
    written = key is not None and bool(key.text) and key.known and not (key.text or "").startswith("os.environ/")
    return Door(
        kind="LiteLLM",
        node=root.key("model_list") or root,
        backends=present(backends),
        waits=tuple(waits),
        keys=(key,) if key is not None and written else (),
    )


_OF_OPENAI = re.compile(r"^(hosted_vllm|openai|text-completion-openai|vllm)/(?P<name>.+)$")


def _litellm_backend(params: Node) -> Backend | None:
    base, model = params.get("api_base"), params.get("model")
    if base is None or not base.known or (base.text or "").startswith("os.environ/"):
        return None
    named = _OF_OPENAI.match(model.text or "") if model is not None and model.known else None
    asked = replace(model, text=named["name"]) if model is not None and named is not None else None
    return backend(base, model=asked)


def _limits(node: Node, names: tuple[str, ...]) -> Iterator[Wait]:
    for name in names:
        said = node.get(name)
        limit = seconds(said.text or "") if said is not None and said.known and said.text else None
        if said is not None and limit is not None:
            yield Wait(setting=name, seconds=limit, node=said, edits_to="1800")


# Traefik -----------------------------------------------------------------------------------------------------------


def looks_like_traefik(root: Node) -> bool:
    http = root.get("http")
    dynamic = http is not None and any(
        http.get(key) is not None for key in ("services", "routers", "serversTransports")
    )
    return dynamic or root.get("entryPoints") is not None


def doors_of_traefik(root: Node) -> Iterator[Door]:
    """The services of a dynamic file, with the limits of its transports; and those of a static file's entry points."""
    transports = root.get("http", "serversTransports")
    waits = [
        wait
        for _, transport in (transports.pairs() if transports is not None else ())
        for wait in _limits_in(transport.get("forwardingTimeouts"), ("responseHeaderTimeout",))
    ]
    points = root.get("entryPoints")
    for _, point in points.pairs() if points is not None else ():
        waits += list(_limits_in(point.get("transport", "respondingTimeouts"), ("writeTimeout",)))
    services = root.get("http", "services")
    held = False
    for name, service in services.pairs() if services is not None else ():
        backends = present([backend(url) for url in _urls(service.get("loadBalancer", "servers"))])
        if backends:
            held = True
            node = services.key(name) if services is not None else None
            yield Door(kind="Traefik", node=node or service, backends=backends, waits=tuple(waits), names=(name,))
    if waits and not held:
        yield Door(kind="Traefik", node=points or root, backends=(), waits=tuple(waits))


def _urls(listed: Node | None) -> Iterator[Node]:
    for item in listed.items if listed is not None else ():
        url = item.get("url")
        if url is not None and url.known:
            yield url


def _limits_in(node: Node | None, names: tuple[str, ...]) -> Iterator[Wait]:
    for wait in _limits(node, names) if node is not None else ():
        yield Wait(setting=wait.setting, seconds=wait.seconds, node=wait.node, edits_to="30m")


_PORT_LABEL = re.compile(r"^traefik\.http\.services\.[^.]+\.loadbalancer\.server\.port$", re.IGNORECASE)


def door_of_labels(service: Service) -> Door | None:
    """Traefik by the labels of a service: the port at which it is asked."""
    labels: Mapping[str, Node] = environment_nodes(service.get("labels"))
    for name, node in labels.items():
        text = (node.text or "").removeprefix(f"{name}=")
        if _PORT_LABEL.match(name) and text.isdecimal():
            asked = Backend(host=service.name, port=int(text), node=node)
            return Door(kind="Traefik", node=node, backends=(asked,))
    return None


# Envoy -------------------------------------------------------------------------------------------------------------


def doors_of_envoy(root: Node) -> Iterator[Door]:
    """The addresses of each of an Envoy's clusters."""
    clusters = root.get("static_resources", "clusters")
    for cluster in clusters.items if clusters is not None else ():
        backends = _addresses(cluster)
        if backends:
            node = cluster.get("name") or cluster
            yield Door(kind="Envoy", node=node, backends=tuple(backends), names=(cluster.string("name") or "",))


def _addresses(cluster: Node) -> list[Backend]:
    addresses = [node for node in _walk(cluster, 0) if node.get("socket_address") is not None]
    return [
        Backend(host=host, port=int(port), node=node.get("socket_address", "port_value") or node)
        for node in addresses
        if (host := node.string("socket_address", "address"))
        and (port := node.string("socket_address", "port_value") or "").isdecimal()
    ]


def _walk(node: Node | None, depth: int) -> Iterator[Node]:
    if node is None or depth > _DEEPEST:
        return
    yield node
    for child in (*(value for _, value in node.pairs()), *node.items):
        yield from _walk(child, depth + 1)
