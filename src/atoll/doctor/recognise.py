"""What kind of file is this? Each is put on the pile of its kind."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from atoll.doctor.assemble import looks_like_compose
from atoll.doctor.checks.files import unknown
from atoll.doctor.compose import Project
from atoll.doctor.inspected import looks_like_inspect, project_of_inspect
from atoll.doctor.nginx import Directive, looks_like_nginx, parse_nginx
from atoll.doctor.sources import NOT_UTF8, Sources
from atoll.doctor.tree import Node, Source, read_yaml
from atoll.errors import BadDocument, BadTopology, InputError
from atoll.inventory.box import Box
from atoll.inventory.parse import parse_box
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard

_TOPOLOGY = re.compile(r"^\s*(\x1b\[\S+)?\s*GPU0\s+", re.MULTILINE)
_HAPROXY = re.compile(r"^\s*(frontend|backend|listen|defaults)\b", re.MULTILINE)
_NGINX_BLOCK = re.compile(r"\b(server|location\s+\S+|upstream\s+\S+|http|events)\s*\{|\bproxy_pass\s")
_TEMPLATE = re.compile(r"\{\{[^{}\n]*\}\}|\{%[^{}\n]*%\}")  # of Helm, Jinja and the like


@dataclass
class Pile:
    """The files by kind, before they are joined."""

    compose: list[Source] = field(default_factory=list)
    nginx: dict[str, tuple[Directive, ...]] = field(default_factory=dict)  # path -> directives
    projects: list[Project] = field(default_factory=list)  # those that one file makes by itself
    manifests: list[Node] = field(default_factory=list)
    envoy: list[Node] = field(default_factory=list)
    ray: list[Node] = field(default_factory=list)
    haproxy: list[Source] = field(default_factory=list)
    layouts: list[tuple[Source, Layout]] = field(default_factory=list)
    config_cards: list[ModelCard] = field(default_factory=list)
    box: tuple[Source, Box] | None = None
    acs: list[str] | None = None  # PCI bridges, of `lspci -vvv`


class Recogniser:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.pile = Pile()

    def take(self, source: Source, *, explicit: bool) -> None:
        """Put a file where its kind is gathered; `explicit` when it was named, so that an unknown one is said to be."""
        name = source.name.lower()
        if name.endswith((".yaml", ".yml", ".json")) or name.startswith(("compose", "docker-compose")):
            known = self._take_yaml(source, explicit=explicit, certain=True)
        elif name.endswith((".conf", ".template")) or name.startswith(("nginx", "sites-")):
            known = self._take_nginx(source, explicit=explicit)
        else:
            known = (
                self._take_plain(source)
                or (not _NGINX_BLOCK.search(source.text) and self._take_yaml(source, explicit=explicit, certain=False))
                or self._take_nginx(source, explicit=False)
            )
        if not known and explicit:
            self._sources.problem(source, 1, unknown, "this is no file that the doctor knows")

    def _take_plain(self, source: Source) -> bool:
        if _TOPOLOGY.search(source.text):
            return self._take_topology(source)
        if "ACSCtl:" in source.text:
            self.pile.acs = [*(self.pile.acs or []), *redirecting_bridges(source.text)]
            return True
        if _HAPROXY.search(source.text) and re.search(r"^\s*(server|bind|mode)\s", source.text, re.MULTILINE):
            self.pile.haproxy.append(source)
            return True
        return False

    def _take_topology(self, source: Source) -> bool:
        try:
            self.pile.box = (source, parse_box(source.text, origin=source.path))
        except BadTopology as error:
            self._sources.unreadable(source, 1, str(error))
        return True

    def _take_yaml(self, source: Source, *, explicit: bool, certain: bool) -> bool:
        wanted = explicit and certain
        if re.search(r"compose", source.name) or re.search(r"^services:", source.text, re.MULTILINE):
            wanted = certain
        try:
            roots = read_yaml(source)
        except BadDocument as error:
            if not wanted:
                return False
            template = _TEMPLATE.search(source.text)
            if template is not None:
                line_number = source.line_at(template.start())
                self._sources.problem(
                    source, line_number, unknown, f"this is a template ({template[0]}), to be filled in first"
                )
                return True
            self._sources.damaged(source, error)
            return True
        known = self._take_tree(source, roots)
        if known and NOT_UTF8 in source.text:
            line_number = source.line_at(source.text.index(NOT_UTF8))
            self._sources.unreadable(source, line_number, "a byte here is not UTF-8, which YAML must be")
        return known

    def _take_tree(self, source: Source, roots: Sequence[Node]) -> bool:
        if not roots:
            return False
        root = roots[0]
        if any(document.string("kind") == "List" for document in roots):
            roots = [one for document in roots for one in _listed_objects(document)] or roots
        if looks_like_inspect(root):
            output = replace(source, fixable=False)  # a program's words, nothing that one could mend
            self.pile.projects.append(project_of_inspect(read_yaml(output)[0]))
        elif any(document.get("apiVersion") is not None and document.get("kind") is not None for document in roots):
            self.pile.manifests += [document for document in roots if document.string("kind")]
            self.pile.ray += [document for document in roots if document.string("kind") == "RayService"]
        elif looks_like_compose(root):
            self.pile.compose.append(source)
        elif root.get("replicas") is not None and root.get("box") is not None:
            self._take_layout(source)
        elif root.get("static_resources") is not None:
            self.pile.envoy.append(root)
        elif root.get("applications") is not None and root.get("applications", 0, "import_path") is not None:
            self.pile.ray.append(root)
        elif root.get("model_type") is not None or root.get("architectures") is not None:
            self._take_card(source)
        else:
            return False
        return True

    def _take_layout(self, source: Source) -> None:
        try:
            layout = Layout.parse(source.text, origin=source.path)
        except BadDocument as error:
            self._sources.unreadable(source, 1, str(error).removeprefix(f"{source.path}: "))
            return
        self.pile.layouts.append((source, layout))

    def _take_card(self, source: Source) -> None:
        from atoll.doctor.cards import card_of_config

        try:
            self.pile.config_cards.append(card_of_config(source))
        except InputError as error:
            self._sources.unreadable(source, 1, str(error))

    def _take_nginx(self, source: Source, *, explicit: bool) -> bool:
        try:
            directives = parse_nginx(source)
        except BadDocument as error:
            if not (explicit or _NGINX_BLOCK.search(source.text)):
                return False
            self._sources.damaged(source, error)
            return True
        if not looks_like_nginx(directives):
            return self._take_plain(source)
        self.pile.nginx[source.path] = directives
        return True


def _listed_objects(document: Node) -> tuple[Node, ...]:
    """The objects of Kubernetes' `kind: List`, or the one object itself."""
    items = document.get("items") if document.string("kind") == "List" else None
    return items.items if items is not None else (document,)


def redirecting_bridges(text: str) -> list[str]:
    """The PCI bridges whose ACS sends peer traffic up to the root port, of `lspci -vvv`."""
    made, device = [], ""
    for line in text.splitlines():
        if re.match(r"^[0-9a-f]{2,4}:", line):
            device = line.split()[0]
        elif "ACSCtl:" in line and "ReqRedir+" in line:
            made.append(device)
    return made
