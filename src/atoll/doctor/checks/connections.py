"""Connections between nginx and the engines, and how many it can hold."""

import re
from collections.abc import Iterable
from dataclasses import replace

from atoll.doctor.checks.memory import usual_flags
from atoll.doctor.checks.places import found
from atoll.doctor.checks.routes import http_version, one_each
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts, Route, ServedEngine
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.nginx import Directive
from atoll.doctor.nginx_config import NginxConfig, Upstream
from atoll.doctor.nginx_edits import add_directives, put_in_block, remove_directive, replace_directive
from atoll.doctor.nginx_values import nginx_seconds
from atoll.doctor.rule import INFO, SAFE, WARNING, rule


@rule("NG005", WARNING, risk=SAFE)
def no_keepalive(facts: Facts) -> Iterable[Finding]:
    for route in facts.upstream_routes:
        upstream = route.location.upstream
        assert upstream is not None
        if route.config.modern:
            continue
        connection = route.location.headers().get("connection")
        if not upstream.has("keepalive"):
            said = f"upstream {upstream.name} opens a connection for every request"
        elif http_version(route) == "1.0":
            said = "keepalive has no effect over HTTP/1.0"
        elif connection is None or connection in {"close", "upgrade"}:
            sent = "`Connection: close`" if connection is None else f"`Connection: {connection}`"
            said = f"keepalive has no effect while nginx sends {sent}"
        else:
            continue
        yield found(upstream.directive, said, edits=_keeping(route, upstream), risk=_own_header(connection))


def _own_header(connection: str | None) -> str | None:
    """What is lost when a Connection header that somebody wrote goes."""
    if connection is None or connection == "":
        return None
    return f"`Connection: {connection}` no longer reaches the engine; with `upgrade`, WebSockets need it."


def _keeping(route: Route, upstream: Upstream) -> Edits:
    """All that it takes, at once: one line alone has no effect, and longer than vLLM's 5 s it does harm (NG006)."""
    lines = [] if upstream.has("keepalive") else ["keepalive 64;"]
    lines += [] if upstream.has("keepalive_timeout") else ["keepalive_timeout 4s;"]
    edits = add_directives(upstream.directive, lines) if lines else ()
    if lines and not edits:
        return ()
    block, headers = route.location.directive, _empty_connection(route)
    if http_version(route) == "1.0":
        text = "proxy_http_version 1.1;"
        there = block.child("proxy_http_version")
        if there is None and headers and headers[-1].start == headers[-1].end:
            headers = (*headers[:-1], *_joined(block, text, headers[-1]))
        else:
            headers = (*headers, *put_in_block(block, "proxy_http_version", text))
    return (*edits, *headers)


def _joined(block: Directive, text: str, edit: Edit) -> Edits:
    """A line beside what another edit adds to the same block."""
    added = add_directives(block, (text,))
    if len(added) != 1 or (added[0].start, added[0].end) != (edit.start, edit.end):
        return ()
    return (replace(edit, text=edit.text + added[0].text),)


def _empty_connection(route: Route) -> Edits:
    if route.location.headers().get("connection") == "":
        return ()
    for line in route.location.directive.children("proxy_set_header"):
        if line.arg.lower() == "connection":
            return replace_directive(line, 'proxy_set_header Connection "";')
    lines = ['proxy_set_header Connection "";']
    if not route.location.directive.children("proxy_set_header"):  # what is set further out is hidden from now on
        lines += [
            f"proxy_set_header {line.arg} {line.args[1]};"
            for block in route.location.around
            for line in block.children("proxy_set_header")
            if len(line.args) > 1 and line.arg.lower() != "connection" and re.fullmatch(r"[\w$.-]+", line.args[1])
        ]
    return add_directives(route.location.directive, lines)


def keeps_connections(route: Route) -> bool:
    """Whether idle connections to the engines are kept at all."""
    upstream = route.location.upstream
    if upstream is None or upstream.value("keepalive") == "0":
        return False
    connection = route.location.headers().get("connection", "" if route.config.modern else "close")
    return http_version(route) == "1.1" and connection == "" and (route.config.modern or upstream.has("keepalive"))


def engine_keep_alive_s(route: Route) -> float:
    """The shortest time after which an engine behind it closes an idle connection: vLLM's own 5 s unless told."""
    waits = []
    for service in route.engines:
        setting = service.environment.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE")
        known = setting is not None and setting.known and re.fullmatch(r"\d+(\.\d+)?", setting.value or "")
        waits.append(float(setting.value or 5) if setting is not None and known else 5.0)
    return min(waits, default=5.0)


@rule("NG006", WARNING, risk=SAFE)
def stale_connections(facts: Facts) -> Iterable[Finding]:
    for route in facts.upstream_routes:
        upstream, kept, engine = route.location.upstream, kept_s(route), engine_keep_alive_s(route)
        if upstream is None or not route.to_vllm or kept is None or kept < engine:
            continue
        text = f"keepalive_timeout {max(1, int(engine * 0.8))}s;"
        made = found(
            upstream.directive.child("keepalive_timeout") or upstream.directive,
            f"idle connections are kept for {kept:g} s here and for {engine:g} s by vLLM",
            edits=put_in_block(upstream.directive, "keepalive_timeout", text),
        )
        yield replace(made, fault=idle_fault(route))


