"""The ways from nginx to the engines, as several checks look at them."""

from collections.abc import Iterable, Iterator

from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts, Route
from atoll.doctor.nginx_config import Server, Upstream
from atoll.doctor.nginx_edits import put_in_block


def balanced_upstreams(facts: Facts) -> Iterator[tuple[Route, Upstream]]:
    """Upstreams of several engines, once each."""
    for route in facts.upstream_routes:
        upstream = route.location.upstream
        if upstream is not None and len(serving_servers(upstream)) > 1:
            yield route, upstream


def serving_servers(upstream: Upstream) -> tuple[Server, ...]:
    """The servers of an upstream that are not `down`."""
    return tuple(server for server in upstream.servers if "down" not in server.params)


def one_each(routes: Iterable[Route]) -> Iterator[Route]:
    """One route of each nginx."""
    yield from {id(route.config): route for route in reversed(tuple(routes))}.values()


def set_in_location(route: Route, name: str, text: str) -> Edits:
    """Set a directive in the location itself."""
    return put_in_block(route.location.directive, name, text)


def http_version(route: Route) -> str:
    """The HTTP version towards the engine: 1.0 unless said otherwise before nginx 1.29.7."""
    return route.location.value("proxy_http_version", "1.1" if route.config.modern else "1.0")
