"""Answers that come in a stream through nginx, and the requests for them."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.checks.routes import http_version, set_in_location
from atoll.doctor.checks.timeouts import cuts_answers, needed_wait_s, read_timeout
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts, Route
from atoll.doctor.finding import Finding
from atoll.doctor.nginx_edits import remove_directive
from atoll.doctor.nginx_values import nginx_bytes, nginx_seconds
from atoll.doctor.rule import ERROR, INFO, SAFE, WARNING, rule


def _buffers(route: Route) -> bool:
    return route.location.value("proxy_buffering", "on") != "off"


@rule("NG001", ERROR, risk=SAFE)
def short_read_timeout(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        if cuts_answers(facts, route):
            timeout, place = read_timeout(route), route.location.find("proxy_read_timeout")
            said = "" if place is not None else ", the default"
            wait = needed_wait_s(facts, route.config.source.path)
            yield found(
                place or route.location.proxy_pass,
                f"nginx cuts an answer after {timeout:g} s of silence{said}; it may take {wait:g} s",
                edits=set_in_location(route, "proxy_read_timeout", "proxy_read_timeout 1800s;"),
            )


@rule("NG002", ERROR, risk=SAFE)
def lumps(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        if http_version(route) == "1.0" and _buffers(route):
            yield found(
                route.location.find("proxy_http_version") or route.location.proxy_pass,
                f"streams go through HTTP/1.0 and a buffer{_by_default(route)}",
                edits=(
                    *set_in_location(route, "proxy_buffering", "proxy_buffering off;"),
                    *(_http_1_1(route) if route.location.directive.child("proxy_http_version") else ()),
                ),
            )


def _by_default(route: Route) -> str:
    if route.location.find("proxy_http_version") is not None:
        return ""
    version = route.config.version
    return f", the default of nginx {'.'.join(map(str, version))}" if version else ", the default before nginx 1.29.7"


def _http_1_1(route: Route) -> Edits:
    return set_in_location(route, "proxy_http_version", "proxy_http_version 1.1;")


@rule("NG003", ERROR, risk=SAFE)
def unframed(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        if http_version(route) == "1.0":
            yield found(
                route.location.find("proxy_http_version") or route.location.proxy_pass,
                f"nginx asks the engine in HTTP/1.0{_by_default(route)}: half an answer looks whole",
                edits=_http_1_1(route),
            )


@rule("NG004", ERROR, risk=SAFE)
def gzipped_stream(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        types = route.location.find("gzip_types")
        covered = types is not None and bool({"text/event-stream", "*"} & set(types.args))
        if types is not None and covered and route.location.value("gzip", "off") == "on" and _buffers(route):
            yield found(
                types,
                "gzip holds a streamed answer back until its end",
                edits=set_in_location(route, "gzip", "gzip off;"),
            )


@rule("NG018", ERROR, risk=SAFE)
def small_body(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        limit = nginx_bytes(route.location.value("client_max_body_size", "1m"))
        prompt = facts.load_at(route.config.source.path).prompt_tokens
        # A token is 4 to 6 bytes of text, at most 12 where JSON escapes every character.
        needed = 2**20 + 1 if prompt is None else 12 * prompt
        if limit is not None and 0 < limit < needed:
            place = route.location.find("client_max_body_size")
            yield found(
                place or route.location.proxy_pass,
                f"requests of more than {limit / 2**20:g} MiB are refused{'' if place else ', the default'}",
                edits=set_in_location(route, "client_max_body_size", "client_max_body_size 64m;"),
            )


@rule("NG019", INFO, risk=SAFE, habit=True)
def body_on_disk(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        size = nginx_bytes(route.location.value("client_body_buffer_size", "16k"))
        if size is not None and size < 2**16:
            yield found(
                route.location.find("client_body_buffer_size") or route.location.proxy_pass,
                f"prompts of more than {size // 1024} KiB are written to a temporary file first",
                edits=set_in_location(route, "client_body_buffer_size", "client_body_buffer_size 1m;"),
            )


@rule("NG025", WARNING, risk="An answer stops when its client leaves.")
def work_for_nobody(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        place = route.location.find("proxy_ignore_client_abort")
        if place is not None and place.arg == "on":
            yield found(place, "an answer goes on when its client has left", edits=remove_directive(place))


@rule(
    "NG029",
    WARNING,
    risk="An engine that needs more than 2 s to accept a connection counts as failed.",
    habit=True,
)
def slow_connect(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        seconds = nginx_seconds(route.location.value("proxy_connect_timeout", "60s"))
        if len(route.location.hosts) > 1 and seconds is not None and seconds > 5:
            place = route.location.find("proxy_connect_timeout")
            yield found(
                place or route.location.proxy_pass,
                f"an engine that does not answer holds a request for {seconds:g} s{'' if place else ', the default'}",
                edits=set_in_location(route, "proxy_connect_timeout", "proxy_connect_timeout 2s;"),
            )


@rule("NG033", INFO, risk=SAFE)
def expected_header(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        if not _buffers(route):
            continue
        for name in ("add_header", "proxy_set_header", "proxy_pass_header"):
            for block in (route.location.directive, *route.location.around):
                for line in block.children(name):
                    if line.arg.lower() == "x-accel-buffering":
                        edits = set_in_location(route, "proxy_buffering", "proxy_buffering off;")
                        yield found(line, "this header does nothing here; buffering stays on", edits=edits)


@rule("NG034", INFO, risk="Bodies are read whole before they are passed on.", habit=True)
def unbuffered_retries(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        place = route.location.find("proxy_request_buffering")
        retries = route.location.find("proxy_next_upstream")
        if place is not None and place.arg == "off" and retries is not None and "non_idempotent" in retries.args:
            yield found(
                place,
                "a request that was passed on at once cannot be tried again elsewhere",
                edits=remove_directive(place),
            )
