"""How nginx spreads requests, and how one sees it."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import found, made_by_atoll
from atoll.doctor.checks.routes import balanced_upstreams
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts, Route
from atoll.doctor.finding import Finding
from atoll.doctor.nginx_config import Upstream
from atoll.doctor.nginx_edits import add_directives, replace_directive
from atoll.doctor.rule import INFO, SAFE, WARNING, rule

_BALANCERS = ("least_conn", "random", "hash", "ip_hash", "least_time", "sticky", "fair")


@rule("NG015", WARNING, risk=SAFE, habit=True)
def counters_apart(facts: Facts) -> Iterable[Finding]:
    for route, upstream in balanced_upstreams(facts):
        counted = [name for name in ("least_conn", "random", "least_time") if upstream.has(name)]
        counted += [name for name in ("max_conns", "max_fails") if any(s.param(name) for s in upstream.servers)]
        if counted and route.config.several_workers and not upstream.has("zone"):
            yield found(
                upstream.directive,
                f"{counted[0]} counts in each worker separately",
                edits=_zone(upstream),
            )


def _zone(upstream: Upstream) -> Edits:
    return add_directives(upstream.directive, (f"zone {upstream.name} 256k;",), first=True)


@rule("NG016", WARNING, risk="Requests go to the engine with the fewest open ones, and no longer in turn.")
def round_robin(facts: Facts) -> Iterable[Finding]:
    for _, upstream in balanced_upstreams(facts):
        weighted = any(server.param("weight") for server in upstream.servers)
        spare = any("backup" in server.params for server in upstream.servers)
        if any(upstream.has(name) for name in _BALANCERS) or weighted or spare:
            continue
        if not made_by_atoll(facts, upstream.directive):
            yield found(
                upstream.directive,
                f"upstream {upstream.name} sends requests to its engines in turn, however long each answer takes",
                edits=add_directives(upstream.directive, ("least_conn;",), first=True),
            )


@rule("NG017", WARNING, risk="A client no longer stays with one engine.")
def by_address(facts: Facts) -> Iterable[Finding]:
    for _, upstream in balanced_upstreams(facts):
        for line in (upstream.directive.child("ip_hash"), upstream.directive.child("hash")):
            if line is not None and (line.name == "ip_hash" or re.fullmatch(r"\$(binary_)?remote_addr", line.arg)):
                yield found(
                    line,
                    "clients behind one address all land on one engine",
                    edits=replace_directive(line, "least_conn;"),
                )


@rule("NG030", INFO, risk=SAFE, habit=True)
def blind_log(facts: Facts) -> Iterable[Finding]:
    for route, _ in balanced_upstreams(facts):
        log = route.location.find("access_log")
        name = log.args[1] if log is not None and len(log.args) > 1 else "combined"
        formats = [line for line in route.config.http_children if line.name == "log_format" and line.arg == name]
        if not any("$upstream_addr" in text for line in formats for text in line.args[1:]):
            yield found(
                log or route.location.proxy_pass,
                "the access log does not name the engine that answered",
                edits=_log_with_upstream(route) if log is None else (),
            )


_LOG = (
    "log_format llm '$time_iso8601 $status $upstream_addr $upstream_status'",
    "               ' $upstream_header_time $request_time $bytes_sent \"$request\"';",
    "access_log /dev/stdout llm;",
)


def _log_with_upstream(route: Route) -> Edits:
    http = route.config.http
    in_a_container = route.config.service is not None  # elsewhere the log has a place of its own
    return add_directives(http, _LOG, first=True) if http is not None and in_a_container else ()
