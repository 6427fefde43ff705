"""What nginx does when an engine fails or refuses."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.checks.routes import balanced_upstreams, serving_servers
from atoll.doctor.checks.timeouts import cuts_answers
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts, Route
from atoll.doctor.finding import Finding
from atoll.doctor.nginx_config import Server
from atoll.doctor.nginx_edits import add_directives, put_in_block, replace_directive
from atoll.doctor.nginx_values import nginx_seconds
from atoll.doctor.rule import ERROR, INFO, SAFE, WARNING, rule


@rule("NG007", ERROR, risk="Engines that fail once go on getting requests.")
def ejected_by_one_answer(facts: Facts) -> Iterable[Finding]:
    for route, upstream in balanced_upstreams(facts):
        weak = [server for server in serving_servers(upstream) if (server.param("max_fails") or "1") == "1"]
        if weak and cuts_answers(facts, route):
            changed = [_with_params(server, max_fails="3", fail_timeout="5s") for server in weak]
            edits = tuple(edit for one in changed for edit in one) if all(changed) else ()
            yield found(
                weak[0].directive,
                f"one slow answer takes an engine of upstream {upstream.name} out for 10 s",
                edits=edits,
            )


def _with_params(server: Server, **wanted: str) -> Edits:
    kept = [text for text in server.params if text.partition("=")[0] not in wanted]
    words = [server.directive.arg, *kept, *(f"{name}={value}" for name, value in wanted.items())]
    return replace_directive(server.directive, f"server {' '.join(words)};")


@rule("NG008", ERROR, risk="Engines that failed get requests again after seconds.")
def ejected_for_hours(facts: Facts) -> Iterable[Finding]:
    for _, upstream in balanced_upstreams(facts):
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


@rule("NG009", INFO, risk="A request that failed may be run a second time on another engine.", habit=True)
def no_retry_of_posts(facts: Facts) -> Iterable[Finding]:
    for route, _ in balanced_upstreams(facts):
        words = _retries(route)
        if "non_idempotent" not in words and "off" not in words:
            block = route.location.directive
            edits = put_in_block(block, "proxy_next_upstream", _RETRY)
            missing = tuple(line for line in _RETRY_LIMITS if block.child(line.split()[0]) is None)
            if block.child("proxy_next_upstream") is None:
                edits = add_directives(block, (_RETRY, *missing))
            yield found(
                route.location.proxy_pass, "a POST that an engine dropped is not retried on another one", edits=edits
            )


@rule("NG010", WARNING, risk=SAFE)
def late_retries(facts: Facts) -> Iterable[Finding]:
    for route, _ in balanced_upstreams(facts):
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


@rule("NG011", INFO, risk="A request that failed may be run a second time on another engine.")
def refusals_passed_on(facts: Facts) -> Iterable[Finding]:
    for route, _ in balanced_upstreams(facts):
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


@rule("NG027", WARNING, risk="An engine gets more requests at once than today.")
def refused_at_once(facts: Facts) -> Iterable[Finding]:
    for route in facts.upstream_routes:
        upstream = route.location.upstream
        assert upstream is not None
        limited = [server for server in upstream.servers if server.param("max_conns") not in {None, "0"}]
        if limited and not upstream.has("queue") and not _goes_elsewhere(route):
            server = limited[0]
            words = [text for text in server.params if not text.startswith("max_conns=")]
            text = " ".join(["server", server.directive.arg, *words]) + ";"
            yield found(
                server.directive,
                f"the request after {server.param('max_conns')} others gets 502 at once",
                edits=replace_directive(server.directive, text),
            )


def _goes_elsewhere(route: Route) -> bool:
    """Whether its 502 leads to another location, where a second upstream may take over."""
    lines = route.location.directive.children("error_page")
    return any("502" in line.args and line.args[-1].startswith("@") for line in lines)
