"""Paths, and what becomes of them on their way through nginx."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.facts import Facts, Route
from atoll.doctor.finding import Finding
from atoll.doctor.nginx_edits import add_directives, replace_directive
from atoll.doctor.rule import ERROR, INFO, rule


@rule("NG022", ERROR, risk="The path reaches the engine as clients send it, no longer rewritten.")
def mangled_path(facts: Facts) -> Iterable[Finding]:
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


@rule("NG035", INFO, risk="A path is passed on as nginx reads it: %2F becomes a slash.")
def spelled_paths(facts: Facts) -> Iterable[Finding]:
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
