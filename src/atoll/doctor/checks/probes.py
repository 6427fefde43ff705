"""Who asks whether an engine lives, and who asks it for answers: ports, paths and proxies that agree."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import found, join, of_kind
from atoll.doctor.compose import Project, Service
from atoll.doctor.edits import Edits, add_item, add_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.kubernetes import Pod, pods
from atoll.doctor.parts import Setting
from atoll.doctor.rule import ERROR, WARNING, rule
from atoll.doctor.tree import Node

_URL = re.compile(
    r"https?://(?P<host>localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::(?P<port>\d{1,5}))?(?P<path>/[^\s\"'|;&)]*)?"
)
# Paths that others answer and vLLM does not (the routes of entrypoints/openai/api_server.py): 404 for ever.
_UNKNOWN_PATH = re.compile(r"/(healthz|livez|readyz|live|ready|healthcheck|status|v1/health|api/health|health/\w+)/?")
_FAILS_ON_404 = re.compile(r"\bcurl\b(?=.*\s(-\w*f|--fail))|\bwget\b|\burlopen\b")


@rule("DC024", ERROR, risk="The container becomes healthy, and what waits for that starts.")
def check_that_never_passes(facts: Facts) -> Iterable[Finding]:
    for engine in facts.engines:
        service, listening = engine.service, engine.service.listen_port
        test = service.get("healthcheck", "test")
        words = [test] if test is not None and test.is_scalar else list(test.items) if test is not None else []
        sent = any("uthorization" in (word.text or "") or "earer" in (word.text or "") for word in words)
        for word in words:
            asked = _URL.search(word.text or "")
            if asked is None or listening is None:
                continue
            port, path = int(asked["port"] or 80), asked["path"] or "/"
            if port != listening:
                what = f"the health check of {engine.name} asks port {port}; it listens on {listening}"
                yield found(word, what, edits=_asking(word, asked, listening, path))
            elif path.startswith("/v1") and not sent and _asks_for_key(service):
                what = f"the health check of {engine.name} asks {path} without the key: 401 for ever"
                yield found(word, what, edits=_asking(word, asked, listening, "/health"))
            elif _UNKNOWN_PATH.fullmatch(path) and _FAILS_ON_404.search(" ".join(word.text or "" for word in words)):
                what = f"the health check of {engine.name} asks {path}, which vLLM does not have: 404 for ever"
                yield found(word, what, edits=_asking(word, asked, listening, "/health"))


def _asks_for_key(service: Service) -> bool:
    return "VLLM_API_KEY" in service.environment or (service.vllm is not None and service.vllm.has("--api-key"))


def _asking(word: Node, asked: "re.Match[str]", port: int, path: str) -> Edits:
    """The same check with this port and path, where the address stands in the file as it is."""
    text = word.source.text[word.start : word.end]
    if not word.source.fixable or text.count(asked[0]) != 1:
        return ()
    start = word.start + text.index(asked[0])
    written = f"http://{asked['host']}:{port}{path}"
    return (Edit(file=word.file, start=start, end=start + len(asked[0]), text=written),)


@rule("DC025", WARNING, risk="Requests to these services no longer go through the proxy.")
def asks_the_proxy(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        for service in project.services if project.origin == "compose" else ():
            proxy = _either(service, "http_proxy")
            if proxy is None or not proxy.value:
                continue
            spared = _either(service, "no_proxy")
            if spared is not None and not spared.known:
                continue
            names = [name for name in _asked_names(project, service) if not _is_spared(name, spared)]
            if names:
                yield found(
                    (spared or proxy).node,
                    f"{service.name} asks the proxy for {join(names)}",
                    edits=_sparing(service, spared, names),
                )


def _either(service: Service, name: str) -> Setting | None:
    return service.environment.get(name) or service.environment.get(name.upper())


def _asked_names(project: Project, service: Service) -> Iterator[str]:
    """The services of the project that stand in addresses of its variables, each once; HTTP alone goes by a proxy."""
    texts = [
        setting.value or "" for name, setting in service.environment.items() if not name.lower().endswith("_proxy")
    ]
    hosts = [host for text in texts for host in re.findall(r"\bhttp://([\w.-]+)", text)]
    test = service.get("healthcheck", "test")
    words = [test] if test is not None and test.is_scalar else list(test.items) if test is not None else []
    asked = [_URL.search(word.text or "") for word in words if "noproxy" not in (word.text or "")]
    own = [address["host"] for address in asked if address is not None]
    yield from (name for name in dict.fromkeys(own) if name != "0.0.0.0")  # noqa: S104 - looked for, not bound
    for name in dict.fromkeys(hosts):
        if project.service(name) is not None and project.service(name) is not service:
            yield name


def _is_spared(name: str, spared: Setting | None) -> bool:
    listed = [part.strip() for part in (spared.value or "").split(",")] if spared is not None else []
    return "*" in listed or any(part == name or (part.startswith(".") and name.endswith(part)) for part in listed)


def _sparing(service: Service, spared: Setting | None, names: list[str]) -> Edits:
    listed = ",".join(names)
    if spared is None:
        node, text = service.get("environment"), f"localhost,127.0.0.1,{listed}"
        if node is None or not (node.is_map or node.is_list):
            return ()
        return add_key(node, (f"no_proxy: {text}",)) if node.is_map else add_item(node, f"no_proxy={text}")
    raw = spared.node.raw or ""
    return replace_value(spared.node, f'"{raw},{listed}"') if raw and '"' not in raw and "$" not in raw else ()


@rule("K8007", ERROR)
def nobody_listens(facts: Facts) -> Iterable[Finding]:
    listed = tuple(pods(facts.manifests))
    for pod in listed:
        yield from _probed(pod)
    for service in of_kind(facts, "Service"):
        selector, ports = service.get("spec", "selector"), service.get("spec", "ports")
        wanted = {name: value.text for name, value in selector.pairs()} if selector is not None else {}
        for pod in (pod for pod in listed if wanted and wanted.items() <= pod.labels.items()):
            for entry in ports.items if ports is not None else ():
                target = entry.get("targetPort") or entry.get("port")
                yield from _refused(pod, target, "this Service sends requests to")


def _probed(pod: Pod) -> Iterator[Finding]:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = pod.container.get(name)
        for kind in ("httpGet", "tcpSocket"):
            yield from _refused(pod, probe.get(kind, "port") if probe is not None else None, f"{name} asks")
        path = probe.get("httpGet", "path") if probe is not None else None
        if path is not None and (path.text or "").startswith("/v1") and _asks_for_key(pod.service):
            headers = probe.get("httpGet", "httpHeaders") if probe is not None else None
            if headers is None:
                yield found(path, f"{name} asks {path.text} of {pod.name} without the key: 401 for ever")
        elif path is not None and _UNKNOWN_PATH.fullmatch(path.text or ""):
            yield found(path, f"{name} asks {path.text} of {pod.name}, which vLLM does not have: 404 for ever")


def _refused(pod: Pod, port: Node | None, who: str) -> Iterator[Finding]:
    listening = pod.service.listen_port
    number = _number_of(pod, port.text or "") if port is not None and port.known else None
    if port is not None and number is not None and listening is not None and number not in _others(pod, listening):
        yield found(port, f"{who} port {number} of {pod.name}; vLLM listens on {listening}")


def _number_of(pod: Pod, text: str) -> int | None:
    """A port by number or by the name that the container gives it."""
    if text.isdecimal():
        return int(text)
    ports = pod.container.get("ports")
    named = (entry.get("containerPort") for entry in (ports.items if ports else ()) if entry.string("name") == text)
    number = next(named, None)
    return int(number.text or 0) if number is not None and (number.text or "").isdecimal() else None


def _others(pod: Pod, listening: int) -> set[int]:
    """The ports at which the pod listens: the engine's, and those that its other containers name."""
    containers = pod.spec.get("containers")
    made = {listening}
    for container in containers.items if containers is not None else ():
        ports = container.get("ports")
        if container.line != pod.container.line and ports is not None:
            made |= {int(text) for entry in ports.items if (text := entry.string("containerPort") or "").isdecimal()}
    return made