def idle_fault(route: Route) -> str:
    """What NG006 sees at nginx's end and VL020 at the engines'."""
    upstream = route.location.upstream
    return f"idle connections of {upstream.directive.file}:{upstream.directive.line}" if upstream is not None else ""


def kept_s(route: Route) -> float | None:
    """Seconds for which idle connections to the engines are kept; None when they are not, or for a variable."""
    upstream = route.location.upstream
    if upstream is None or not keeps_connections(route):
        return None
    return nginx_seconds(upstream.value("keepalive_timeout") or "60s")


def _streams(facts: Facts, route: Route) -> int | None:
    """The most answers that can run at once; None when neither users nor engines tell."""
    users = facts.load_at(route.config.source.path).users
    if users is not None:
        return users
    engines = [engine for engine in facts.engines if engine.service in route.services]
    if not engines:
        return None
    return sum(_seats(facts, engine) for engine in engines)


def _seats(facts: Facts, engine: ServedEngine) -> int:
    """The answers that run at once in it; 256, the engine's own on small cards, where the card is not known."""
    kind = facts.kind_of(engine.service)
    usual = usual_flags(engine.command, kind).max_num_seqs if kind is not None else None
    return engine.command.integer("--max-num-seqs") or usual or 256


@rule("NG012", WARNING, risk=SAFE)
def few_connections(facts: Facts) -> Iterable[Finding]:
    for route in one_each(facts.answering):
        count, place = route.config.worker_connections
        workers = _workers(route.config)
        streams = _streams(facts, route)
        if streams is None or workers * count >= 2.4 * streams:
            continue
        made = found(
            place or route.location.proxy_pass,
            f"nginx's {workers * count} connections carry {workers * count // 2} streams; there may be {streams}",
            edits=replace_directive(place, "worker_connections 16384;") if place is not None else (),
        )
        yield made if _seats_are_told(facts, route) else replace(made, weight=INFO)


def _seats_are_told(facts: Facts, route: Route) -> bool:
    """Whether the load, or each engine's --max-num-seqs, says how many streams there may be; else it is the default."""
    engines = [engine for engine in facts.engines if engine.service in route.services]
    told = facts.load_at(route.config.source.path).users is not None
    return told or all(engine.command.has("--max-num-seqs") for engine in engines)


def _workers(config: NginxConfig) -> int:
    found_ = config.main("worker_processes")
    if found_ is None:
        return 2 if config.fragment else 1
    return int(found_.arg) if found_.arg.isdecimal() else 2  # auto: two at the least on any box with GPUs


@rule("NG013", INFO, risk=SAFE, habit=True)
def one_worker(facts: Facts) -> Iterable[Finding]:
    for route in one_each(facts.answering):
        config = route.config
        if not config.fragment and config.main("worker_processes") is None and config.http is not None:
            place = config.main("events") or config.http
            edits = (*at_the_head(config, "worker_processes auto;"), *_zones(facts, config))
            yield found(place, "nginx runs with one worker", edits=edits)


def _zones(facts: Facts, config: NginxConfig) -> Edits:
    """A zone for each upstream that has none, so that its counters stay one when the workers are several (NG015)."""
    upstreams = [route.location.upstream for route in facts.upstream_routes if route.config is config]
    return tuple(
        edit
        for upstream in upstreams
        if upstream is not None and not upstream.has("zone")
        for edit in add_directives(upstream.directive, (f"zone {upstream.name} 256k;",), first=True)
    )


def at_the_head(config: NginxConfig, text: str) -> Edits:
    """A directive before the first one of the main file."""
    source = config.source
    first = next((line for line in config.directives if line.source.path == source.path), None)
    if first is None or not source.fixable:
        return ()
    start = source.start(first.line)
    return (Edit(file=source.path, start=start, end=start, text=f"{text}\n"),)


@rule("NG014", INFO, risk=SAFE, habit=True)
def few_files(facts: Facts) -> Iterable[Finding]:
    for route in one_each(facts.answering):
        config = route.config
        count, place = config.worker_connections
        limit = config.main("worker_rlimit_nofile")
        lifted = config.service is not None and config.service.get("ulimits", "nofile") is not None
        if place is None:
            continue
        if limit is not None and limit.arg.isdecimal() and int(limit.arg) < 2 * count:
            yield found(
                limit,
                f"{limit.arg} open files for {count} connections that need two each",
                edits=replace_directive(limit, f"worker_rlimit_nofile {max(65536, 4 * count)};"),
            )
        elif limit is None and count >= 4096 and not lifted:
            yield found(
                place,
                f"{count} connections, and the limit of open files is the system's (often 1024)",
                edits=at_the_head(config, f"worker_rlimit_nofile {max(65536, 4 * count)};"),
            )


@rule("NG028", WARNING, risk=SAFE)
def cut_by_reload(facts: Facts) -> Iterable[Finding]:
    for route in one_each(facts.answering):
        longest = facts.load_at(route.config.source.path).answer_s or 150.0
        place = route.config.main("worker_shutdown_timeout")
        seconds = nginx_seconds(place.arg) if place is not None else None
        if place is not None and seconds is not None and seconds < longest:
            yield found(
                place, f"a reload cuts answers that run for more than {seconds:g} s", edits=remove_directive(place)
            )
