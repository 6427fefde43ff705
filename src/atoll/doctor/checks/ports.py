"""Ports and networks of Compose services."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import engines, found
from atoll.doctor.compose import Project, Service
from atoll.doctor.edits import Edits, add_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.parts import Port
from atoll.doctor.rule import ERROR, rule


@rule("DC003", ERROR, risk="Whoever reaches the port from another machine no longer does.")
def engine_published(facts: Facts) -> Iterable[Finding]:
    for project, service in engines(facts, by_hand=True):
        before = _in_front(facts, project, service)
        for port in service.ports:
            if before and port.open_to_all:
                yield found(
                    port.node,
                    f"{service.name} is open to every network on port {port.published}, past {before}",
                    edits=on_loopback(port),
                    alike=f"past {before}",
                )


def _in_front(facts: Facts, project: Project, service: Service) -> str | None:
    """What leads to it: nginx, or a service that depends on it or names it in a variable."""
    for route in facts.routes_to(service):
        return route.config.service.name if route.config.service is not None else route.config.source.name
    named = re.compile(rf"\b{re.escape(service.name)}:\d")
    for other in project.services:
        if other is service or other.vllm is not None:
            continue
        if service.name in other.depends_on or any(named.search(s.value or "") for s in other.environment.values()):
            return other.name
    return None


def on_loopback(port: Port) -> Edits:
    """The port, published for this machine alone."""
    node = port.node
    if node.is_map:
        written = node.get("host_ip")
        return replace_value(written, "127.0.0.1") if written is not None else add_key(node, ("host_ip: 127.0.0.1",))
    raw = (node.raw or "").strip()
    if port.host_ip is not None:
        raw = raw.removeprefix(f"{port.host_ip}:")
    return replace_value(node, f'"127.0.0.1:{raw}"')


@rule("DC010", ERROR)
def missing_network(facts: Facts) -> Iterable[Finding]:
    known = facts.host.networks if facts.host is not None else None
    if known is None:
        return
    for project in facts.projects:
        declared = project.root.get("networks") if project.origin == "compose" else None
        for name, network in declared.pairs() if declared is not None else ():
            called = network.string("name") or network.string("external", "name") or name
            external = network.get("external")
            if external is not None and external.text != "false" and called not in known:
                yield found(network, f"this host has no network {called}")


@rule("DC019", ERROR)
def same_port_twice(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        taken: list[tuple[int, Port | None, Service]] = []
        for service in project.services if project.origin == "compose" else ():
            for number, port in _published(service):
                other = next((entry for entry in taken if _collide(entry, number, port, service)), None)
                if other is not None:
                    place = port.node if port is not None else service
                    yield found(place, f"{other[2].name} and {service.name} both want port {number} of the host")
                taken.append((number, port, service))


def _published(service: Service) -> Iterator[tuple[int, Port | None]]:
    for port in service.ports:
        for number in port.hosts():
            if len(port.hosts()) == len(port.targets()):  # of a range for one port Docker takes a free one
                yield number, port
    if service.host_network and service.vllm is not None and service.listen_port is not None:
        yield service.listen_port, None


def _collide(entry: tuple[int, Port | None, Service], number: int, port: Port | None, service: Service) -> bool:
    other_number, other, other_service = entry
    if other_number != number or other_service is service or not other_service.together_with(service):
        return False
    if port is None or other is None:
        return True
    same_ip = port.host_ip == other.host_ip or port.open_to_all or other.open_to_all
    return same_ip and port.protocol == other.protocol and "${" not in f"{port.host_ip}{other.host_ip}"
