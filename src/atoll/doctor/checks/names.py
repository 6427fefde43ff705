"""Names and ports at which nginx asks for its engines."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.images import NGINX
from atoll.doctor.checks.places import found, join
from atoll.doctor.compose import Service
from atoll.doctor.edits import Edits, replace_value
from atoll.doctor.facts import Facts, Route, is_this_machine
from atoll.doctor.finding import Finding
from atoll.doctor.nginx import Directive
from atoll.doctor.nginx_config import NginxConfig, Server, Upstream
from atoll.doctor.nginx_edits import add_directives, add_parameter, replace_directive
from atoll.doctor.rule import ERROR, rule


@rule("NG020", ERROR, risk="nginx asks Docker's DNS (127.0.0.11) for the engines' addresses while it runs.")
def resolved_once(facts: Facts) -> Iterable[Finding]:
    for route in facts.upstream_routes:
        upstream = route.location.upstream
        assert upstream is not None
        fixed = [server for server in upstream.servers if _is_container(facts, route, server.host)]
        fixed = [server for server in fixed if "resolve" not in server.params]
        if fixed:
            names = join([server.host for server in fixed])
            yield found(
                fixed[0].directive,
                f"the address of {names} is looked up once, when nginx starts",
                fix="" if route.config.service is not None else _OTHER_RESOLVER,
                edits=_resolving(route, upstream, fixed),
            )
    for route in facts.answering:
        scheme, host, port, uri = route.location.target
        if route.location.upstream is None and not host.startswith("$") and _is_container(facts, route, host):
            yield found(
                route.location.proxy_pass,
                f"the address of {host} is looked up once, when nginx starts",
                fix=f"resolver 127.0.0.11 valid=5s; set $engine {scheme}://{host}:{port or 80};"
                " proxy_pass $engine; (a variable is looked up again)"
                if route.config.service is not None
                else _OTHER_RESOLVER,
                edits=_by_variable(route) if not uri else (),
            )


_OTHER_RESOLVER = (
    "If they are names of Docker's, put nginx into that Compose project; elsewhere Docker's DNS is out of reach."
    " If a DNS server of yours knows them: its address as resolver, and `server NAME:PORT resolve`."
)


def _is_container(facts: Facts, route: Route, host: str) -> bool:
    """Whether a name belongs to a container: a service that we have seen, or a name without a dot."""
    if not host or re.fullmatch(r"[\d.]+|\[.*\]|unix|localhost", host) or "$" in host:
        return False
    service = route.config.service
    if service is not None:
        if service.host_network:
            return False
        return facts.project_of(service).service(host) is not None or "." not in host
    return "." not in host


def _resolving(route: Route, upstream: Upstream, servers: list[Server]) -> Edits:
    if not route.config.resolves_upstreams:
        return newer_nginx(route.config.service)
    block = upstream.directive
    changed = [add_parameter(server.directive, "resolve") for server in servers]
    if route.config.service is None or not all(changed):
        return ()  # 127.0.0.11 is there in a container alone; half an upstream is none
    edits = tuple(edit for one in changed for edit in one)
    lines = [] if upstream.has("zone") else [f"zone {upstream.name} 256k;"]
    if not _has_resolver(route.config, upstream):
        lines += ["resolver 127.0.0.11 valid=5s ipv6=off;"]
    return (*edits, *(add_directives(block, lines, first=True) if lines else ()))


def _has_resolver(config: NginxConfig, upstream: Upstream) -> bool:
    return upstream.has("resolver") or any(directive.name == "resolver" for directive in config.http_children)


def newer_nginx(service: Service | None) -> Edits:
    """The image of an nginx that cannot resolve, pinned to one that can."""
    image = service.image if service is not None else None
    node = service.get("image") if service is not None else None
    if image is None or node is None or image.tag is None or image.digest is not None:
        return ()
    suffix = re.sub(r"^[\d.]+", "", image.tag)
    return replace_value(node, f"{image.path}:{NGINX}{suffix}")


def _by_variable(route: Route) -> Edits:
    scheme, host, port, _ = route.location.target
    text = f"set $engine {scheme}://{host}:{port or 80}; proxy_pass $engine;"
    changed = replace_directive(route.location.proxy_pass, text) if route.config.service is not None else ()
    if route.location.find("resolver") is not None or not changed:
        return changed
    return (
        *changed,
        *add_directives(route.location.directive, ("resolver 127.0.0.11 valid=5s ipv6=off;",), first=True),
    )


@rule("NG021", ERROR)
def unknown_host(facts: Facts) -> Iterable[Finding]:
    for config in facts.nginx:
        if config.service is None or config.service.host_network or _sees_more(facts, config.service):
            continue
        project = facts.project_of(config.service)
        for location in config.locations:
            for host, _ in location.hosts:
                if not re.fullmatch(r"[A-Za-z0-9][\w-]*", host) or host == "localhost":
                    continue
                service = project.service(host)
                place = _place_of(location.upstream, host) or location.proxy_pass
                if service is None:
                    names = join(
                        sorted(other.name for other in project.services if other is not config.service) or ["none"]
                    )
                    yield found(place, f"no service is called {host}; there are: {names}")
                elif not service.host_network and not set(service.networks) & set(config.service.networks):
                    yield found(place, f"{host} and {config.service.name} share no network")


def _sees_more(facts: Facts, service: Service) -> bool:
    """Whether names may come from elsewhere: an external network, extra_hosts, links."""
    root = facts.project_of(service).root
    external = any(root.get("networks", name, "external") is not None for name in service.networks)
    return external or any(service.get(key) is not None for key in ("extra_hosts", "external_links", "links", "dns"))


def _place_of(upstream: Upstream | None, host: str) -> Directive | None:
    servers = upstream.servers if upstream is not None else ()
    return next((server.directive for server in servers if server.host == host), None)


@rule("NG031", ERROR, risk="Requests go to another port.")
def wrong_port(facts: Facts) -> Iterable[Finding]:
    yield from _unpublished(facts)
    for config in facts.nginx:
        for location in config.locations:
            for host, port in location.hosts:
                service = _service_called(facts, config, host)
                listening = service.listen_port if service is not None else None
                if service is None or not service.serves_llm or service.host_network:
                    continue
                if listening is None or port in {listening, None}:
                    continue
                place = _place_of(location.upstream, host) or location.proxy_pass
                yield found(
                    place,
                    f"{service.name} listens on {listening}, not on {port}",
                    edits=_with_port(place, host, port, listening),
                )


def _unpublished(facts: Facts) -> Iterator[Finding]:
    """An nginx of the host itself that asks a port of it at which none of the engines answers."""
    for route in facts.answering:
        on_host = route.config.service is None or route.config.service.host_network
        for host, port in route.location.hosts if on_host and not route.services else ():
            open_ports = _host_ports(facts, route)
            if is_this_machine(host) and open_ports and port not in open_ports:
                place = _place_of(route.location.upstream, host) or route.location.proxy_pass
                answered = join([str(number) for number in sorted(open_ports)])
                yield found(place, f"no engine answers on port {port} of this host; there is {answered}")


def _host_ports(facts: Facts, route: Route) -> set[int]:
    """The ports of the host at which its engines answer; none when one of them cannot be told."""
    made: set[int] = set()
    for service in (service for project in facts.neighbours(route.config) for service in project.services):
        if not service.serves_llm:
            continue
        if service.host_network and service.listen_port is None:
            return set()
        made |= {service.listen_port} if service.host_network and service.listen_port is not None else set()
        made |= {number for port in service.ports for number in port.hosts()}
    return made


def _service_called(facts: Facts, config: NginxConfig, host: str) -> Service | None:
    called = (project.service(host) for project in facts.neighbours(config))
    return next((service for service in called if service is not None), None)


def _with_port(place: Directive, host: str, port: int | None, listening: int) -> Edits:
    words = " ".join(place.args).replace(f"{host}:{port}", f"{host}:{listening}", 1)
    return replace_directive(place, f"{place.name} {words};") if f"{host}:{port}" in place.arg else ()
