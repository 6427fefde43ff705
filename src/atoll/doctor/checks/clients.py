"""Services that ask the engines: at the port where one listens, by the name that reaches it."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import found
from atoll.doctor.compose import Project, Service
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.parts import word_node
from atoll.doctor.rule import ERROR, rule
from atoll.doctor.tree import Node

_URL = re.compile(r"https?://(?P<host>[A-Za-z0-9][\w.-]*)(?::(?P<port>\d{1,5}))?(?P<path>/[^\s\"',;]*)?")
_OWN = {"localhost", "127.0.0.1"}
_OF_AN_ENGINE = re.compile(r"OPENAI|LLM|INFERENCE|API_BASE|BASE_URL|ENDPOINT", re.IGNORECASE)
_OF_A_BROWSER = re.compile(r"^(NEXT_PUBLIC|VITE|REACT_APP|PUBLIC|NUXT_PUBLIC)_")  # asked from the user's machine


@rule("DC026", ERROR, risk="Requests go to another address.")
def asks_where_nobody_listens(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        for service in project.services if project.origin == "compose" else ():
            for name, node in _told(service):
                for asked in _URL.finditer(node.text or ""):
                    yield from _refused(project, service, name, node, asked)


def _told(service: Service) -> Iterator[tuple[str, Node]]:
    """Its variables by their names, and the words of its command."""
    if service.kind in {"nginx", "haproxy", "envoy"}:
        return
    yield from ((name, one.node) for name, one in service.environment.items() if not _OF_A_BROWSER.match(name))
    yield from (("", word_node(word)) for word in service.words)


def _refused(project: Project, service: Service, name: str, node: Node, asked: "re.Match[str]") -> Iterator[Finding]:
    port = int(asked["port"] or (443 if asked[0].startswith("https") else 80))
    if asked["host"] in _OWN:
        other = _meant(project, service, port) if _OF_AN_ENGINE.search(name) else None
        if other is not None and (asked["path"] or "").startswith("/v1"):
            what = f"{service.name} asks {asked['host']}:{port}, which is its own container; {other.name} is meant?"
            yield found(node, what, edits=_asking(node, asked, other))
        return
    other = project.service(asked["host"])
    listening = other.listen_port if other is not None and other.serves_llm and other is not service else None
    if other is not None and listening is not None and listening != port:
        what = f"{service.name} asks {other.name} on port {port}; it listens on {listening}"
        yield found(node, what, edits=_asking(node, asked, other))


def _meant(project: Project, service: Service, port: int) -> Service | None:
    """The engine that answers at this port, for the host or for the services beside it."""
    if service.get("network_mode") is not None or service.serves_llm or service.listen_port == port:
        return None
    engines = [one for one in project.services if one.serves_llm and not one.host_network]
    at_port = [one for one in engines if one.listen_port == port or any(port in p.hosts() for p in one.ports)]
    return at_port[0] if len(at_port) == 1 and at_port[0].listen_port is not None else None


def _asking(node: Node, asked: "re.Match[str]", other: Service) -> Edits:
    """The same address with the engine's name and port, where it stands in the file as it is."""
    host = other.name if asked["host"] in _OWN else asked["host"]
    before = asked[0][: len(asked[0]) - len(asked["path"] or "")]
    text = node.source.text[node.start : node.end]
    if not node.source.fixable or text.count(before) != 1:
        return ()
    start = node.start + text.index(before)
    scheme = asked[0].partition("://")[0]
    written = f"{scheme}://{host}:{other.listen_port}"
    return (Edit(file=node.file, start=start, end=start + len(before), text=written),)
