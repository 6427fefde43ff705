"""What clients may reach through nginx, and who they may be."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.checks.routes import one_each
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts, Route
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.nginx import Directive
from atoll.doctor.nginx_edits import add_directives, opening_brace
from atoll.doctor.rule import INFO, WARNING, rule


@rule("NG032", WARNING)
def open_door(facts: Facts) -> Iterable[Finding]:
    for route in one_each(facts.answering):
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


def _for_this_machine(route: Route) -> bool:
    """Whether only programs of the machine itself reach it: nginx listens on loopback, or is published there alone."""
    service, doors = route.config.service, [line.arg for line in _listens(route)]
    if service is not None and not service.host_network:
        return bool(service.ports) and not any(port.open_to_all for port in service.ports)
    return bool(doors) and all(door.startswith(_FOR_THIS_MACHINE) for door in doors)


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


_OPEN = "/metrics, /tokenize, /pause, /sleep, /invocations and the loading of adapters"


@rule("NG023", WARNING, risk="Every path outside /v1/ gets 404: /health, /metrics, /docs, a UI.")
def everything_open(facts: Facts) -> Iterable[Finding]:
    for route in facts.routes:
        if route.to_vllm and _passes_all(route) and not _for_this_machine(route):
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


@rule("NG024", INFO, risk="/v1 without its slash is no longer passed on.", habit=True)
def open_prefix(facts: Facts) -> Iterable[Finding]:
    for route in facts.routes:
        location = route.location
        if location.path == "/v1" and location.modifier in {"", "^~"} and not location.target[3]:
            brace = opening_brace(location.directive)
            edits: Edits = ()
            if brace is not None:
                start = location.directive.source.text.rfind("/v1", 0, brace)
                edits = (Edit(file=location.directive.file, start=start, end=start + 3, text="/v1/"),)
            yield found(location.directive, "/v1anything goes to the engine too", edits=edits)


@rule("NG026", WARNING, risk="Headers that are set further out reach the engine from here too.")
def hidden_headers(facts: Facts) -> Iterable[Finding]:
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
