"""nginx, where it passes requests on to a language model."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.checks.timeouts import cuts_answers, needed_wait_s, read_timeout
from atoll.doctor.edits import (
    Edits,
    add_directives,
    opening_brace,
    put_in_block,
    remove_directive,
    replace_directive,
)
from atoll.doctor.facts import Facts, Route
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.nginx import nginx_bytes, nginx_seconds
from atoll.doctor.rule import ERROR, INFO, WARNING, rule


def _set(route: Route, name: str, text: str) -> Edits:
    """Set a directive in the location itself."""
    return put_in_block(route.location.directive, name, text)


def http_version(route: Route) -> str:
    """The HTTP version towards the engine: 1.0 unless said otherwise before nginx 1.29.7."""
    return route.location.value("proxy_http_version", "1.1" if route.config.modern else "1.0")


def _buffers(route: Route) -> bool:
    return route.location.value("proxy_buffering", "on") != "off"


@rule("NG001", ERROR)
def short_read_timeout(facts: Facts) -> Iterable[Finding]:
    """Nginx waits less long than an answer may take (60 s unless told otherwise).

    Consequence: An answer that is not streamed gets a 504 at that second, vLLM aborts it, and the work is lost; a
    stream that is silent for so long, in the queue or in a long prefill, is cut.

    Evidence: nginx 1.31.3: an answer of 65 s gave 504 at 60.06 s; https://github.com/BerriAI/litellm/issues/9551,
    https://github.com/basetenlabs/truss/pull/670, https://github.com/singnet/Omega/pull/351.

    Fix: proxy_read_timeout 1800s, longer than queue plus longest answer.

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; proxy_read_timeout 1800s; } } }
    ```
    """
    for route in facts.answering:
        if cuts_answers(facts, route):
            timeout, place = read_timeout(route), route.location.find("proxy_read_timeout")
            said = "" if place is not None else ", the default"
            wait = needed_wait_s(facts, route.config.source.path)
            yield found(
                place or route.location.proxy_pass,
                f"nginx cuts an answer after {timeout:g} s of silence{said}; it may take {wait:g} s",
                edits=_set(route, "proxy_read_timeout", "proxy_read_timeout 1800s;"),
            )


@rule("NG002", ERROR)
def lumps(facts: Facts) -> Iterable[Finding]:
    """HTTP/1.0 towards the engine with buffering on.

    Consequence: Streamed tokens arrive in lumps of 4 KiB: the first byte after 1.26 s in place of 1 ms at 20 tokens/s;
    +480 ms TTFT p50 with 30 streams, +970 ms with 256.

    Evidence: measured with nginx 1.22.1 and 1.31.3 (HTTP/1.1 with buffering on does not delay); the default until
    1.29.7 is HTTP/1.0; https://github.com/BerriAI/litellm/issues/6458.

    Fix: proxy_http_version 1.1; proxy_buffering off.

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; proxy_http_version 1.0; } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; proxy_http_version 1.1; proxy_buffering off; } } }
    ```
    """
    for route in facts.answering:
        if http_version(route) == "1.0" and _buffers(route):
            yield found(
                route.location.find("proxy_http_version") or route.location.proxy_pass,
                f"streams go through HTTP/1.0 and a buffer{_by_default(route)}",
                edits=(
                    *_set(route, "proxy_buffering", "proxy_buffering off;"),
                    *(_http_1_1(route) if route.location.directive.child("proxy_http_version") else ()),
                ),
            )


def _by_default(route: Route) -> str:
    if route.location.find("proxy_http_version") is not None:
        return ""
    version = route.config.version
    return f", the default of nginx {'.'.join(map(str, version))}" if version else ", the default before nginx 1.29.7"


def _http_1_1(route: Route) -> Edits:
    return _set(route, "proxy_http_version", "proxy_http_version 1.1;")


@rule("NG003", ERROR)
def unframed(facts: Facts) -> Iterable[Finding]:
    """HTTP/1.0 towards the engine has no framing.

    Consequence: A vLLM that dies in mid-answer looks like a normal end: the client gets a complete 200 with half the
    text. With HTTP/1.1 it gets an error.

    Evidence: nginx 1.22.1 (no error) against 1.31.3 (IncompleteRead).

    Fix: proxy_http_version 1.1.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct}
      nginx: {image: "nginx:1.28", volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
    ```
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes: since 1.29.7 HTTP/1.1 is the default
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
    for route in facts.answering:
        if http_version(route) == "1.0":
            yield found(
                route.location.find("proxy_http_version") or route.location.proxy_pass,
                f"the engine is spoken to in HTTP/1.0{_by_default(route)}: half an answer looks whole",
                edits=_http_1_1(route),
            )


@rule("NG004", ERROR)
def gzipped_stream(facts: Facts) -> Iterable[Finding]:
    """Compression (gzip) covers text/event-stream while buffering is on.

    Consequence: The whole answer arrives at its end.

    Evidence: nginx 1.22.1 and 1.31.3: one read at 2.02 s; harmless with buffering off, where each chunk is flushed.

    Fix: gzip off in the location, or proxy_buffering off.

    Fails:
    ```nginx.conf
    events {}
    http { gzip on; gzip_types text/event-stream; server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { gzip on; gzip_types text/event-stream;
      server { location /v1/ { proxy_pass http://vllm:8000; proxy_buffering off; } } }
    ```
    """
    for route in facts.answering:
        types = route.location.find("gzip_types")
        covered = types is not None and bool({"text/event-stream", "*"} & set(types.args))
        if types is not None and covered and route.location.value("gzip", "off") == "on" and _buffers(route):
            yield found(
                types, "gzip holds a streamed answer back until its end", edits=_set(route, "gzip", "gzip off;")
            )


@rule("NG018", ERROR)
def small_body(facts: Facts) -> Iterable[Finding]:
    """Requests of more than 1 MiB are refused (the default).

    Consequence: An image or a very long prompt gets 413.

    Evidence: nginx 1.31.3.

    Fix: client_max_body_size 64m.

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { client_max_body_size 64m; server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    """
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
                edits=_set(route, "client_max_body_size", "client_max_body_size 64m;"),
            )


@rule("NG019", INFO)
def body_on_disk(facts: Facts) -> Iterable[Finding]:
    """client_body_buffer_size is small (8 or 16 KiB by default).

    Consequence: Every longer prompt is written to a temporary file before it is passed on.

    Evidence: nginx 1.31.3.

    Fix: client_body_buffer_size 1m.

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { client_body_buffer_size 1m; server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    """
    for route in facts.answering:
        size = nginx_bytes(route.location.value("client_body_buffer_size", "16k"))
        if size is not None and size < 2**16:
            yield found(
                route.location.find("client_body_buffer_size") or route.location.proxy_pass,
                f"prompts of more than {size // 1024} KiB go through a temporary file",
                edits=_set(route, "client_body_buffer_size", "client_body_buffer_size 1m;"),
            )


@rule("NG022", ERROR)
def mangled_path(facts: Facts) -> Iterable[Finding]:
    """proxy_pass has a path of its own that mangles /v1/...

    Consequence: /v1/chat/completions reaches the engine as /chat/completions or //chat/completions: 404.

    Evidence: nginx 1.31.3.

    Fix: No path (and no closing slash) after the upstream's name.

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000/; } } }
    ```

    Passes: a prefix of one's own is taken off
    ```nginx.conf
    events {}
    http { server { location /llm/ { proxy_pass http://vllm:8000/; } } }
    ```
    """
    for route in facts.routes:
        path, (_, _, _, uri) = route.location.path, route.location.target
        if not uri or "$" in uri or not path.startswith("/") or route.location.modifier not in {"", "^~"}:
            continue
        if any(block.child("rewrite") for block in (route.location.directive, *route.location.around)):
            continue
        asked = "/v1/chat/completions" if "/v1/".startswith(path) or path.startswith("/v1") else ""
        asked = asked or path.rstrip("/") + "/v1/chat/completions"
        reached = uri + asked[len(path) :]
        if not asked.startswith(path) or (reached.endswith("/v1/chat/completions") and "//" not in reached):
            continue
        bare = re.sub(r"^(https?://[^/]+)/.*$", r"\1", route.location.proxy_pass.arg)
        edits = replace_directive(route.location.proxy_pass, f"proxy_pass {bare};") if path.startswith("/v1") else ()
        yield found(route.location.proxy_pass, f"{asked} reaches the engine as {reached}", edits=edits)


_OPEN = "/metrics, /tokenize, /pause, /sleep, /invocations and the loading of adapters"


@rule("NG023", WARNING)
def everything_open(facts: Facts) -> Iterable[Finding]:
    """`location /` leads to vLLM.

    Consequence: Clients reach /metrics, /tokenize, /invocations, /pause, /sleep and LoRA loading, not only /v1.

    Evidence: the route list of 0.32.0; https://docs.vllm.ai/en/stable/usage/security/; CVE-2026-114053 (/tokenize).

    Fix: location /v1/ for the API with `rewrite ^ $uri break;` (NG035), and `location / { return 404; }`.

    Fails:
    ```nginx.conf
    events {}
    http { server { location / { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { server {
      location /v1/ { rewrite ^ $uri break; proxy_pass http://vllm:8000; }
      location / { return 404; }
    } }
    ```
    """
    for route in facts.routes:
        if route.to_vllm and _passes_all(route):
            yield found(route.location.directive, f"clients reach {_OPEN}", edits=_only_v1(route))


def _passes_all(route: Route) -> bool:
    """Whether every path of the engine can be asked for: `/`, a pattern of anything, or a prefix that is taken off."""
    location, uri = route.location, route.location.target[3]
    if location.modifier in {"~", "~*"}:
        return re.fullmatch(r"\^?/?(\.\*|\(\.\*\))?\$?", location.path) is not None
    if location.modifier not in {"", "^~"} or not location.path.startswith("/"):
        return False
    return uri == "/" and not location.path.startswith("/v1") if location.path != "/" else not uri.strip("/")


def _only_v1(route: Route) -> Edits:
    """`location / {` becomes a refusal and `location /v1/ {`."""
    block = route.location.directive
    brace = opening_brace(block)
    if brace is None or block.args != ("/",) or _has_v1(route):
        return ()
    text = block.source.text
    start = text.rfind(block.name, 0, brace)
    indent = text[text.rfind("\n", 0, start) + 1 : start]
    gap = "\n" + indent if not indent.strip() else " "
    written = f"location / {{ return 404; }}{gap}location /v1/ {{ rewrite ^ $uri break;"
    return (Edit(file=block.file, start=start, end=brace + 1, text=written),)


def _has_v1(route: Route) -> bool:
    server = route.location.around[-1] if route.location.around else None
    return server is not None and any(place.args[-1:] == ("/v1/",) for place in server.children("location"))


@rule("NG024", INFO)
def open_prefix(facts: Facts) -> Iterable[Finding]:
    """`location /v1` without the closing slash.

    Consequence: /v1anything is passed on too.

    Evidence: nginx 1.31.3.

    Fix: location /v1/.

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1 { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    """
    for route in facts.routes:
        location = route.location
        if location.path == "/v1" and location.modifier in {"", "^~"} and not location.target[3]:
            brace = opening_brace(location.directive)
            edits: Edits = ()
            if brace is not None:
                start = location.directive.source.text.rfind("/v1", 0, brace)
                edits = (Edit(file=location.directive.file, start=start, end=start + 3, text="/v1/"),)
            yield found(location.directive, "/v1anything goes to the engine too", edits=edits)


@rule("NG025", WARNING)
def work_for_nobody(facts: Facts) -> Iterable[Finding]:
    """proxy_ignore_client_abort is on.

    Consequence: A client that leaves keeps the GPU busy for the rest of an answer that is not streamed.

    Evidence: nginx 1.31.3; with the default (off) vLLM aborts within 1 s.

    Fix: Take the directive out.

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; proxy_ignore_client_abort on; } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```
    """
    for route in facts.answering:
        place = route.location.find("proxy_ignore_client_abort")
        if place is not None and place.arg == "on":
            yield found(place, "an answer goes on when its client has left", edits=remove_directive(place))


@rule("NG026", WARNING)
def hidden_headers(facts: Facts) -> Iterable[Finding]:
    """proxy_set_header in the location hides those set further out.

    Consequence: nginx inherits these lines only where there is none: a `Connection ""` set higher up is lost, so
    keepalive to the engines is off.

    Evidence: nginx 1.22.1: 20 connections for 20 requests.

    Fix: Repeat all of them in the location.

    Fails:
    ```nginx.conf
    events {}
    http {
      proxy_set_header Connection "";
      server { location /v1/ { proxy_pass http://vllm:8000; proxy_set_header Host $host; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      server { location /v1/ {
        proxy_pass http://vllm:8000; proxy_set_header Host $host; proxy_set_header Connection "";
      } }
    }
    ```
    """
    for route in facts.answering:
        own = {line.arg.lower() for line in route.location.directive.children("proxy_set_header")}
        if not own:
            continue
        outer = [line for block in route.location.around for line in block.children("proxy_set_header")]
        lost = [line for line in outer if line.arg.lower() not in own and len(line.args) > 1]
        if lost:
            lines = [f"proxy_set_header {line.arg} {_quoted(line.args[1])};" for line in lost]
            names = ", ".join(line.arg for line in lost)
            place = route.location.directive.children("proxy_set_header")[0]
            edits = add_directives(route.location.directive, lines)
            yield found(place, f"{names}, set further out, does not reach the engine from here", edits=edits)


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w$./:-]+", value) else f'"{value}"'


@rule("NG029", WARNING)
def slow_connect(facts: Facts) -> Iterable[Finding]:
    """proxy_connect_timeout is long (60 s by default) before several engines.

    Consequence: A host that drops packets holds each request for that long before the next engine is tried.

    Evidence: nginx's documentation of proxy_connect_timeout and proxy_next_upstream.

    Fix: proxy_connect_timeout 2s.

    Fails:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server 10.0.0.1:8000; server 10.0.0.2:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```nginx.conf
    events {}
    http {
      upstream vllm { server 10.0.0.1:8000; server 10.0.0.2:8000; }
      server { location /v1/ { proxy_pass http://vllm; proxy_connect_timeout 2s; } }
    }
    ```
    """
    for route in facts.answering:
        seconds = nginx_seconds(route.location.value("proxy_connect_timeout", "60s"))
        if len(route.location.hosts) > 1 and seconds is not None and seconds > 5:
            place = route.location.find("proxy_connect_timeout")
            yield found(
                place or route.location.proxy_pass,
                f"an engine that does not answer holds a request for {seconds:g} s{'' if place else ', the default'}",
                edits=_set(route, "proxy_connect_timeout", "proxy_connect_timeout 2s;"),
            )


@rule("NG033", INFO)
def expected_header(facts: Facts) -> Iterable[Finding]:
    """The header X-Accel-Buffering is expected to switch buffering off.

    Consequence: nginx obeys this header only in the engine's answer, and vLLM 0.32 does not send it: nginx's own
    setting counts.

    Evidence: vLLM 0.32.0's sources.

    Fix: proxy_buffering off.

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; add_header X-Accel-Buffering no; } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; proxy_buffering off; } } }
    ```
    """
    for route in facts.answering:
        if not _buffers(route):
            continue
        for name in ("add_header", "proxy_set_header", "proxy_pass_header"):
            for block in (route.location.directive, *route.location.around):
                for line in block.children(name):
                    if line.arg.lower() == "x-accel-buffering":
                        edits = _set(route, "proxy_buffering", "proxy_buffering off;")
                        yield found(line, "this header does nothing here; buffering stays on", edits=edits)


@rule("NG034", INFO)
def unbuffered_retries(facts: Facts) -> Iterable[Finding]:
    """proxy_request_buffering is off together with retries.

    Consequence: A request whose body has been passed on already cannot go to the next engine.

    Evidence: nginx's documentation of proxy_request_buffering.

    Fix: Leave request buffering on.

    Fails:
    ```nginx.conf
    events {}
    http { server { location /v1/ {
      proxy_pass http://vllm:8000; proxy_request_buffering off; proxy_next_upstream error timeout non_idempotent;
    } } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { server { location /v1/ {
      proxy_pass http://vllm:8000; proxy_next_upstream error timeout non_idempotent;
    } } }
    ```
    """
    for route in facts.answering:
        place = route.location.find("proxy_request_buffering")
        retries = route.location.find("proxy_next_upstream")
        if place is not None and place.arg == "off" and retries is not None and "non_idempotent" in retries.args:
            yield found(
                place,
                "a request that was passed on at once cannot be tried again elsewhere",
                edits=remove_directive(place),
            )


@rule("NG035", INFO)
def spelled_paths(facts: Facts) -> Iterable[Finding]:
    """Nginx matches the path with its dots and escapes resolved, and passes it on as it was spelled.

    Consequence: A location for /v1/ alone lets `/metrics/..%2fv1/x` through: it is matched as /v1/x, and vLLM, which
    mounts /metrics with all below it, answers with its metrics.

    Evidence: tried with nginx before a stand-in for vLLM, which got `/metrics/..%2fv1/x` as it was spelled;
    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_pass
    (without a URI the request is passed on as the client sent it).

    Fix: rewrite ^ $uri break; in the location, so that what was matched is passed on.

    Fails:
    ```nginx.conf
    events {}
    http { server {
      location /v1/ { proxy_pass http://vllm:8000; }
      location / { return 404; }
    } }
    ```

    Passes:
    ```nginx.conf
    events {}
    http { server {
      location /v1/ { rewrite ^ $uri break; proxy_pass http://vllm:8000; }
      location / { return 404; }
    } }
    ```
    """
    for route in facts.routes:
        if route.to_vllm and _is_narrow(route) and not _passes_matched(route):
            yield found(
                route.location.proxy_pass,
                "/metrics/..%2fv1/x is matched here and reaches vLLM as it is spelled",
                edits=add_directives(route.location.directive, ("rewrite ^ $uri break;",)),
            )


def _is_narrow(route: Route) -> bool:
    """Whether the location lets only some paths through, and more than the one that is written."""
    return route.location.path.startswith(("/v1", "^/v1")) and route.location.modifier != "="


def _passes_matched(route: Route) -> bool:
    """A URI after the host replaces what was matched; `rewrite` and variables write the path anew."""
    uri = route.location.target[3]
    return bool(uri) or any(
        block.child("rewrite") is not None for block in (route.location.directive, *route.location.around)
    )


RULES = (
    short_read_timeout,
    lumps,
    unframed,
    gzipped_stream,
    small_body,
    body_on_disk,
    mangled_path,
    everything_open,
    open_prefix,
    work_for_nobody,
    hidden_headers,
    slow_connect,
    expected_header,
    unbuffered_retries,
    spelled_paths,
)
