"""nginx's upstreams before language models: balancing, failures, retries, names, workers."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.containers import NGINX
from atoll.doctor.checks.locations import http_version
from atoll.doctor.checks.memory import usual_flags
from atoll.doctor.checks.places import found, join, made_by_atoll
from atoll.doctor.checks.timeouts import cuts_answers
from atoll.doctor.compose import Service
from atoll.doctor.edits import (
    Edits,
    add_directives,
    add_parameter,
    put_in_block,
    remove_directive,
    replace_directive,
    replace_value,
)
from atoll.doctor.facts import Facts, Route, ServedEngine, is_this_machine
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.nginx import Directive, NginxConfig, Server, Upstream, nginx_seconds
from atoll.doctor.rule import ERROR, INFO, WARNING, rule


def _upstreams(facts: Facts) -> Iterator[tuple[Route, Upstream]]:
    """Upstreams of several engines, once each."""
    for route in facts.upstream_routes:
        upstream = route.location.upstream
        if upstream is not None and len(_serving(upstream)) > 1:
            yield route, upstream


def _serving(upstream: Upstream) -> tuple[Server, ...]:
    return tuple(server for server in upstream.servers if "down" not in server.params)


@rule("NG005", WARNING)
def no_keepalive(facts: Facts) -> Iterable[Finding]:
    """Connections to the engines are not kept (before nginx 1.29.7), or `keepalive` has no effect.

    Consequence: One TCP connection for every request; `keepalive` alone does nothing without HTTP/1.1 and an empty
    Connection header.

    Evidence: nginx 1.22.1: 20 connections for 20 requests until all three lines were there; 1.31.3: 2;
    https://github.com/NVIDIA/srt-slurm/pull/283.

    Fix: keepalive 64; keepalive_timeout 4s in the upstream; proxy_http_version 1.1; proxy_set_header Connection "".

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; keepalive 64; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; keepalive 64; }
      server { location /v1/ { proxy_pass http://vllm; proxy_http_version 1.1; proxy_set_header Connection ""; } }
    }
    ```
    """
    for route in facts.upstream_routes:
        upstream = route.location.upstream
        assert upstream is not None
        if route.config.modern:
            continue
        connection = route.location.headers().get("connection")
        if not upstream.has("keepalive"):
            yield found(
                upstream.directive,
                f"upstream {upstream.name} opens a connection for every request",
                edits=add_directives(upstream.directive, ("keepalive 64;", "keepalive_timeout 4s;")),
            )
        elif http_version(route) == "1.0":
            yield found(
                upstream.directive,
                "keepalive has no effect over HTTP/1.0",
                edits=put_in_block(route.location.directive, "proxy_http_version", "proxy_http_version 1.1;"),
            )
        elif connection is None or connection in {"close", "upgrade"}:
            sent = "`Connection: close`" if connection is None else f"`Connection: {connection}`"
            yield found(
                upstream.directive, f"keepalive has no effect while nginx sends {sent}", edits=_empty_connection(route)
            )


def _empty_connection(route: Route) -> Edits:
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


@rule("NG006", WARNING)
def stale_connections(facts: Facts) -> Iterable[Finding]:
    """Nginx keeps idle connections to the engines for longer than vLLM does (60 s by default against 5 s).

    Consequence: A request lands on a connection that vLLM is closing: a POST gets 502 and is not tried again, and the
    engine is left out for 10 s.

    Evidence: reproduced with nginx 1.31.3 and 1.22.1; with 4 s it is gone. On by default since 1.29.7; vLLM PR 18472,
    https://github.com/llm-d/llm-d/pull/1564.

    Fix: keepalive_timeout 4s in the upstream, or VLLM_HTTP_TIMEOUT_KEEP_ALIVE above nginx's time.

    Fails: an image since 1.29.7 keeps connections by itself
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct}
      nginx: {image: "nginx:1.31.3", volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct}
      nginx: {image: "nginx:1.31.3", volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; keepalive_timeout 4s; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```
    """
    for route in facts.upstream_routes:
        upstream, kept, engine = route.location.upstream, kept_s(route), engine_keep_alive_s(route)
        if upstream is None or not route.to_vllm or kept is None or kept < engine:
            continue
        text = f"keepalive_timeout {max(1, int(engine * 0.8))}s;"
        yield found(
            upstream.directive.child("keepalive_timeout") or upstream.directive,
            f"idle connections are kept for {kept:g} s here and for {engine:g} s by vLLM",
            edits=put_in_block(upstream.directive, "keepalive_timeout", text),
        )


def kept_s(route: Route) -> float | None:
    """Seconds for which idle connections to the engines are kept; None when they are not, or for a variable."""
    upstream = route.location.upstream
    if upstream is None or not keeps_connections(route):
        return None
    return nginx_seconds(upstream.value("keepalive_timeout") or "60s")


@rule("NG007", ERROR)
def ejected_by_one_answer(facts: Facts) -> Iterable[Finding]:
    """One slow answer takes an engine out (max_fails 1 and fail_timeout 10 s are the defaults).

    Consequence: A timeout counts as a failure: one slow answer on each engine takes all healthy engines out, and every
    request gets 502 for 10.9 s; one lost connection takes an engine out for 10 s.

    Evidence: nginx 1.31.3; nginx's documentation of the upstream module.

    Fix: max_fails=3 fail_timeout=5s on each server (or max_fails=0), and a read timeout longer than an answer (NG001).

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      upstream vllm {
        server vllm-0:8000 max_fails=3 fail_timeout=5s;
        server vllm-1:8000 max_fails=3 fail_timeout=5s;
      }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```
    """
    for route, upstream in _upstreams(facts):
        weak = [server for server in _serving(upstream) if (server.param("max_fails") or "1") == "1"]
        if weak and cuts_answers(facts, route):
            edits = tuple(edit for server in weak for edit in _with_params(server, max_fails="3", fail_timeout="5s"))
            yield found(
                weak[0].directive,
                f"one slow answer takes an engine of upstream {upstream.name} out for 10 s",
                edits=edits,
            )


def _with_params(server: Server, **wanted: str) -> Edits:
    kept = [text for text in server.params if text.partition("=")[0] not in wanted]
    words = [server.directive.arg, *kept, *(f"{name}={value}" for name, value in wanted.items())]
    return replace_directive(server.directive, f"server {' '.join(words)};")


@rule("NG008", ERROR)
def ejected_for_hours(facts: Facts) -> Iterable[Finding]:
    """fail_timeout is longer than a minute, as in vLLM's own nginx page (10000s).

    Consequence: After the allowed failures an engine gets nothing for that long: 2 h 47 min for 10000s; users report
    most requests on one server.

    Evidence: nginx 1.31.3: 0 of 50 requests in the 25 s watched;
    https://docs.vllm.ai/en/stable/deployment/nginx.html, https://github.com/nginx/nginx/issues/524,
    https://github.com/huggingface/inference-benchmarker/issues/14.

    Fix: fail_timeout=5s to 10s.

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000 max_fails=3 fail_timeout=10000s; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; proxy_read_timeout 1800s; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000 max_fails=3 fail_timeout=10s; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; proxy_read_timeout 1800s; } }
    }
    ```
    """
    for _, upstream in _upstreams(facts):
        for server in upstream.servers:
            seconds = nginx_seconds(server.param("fail_timeout") or "10s")
            if seconds is not None and seconds > 60 and server.param("max_fails") != "0":
                yield found(
                    server.directive,
                    f"an engine that failed gets nothing for {_spoken(seconds)}",
                    edits=_with_params(server, fail_timeout="5s"),
                )


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{seconds:g} s"


_RETRY = "proxy_next_upstream error timeout http_503 non_idempotent;"
_RETRY_LIMITS = ("proxy_next_upstream_tries 2;", "proxy_next_upstream_timeout 5s;")


def _retries(route: Route) -> tuple[str, ...]:
    found_ = route.location.find("proxy_next_upstream")
    return found_.args if found_ is not None else ("error", "timeout")


@rule("NG009", INFO)
def no_retry_of_posts(facts: Facts) -> Iterable[Finding]:
    """A POST that failed after it was sent is not tried on another engine.

    Consequence: nginx retries a refused connection; an engine that dies before its first byte, or answers 503, is
    passed on to the client as 502 or 503.

    Evidence: nginx 1.31.3.

    Fix: proxy_next_upstream error timeout http_503 non_idempotent, limited to 2 tries and 5 s; or let clients retry.

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ {
        proxy_pass http://vllm; proxy_next_upstream error timeout http_503 non_idempotent;
        proxy_next_upstream_tries 2; proxy_next_upstream_timeout 5s;
      } }
    }
    ```
    """
    for route, _ in _upstreams(facts):
        words = _retries(route)
        if "non_idempotent" not in words and "off" not in words:
            block = route.location.directive
            edits = put_in_block(block, "proxy_next_upstream", _RETRY)
            missing = tuple(line for line in _RETRY_LIMITS if block.child(line.split()[0]) is None)
            if block.child("proxy_next_upstream") is None:
                edits = add_directives(block, (_RETRY, *missing))
            yield found(
                route.location.proxy_pass, "a POST that an engine dropped is not tried on the other", edits=edits
            )


@rule("NG010", WARNING)
def late_retries(facts: Facts) -> Iterable[Finding]:
    """non_idempotent retries without proxy_next_upstream_timeout.

    Consequence: An answer that fails after minutes is generated once more elsewhere.

    Evidence: nginx 1.31.3: with 2 s a late failure gives 502, an early one is tried again.

    Fix: proxy_next_upstream_tries 2; proxy_next_upstream_timeout 5s.

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; proxy_next_upstream error timeout non_idempotent; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; proxy_next_upstream error timeout non_idempotent;
        proxy_next_upstream_timeout 5s; } }
    }
    ```
    """
    for route, _ in _upstreams(facts):
        limit = route.location.value("proxy_next_upstream_timeout", "0")
        if "non_idempotent" in _retries(route) and nginx_seconds(limit) == 0:
            block = route.location.directive
            lines = tuple(line for line in _RETRY_LIMITS if block.child(line.split()[0]) is None)
            place = route.location.find("proxy_next_upstream") or route.location.proxy_pass
            yield found(
                place,
                "an answer that fails late is generated again on another engine",
                edits=add_directives(block, lines),
            )


@rule("NG011", INFO)
def refusals_passed_on(facts: Facts) -> Iterable[Finding]:
    """The engine refuses with 503 when it is full, and nginx does not try another engine.

    Consequence: Clients get the 503 while another engine is free.

    Evidence: nginx 1.31.3; --max-num-queued-reqs in the help of 0.32.0.

    Fix: proxy_next_upstream error timeout http_503 non_idempotent.

    Fails:
    ```compose.yaml
    services:
      vllm-0: &vllm
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-queued-reqs, "64"]
      vllm-1: *vllm
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0: &vllm
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-queued-reqs, "64"]
      vllm-1: *vllm
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; proxy_next_upstream error timeout http_503 non_idempotent;
        proxy_next_upstream_timeout 5s; } }
    }
    ```
    """
    for route, _ in _upstreams(facts):
        refusing = [
            s for s in route.engines if s.vllm and s.vllm.has("--max-num-queued-reqs", "--max-num-queued-tokens")
        ]
        if refusing and not {"http_503", "non_idempotent"} <= set(_retries(route)):
            place = route.location.find("proxy_next_upstream") or route.location.proxy_pass
            yield found(
                place,
                f"the 503 of a full {refusing[0].name} goes to the client",
                edits=put_in_block(route.location.directive, "proxy_next_upstream", _RETRY),
            )


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


@rule("NG012", WARNING)
def few_connections(facts: Facts) -> Iterable[Finding]:
    """worker_connections is too small for the streams.

    Consequence: Every stream takes two connections of its worker: with 1024 and one worker 479 of 700 streams were
    served and 221 reset; the log says `reusing connections`, not an error.

    Evidence: nginx 1.31.3.

    Fix: worker_connections 8192 to 16384.

    Fails:
    ```nginx.conf
    worker_processes 1;
    events { worker_connections 1024; }
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    ```options
    users: 700
    ```

    Passes:
    ```nginx.conf
    worker_processes 1;
    events { worker_connections 16384; }
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    ```options
    users: 700
    ```
    """
    for route in _one_each(facts.answering):
        count, place = route.config.worker_connections
        workers = _workers(route.config)
        streams = _streams(facts, route)
        if streams is None or workers * count >= 2.4 * streams:
            continue
        yield found(
            place or route.location.proxy_pass,
            f"{workers} x {count} connections carry {workers * count // 2} streams; there may be {streams}",
            edits=replace_directive(place, "worker_connections 16384;") if place is not None else (),
        )


def _one_each(routes: Iterable[Route]) -> Iterator[Route]:
    """One route of each nginx."""
    yield from {id(route.config): route for route in reversed(tuple(routes))}.values()


def _workers(config: NginxConfig) -> int:
    found_ = config.main("worker_processes")
    if found_ is None:
        return 2 if config.fragment else 1
    return int(found_.arg) if found_.arg.isdecimal() else 2  # auto: two at the least on any box with GPUs


@rule("NG013", INFO)
def one_worker(facts: Facts) -> Iterable[Finding]:
    """worker_processes is missing in an nginx.conf that takes the place of the image's.

    Consequence: One worker; a site with 64 replicas met its limit. Below about 10 k tokens/s one was enough here.

    Evidence: https://github.com/igeniusai/domyn-swarm/pull/162; measured: one worker carried 28 k chunks/s.

    Fix: worker_processes auto, with a zone in the upstream (NG015).

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```nginx.conf
    worker_processes auto;
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    """
    for route in _one_each(facts.answering):
        config = route.config
        if not config.fragment and config.main("worker_processes") is None and config.http is not None:
            place = config.main("events") or config.http
            yield found(place, "nginx runs with one worker", edits=at_the_head(config, "worker_processes auto;"))


def at_the_head(config: NginxConfig, text: str) -> Edits:
    """A directive before the first one of the main file."""
    source = config.source
    first = next((line for line in config.directives if line.source.path == source.path), None)
    if first is None or not source.fixable:
        return ()
    start = source.start(first.line)
    return (Edit(file=source.path, start=start, end=start, text=f"{text}\n"),)


@rule("NG014", INFO)
def few_files(facts: Facts) -> Iterable[Finding]:
    """worker_rlimit_nofile is below twice the connections.

    Consequence: accept and connect fail with `too many open files`.

    Evidence: gixy-ng, worker_rlimit_nofile_vs_connections.

    Fix: worker_rlimit_nofile 65536.

    Fails:
    ```nginx.conf
    worker_rlimit_nofile 8192;
    events { worker_connections 8192; }
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```nginx.conf
    worker_rlimit_nofile 65536;
    events { worker_connections 8192; }
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    """
    for route in _one_each(facts.answering):
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


_BALANCERS = ("least_conn", "random", "hash", "ip_hash", "least_time", "sticky", "fair")


@rule("NG015", WARNING)
def counters_apart(facts: Facts) -> Iterable[Finding]:
    """least_conn, max_conns or max_fails with several workers and no `zone`.

    Consequence: Each worker counts for itself: 8 long requests on an idle pair were split 7-1, 6-2, 5-3; with a zone
    4-4.

    Evidence: nginx 1.31.3; nginx's documentation of the upstream module;
    https://github.com/igeniusai/domyn-swarm/pull/162.

    Fix: zone NAME 256k in the upstream.

    Fails:
    ```nginx.conf
    worker_processes auto;
    events {}
    http {
      upstream vllm { least_conn; server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    worker_processes auto;
    events {}
    http {
      upstream vllm { zone vllm 256k; least_conn; server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```
    """
    for route, upstream in _upstreams(facts):
        counted = [name for name in ("least_conn", "random", "least_time") if upstream.has(name)]
        counted += [name for name in ("max_conns", "max_fails") if any(s.param(name) for s in upstream.servers)]
        if counted and route.config.several_workers and not upstream.has("zone"):
            yield found(upstream.directive, f"{counted[0]} counts in each worker for itself", edits=_zone(upstream))


def _zone(upstream: Upstream) -> Edits:
    return add_directives(upstream.directive, (f"zone {upstream.name} 256k;",), first=True)


@rule("NG016", WARNING)
def round_robin(facts: Facts) -> Iterable[Finding]:
    """Round robin before engines whose answers differ in length.

    Consequence: Requests pile up behind long answers: at 90 % load the p99 time to first token was 2.6 times (2
    engines) to 10 times (4) that of least_conn in simulation; no difference at 70 %.

    Evidence: simulation of decode steps with 32 slots an engine; arXiv 2408.13510 (11.4 % lower latency than round
    robin).

    Fix: least_conn with a zone; a session- or prefix-aware router when prompts share long beginnings.

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      upstream vllm { zone vllm 256k; least_conn; server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```
    """
    for _, upstream in _upstreams(facts):
        weighted = any(server.param("weight") for server in upstream.servers)
        spare = any("backup" in server.params for server in upstream.servers)
        if any(upstream.has(name) for name in _BALANCERS) or weighted or spare:
            continue
        if not made_by_atoll(facts, upstream.directive):
            yield found(
                upstream.directive,
                f"upstream {upstream.name} deals requests out in turn, however long they run",
                edits=add_directives(upstream.directive, ("least_conn;",), first=True),
            )


@rule("NG017", WARNING)
def by_address(facts: Facts) -> Iterable[Finding]:
    """Requests are spread by the client's address.

    Consequence: Behind one gateway or backend every request has the same address: all go to one engine (10 of 10).

    Evidence: nginx 1.31.3.

    Fix: least_conn, or a hash on a session's header.

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { ip_hash; server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      upstream vllm { hash $http_x_session_id consistent; server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```
    """
    for _, upstream in _upstreams(facts):
        for line in (upstream.directive.child("ip_hash"), upstream.directive.child("hash")):
            if line is not None and (line.name == "ip_hash" or re.fullmatch(r"\$(binary_)?remote_addr", line.arg)):
                yield found(
                    line,
                    "clients behind one address all land on one engine",
                    edits=replace_directive(line, "least_conn;"),
                )


@rule("NG020", ERROR)
def resolved_once(facts: Facts) -> Iterable[Finding]:
    """Names of containers are looked up once, when nginx starts.

    Consequence: After an engine's container is made anew with another address, every request to it gets 502 until nginx
    is reloaded.

    Evidence: seen with Docker: 502 four times, 200 after a reload, 200 with `resolve`.

    Fix: resolver 127.0.0.11 valid=5s; zone NAME 256k; `server NAME:PORT resolve` (free since nginx 1.27.3).

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      resolver 127.0.0.11 valid=5s;
      upstream vllm { zone vllm 256k; server vllm-0:8000 resolve; server vllm-1:8000 resolve; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```
    """
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
                edits=_resolving(route, upstream, fixed),
            )
    for route in facts.answering:
        scheme, host, port, uri = route.location.target
        if route.location.upstream is None and not host.startswith("$") and _is_container(facts, route, host):
            yield found(
                route.location.proxy_pass,
                f"the address of {host} is looked up once, when nginx starts",
                fix=f"resolver 127.0.0.11 valid=5s; set $engine {scheme}://{host}:{port or 80};"
                " proxy_pass $engine; (a variable is looked up again)",
                edits=_by_variable(route) if not uri else (),
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
    edits = tuple(edit for server in servers for edit in add_parameter(server.directive, "resolve"))
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
    changed = replace_directive(route.location.proxy_pass, text)
    if route.location.find("resolver") is not None or not changed:
        return changed
    return (
        *changed,
        *add_directives(route.location.directive, ("resolver 127.0.0.11 valid=5s ipv6=off;",), first=True),
    )


@rule("NG021", ERROR)
def unknown_host(facts: Facts) -> Iterable[Finding]:
    """Nginx passes requests to a name that no service of its networks has.

    Consequence: nginx stops at start with `host not found in upstream`.

    Evidence: seen with Docker; with `resolve` it starts and answers 502.

    Fix: The name of the service, and one network for both.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct}
      nginx: {image: "nginx:1.31.3", volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
    ```
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm-0:8000; } } }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct}
      nginx: {image: "nginx:1.31.3", volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
    ```
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    """
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


@rule("NG027", WARNING)
def refused_at_once(facts: Facts) -> Iterable[Finding]:
    """max_conns without a queue.

    Consequence: What exceeds it gets 502 at once; the `queue` directive is commercial.

    Evidence: nginx 1.31.3: 4 x 200, 4 x 502.

    Fix: Limit at vLLM (--max-num-queued-reqs) and retry on 503 (NG011).

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { zone vllm 256k; server vllm-0:8000 max_conns=32; server vllm-1:8000 max_conns=32; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      upstream vllm { zone vllm 256k; server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```
    """
    for route in facts.upstream_routes:
        upstream = route.location.upstream
        assert upstream is not None
        limited = [server for server in upstream.servers if server.param("max_conns") not in {None, "0"}]
        if limited and not upstream.has("queue"):
            server = limited[0]
            words = [text for text in server.params if not text.startswith("max_conns=")]
            text = " ".join(["server", server.directive.arg, *words]) + ";"
            yield found(
                server.directive,
                f"the request after {server.param('max_conns')} others gets 502 at once",
                edits=replace_directive(server.directive, text),
            )


@rule("NG028", WARNING)
def cut_by_reload(facts: Facts) -> Iterable[Finding]:
    """worker_shutdown_timeout is shorter than an answer.

    Consequence: A reload cuts running streams; without the directive it lets them end.

    Evidence: nginx 1.31.3.

    Fix: At least the longest answer, or none.

    Fails:
    ```nginx.conf
    worker_shutdown_timeout 10s;
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```nginx.conf
    worker_shutdown_timeout 30m;
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    """
    for route in _one_each(facts.answering):
        longest = facts.load_at(route.config.source.path).answer_s or 150.0
        place = route.config.main("worker_shutdown_timeout")
        seconds = nginx_seconds(place.arg) if place is not None else None
        if place is not None and seconds is not None and seconds < longest:
            yield found(
                place, f"a reload cuts answers that run for more than {seconds:g} s", edits=remove_directive(place)
            )


@rule("NG030", INFO)
def blind_log(facts: Facts) -> Iterable[Finding]:
    """The access log does not say which engine answered, and how fast.

    Consequence: An uneven spread or one slow engine stays invisible.

    Evidence: the formats `combined` and the image's `main` hold neither.

    Fix: A log_format with $upstream_addr, $upstream_status and $upstream_header_time.

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      log_format llm '$status $upstream_addr $upstream_header_time $request_time';
      access_log /dev/stdout llm;
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```
    """
    for route, _ in _upstreams(facts):
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


@rule("NG031", ERROR)
def wrong_port(facts: Facts) -> Iterable[Finding]:
    """Nginx asks a port on which the engine does not listen.

    Consequence: 502 for every request.

    Evidence: the compose file and nginx's, held together; a refused upstream gives 502.

    Fix: The port inside the network (vLLM's --port, 8000), not the published one.

    Fails:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct, ports: ["127.0.0.1:8001:8000"]}
      nginx: {image: "nginx:1.31.3", volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
    ```
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm-0:8001; } } }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct, ports: ["127.0.0.1:8001:8000"]}
      nginx: {image: "nginx:1.31.3", volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
    ```
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm-0:8000; } } }
    ```
    """
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


@rule("NG032", WARNING)
def open_door(facts: Facts) -> Iterable[Finding]:
    """Nginx is reachable from everywhere, without TLS and without a key.

    Consequence: Whoever reaches the port uses the GPUs.

    Evidence: https://docs.vllm.ai/en/stable/usage/security/.

    Fix: TLS and a key check (auth_request, or VLLM_API_KEY at the engines), or publish on 127.0.0.1.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct}
      nginx: {image: "nginx:1.31.3", ports: ["80:80"], volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
    ```
    ```nginx.conf
    events {}
    http { server { listen 80; location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct}
      nginx: {image: "nginx:1.31.3", ports: ["127.0.0.1:80:80"], volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
    ```
    ```nginx.conf
    events {}
    http { server { listen 80; location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    """
    for route in _one_each(facts.answering):
        if _is_reachable(route) and not _asks_for_a_key(route):
            listen = next(iter(_listens(route)), None)
            yield found(listen or route.location.directive, "anyone who reaches nginx uses the GPUs: no TLS, no key")


def _listens(route: Route) -> tuple[Directive, ...]:
    server = next((block for block in reversed(route.location.around) if block.name == "server"), None)
    return server.children("listen") if server is not None else ()


def _is_reachable(route: Route) -> bool:
    doors = [line.args for line in _listens(route) if line.args] or [("80",)]
    doors = [words for words in doors if "ssl" not in words and not words[0].startswith(_FOR_THIS_MACHINE)]
    service = route.config.service
    if service is None:  # behind another port there may be something that guards it
        return any(words[0] in {"80", "0.0.0.0:80", "*:80", "[::]:80"} for words in doors)
    return bool(doors) and (service.host_network or any(port.open_to_all for port in service.ports))


_FOR_THIS_MACHINE = ("127.", "localhost", "unix:", "[::1]")


def _asks_for_a_key(route: Route) -> bool:
    blocks = (route.location.directive, *route.location.around)
    guards = ("auth_basic", "auth_request", "auth_jwt", "allow", "deny", "if")
    if any(block.child(name) is not None for block in blocks for name in guards):
        return True
    return any(
        "VLLM_API_KEY" in service.environment or (service.vllm is not None and service.vllm.has("--api-key"))
        for service in route.services
    )


RULES = (
    no_keepalive,
    stale_connections,
    ejected_by_one_answer,
    ejected_for_hours,
    no_retry_of_posts,
    late_retries,
    refusals_passed_on,
    few_connections,
    one_worker,
    few_files,
    counters_apart,
    round_robin,
    by_address,
    resolved_once,
    unknown_host,
    refused_at_once,
    cut_by_reload,
    blind_log,
    wrong_port,
    open_door,
)
