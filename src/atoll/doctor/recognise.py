"""What kind of file is this? Each is put on the pile of its kind."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from atoll.doctor.assemble import looks_like_compose
from atoll.doctor.caddy import IS_CADDYFILE, doors_of_caddyfile
from atoll.doctor.checks.files import unknown
from atoll.doctor.compose import Project
from atoll.doctor.door import Door
from atoll.doctor.gateways import door_of_litellm, doors_of_traefik, looks_like_traefik
from atoll.doctor.helm import looks_like_values
from atoll.doctor.inspected import looks_like_inspect, project_of_inspect
from atoll.doctor.kustomize import is_kustomization
from atoll.doctor.makefiles import IS_MAKEFILE
from atoll.doctor.nginx import Directive, looks_like_nginx, parse_nginx
from atoll.doctor.scripts import STARTS_ENGINE, project_of_script, projects_of_readme, script_of, script_within
from atoll.doctor.shell import Document
from atoll.doctor.sources import NOT_UTF8, Sources
from atoll.doctor.toml_tree import read_toml
from atoll.doctor.tree import Node, Source, cut_out, read_yaml
from atoll.doctor.units import IS_SUPERVISOR, IS_UNIT
from atoll.engines import find_engine
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
    values: list[Node] = field(default_factory=list)  # of Helm charts
    envoy: list[Node] = field(default_factory=list)
    ray: list[Node] = field(default_factory=list)
    dockerfiles: list[Source] = field(default_factory=list)
    units: list[Source] = field(default_factory=list)  # of systemd and of Podman's quadlet
    doors: list[Door] = field(default_factory=list)
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
        binary = _binary(source)
        if binary is not None:
            self._sources.problem(source.path, 1, unknown, binary)
            return
        if self._take(source, explicit=explicit):
            return
        if explicit:
            what = (
                "a table, and commands in its cells start nothing"
                if _is_table(source)
                else "no file that the doctor knows"
            )
            self._sources.problem(source, 1, unknown, f"this is {what}")
        elif STARTS_ENGINE.search(source.text):
            self._sources.not_understood(source.path, _unknown_kind(source))

    def _take(self, source: Source, *, explicit: bool) -> bool:
        by_name = _told_by_name(source)
        if by_name in {"unit", "dockerfile"}:
            (self.pile.units if by_name == "unit" else self.pile.dockerfiles).append(source)
            return True
        if by_name == "yaml":
            return self._take_yaml(source, explicit=explicit, certain=True)
        if by_name == "nginx":
            return self._take_nginx(source, explicit=explicit)
        takes = {
            "caddyfile": self._take_caddyfile,
            "script": self._take_script,
            "text": self._take_readme,
            "toml": self._take_toml,
        }
        if by_name in takes:
            return takes[by_name](source)
        return (
            self._take_plain(source)
            or (not _NGINX_BLOCK.search(source.text) and self._take_yaml(source, explicit=explicit, certain=False))
            or self._take_nginx(source, explicit=False)
            or (
                explicit
                and bool(STARTS_ENGINE.search(source.text))
                and not _is_table(source)
                and self._take_script(source)
            )
        )

    def _take_toml(self, source: Source) -> bool:
        """Traefik's files; other TOML is no configuration that is known here."""
        if not re.search(r"(?m)^\s*\[+\s*(http|entryPoints)\b", source.text):
            return False
        try:
            root = read_toml(source)
        except BadDocument as error:
            self._sources.damaged(source, error)
            return True
        self.pile.doors += doors_of_traefik(root)
        self._sources.understood(source, "Traefik file")
        return True

    def _take_script(self, source: Source) -> bool:
        script = script_of(source, self._sources.near)
        project = project_of_script(source, script, self._sources.near)
        if project is not None:
            self.pile.projects.append(project)
        written = [self._take_document(source, document) for document in script.documents]
        if project is not None or any(written):
            self._sources.understood(source, "script")
            return True
        return False

    def _take_document(self, source: Source, document: Document) -> bool:
        """A Compose file, a manifest, a unit or a script that a script writes: read where it stands."""
        inner = cut_out(source, document.start, document.end)
        if re.search(r"^\s*\[(Unit|Service|Container)\]", inner.text, re.MULTILINE):
            self.pile.units.append(inner)
            return True
        if not re.search(r"^\s*(services|apiVersion)\s*:", inner.text, re.MULTILINE):
            return self._take_written_script(source, document)
        try:
            return self._take_tree(inner, read_yaml(inner))
        except BadDocument:
            return False

    def _take_written_script(self, source: Source, document: Document) -> bool:
        if not STARTS_ENGINE.search(source.text[document.start : document.end]):
            return False
        project = project_of_script(source, script_within(source, document), self._sources.near)
        self.pile.projects += [project] if project is not None else []
        return project is not None

    def _take_caddyfile(self, source: Source) -> bool:
        try:
            self.pile.doors += doors_of_caddyfile(source)
        except BadDocument as error:
            self._sources.damaged(source, error)
            return True
        self._sources.understood(source, "Caddyfile")
        return True

    def _take_readme(self, source: Source) -> bool:
        found = list(projects_of_readme(source, self._sources.near))
        self.pile.projects += found
        if found:
            self._sources.understood(source, "README")
        return bool(found)

    def _take_plain(self, source: Source) -> bool:
        if _TOPOLOGY.search(source.text):
            return self._take_topology(source)
        if "ACSCtl:" in source.text:
            self._sources.understood(source, "capture")
            self.pile.acs = [*(self.pile.acs or []), *redirecting_bridges(source.text)]
            return True
        if _HAPROXY.search(source.text) and re.search(r"^\s*(server|bind|mode)\s", source.text, re.MULTILINE):
            self.pile.haproxy.append(source)
            self._sources.understood(source, "HAProxy file")
            return True
        return False

    def _take_topology(self, source: Source) -> bool:
        try:
            self.pile.box = (source, parse_box(source.text, origin=source.path))
        except BadTopology as error:
            self._sources.unreadable(source, 1, str(error))
        self._sources.understood(source, "capture")
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
        if roots[0].get("apiVersion") is not None and source.fixable and _TEMPLATE.search(source.text):
            roots = read_yaml(replace(source, fixable=False))  # whoever fills it in would not thank for a change
        root = roots[0]
        if any(document.string("kind") == "List" for document in roots):
            roots = [one for document in roots for one in _listed_objects(document)] or roots
        kind = _kind_of(roots)
        if kind is None:
            return False
        self._sources.understood(source, kind)
        if kind == "docker inspect":
            output = replace(source, fixable=False)  # a program's words, nothing that one could mend
            self.pile.projects.append(project_of_inspect(read_yaml(output)[0]))
        elif kind == "Kubernetes manifest":
            self.pile.manifests += [one for one in roots if one.string("kind") or is_kustomization(one)]
        elif kind == "Compose file":
            self.pile.compose.append(source)
        elif kind in {"LiteLLM file", "Traefik file"}:
            door = door_of_litellm(root)
            self.pile.doors += [door] if door is not None else doors_of_traefik(root)
        elif kind == "layout":
            self._take_layout(source)
        elif kind == "model's config":
            self._take_card(source)
        else:
            pile = {"Envoy file": self.pile.envoy, "Ray Serve file": self.pile.ray, "Helm values": self.pile.values}
            pile[kind].append(root)
        return True

    def _take_layout(self, source: Source) -> None:
        try:
            layout = Layout.parse(source.text, origin=source.path)
            find_engine(layout.engine).parse_version(layout.engine_version)
        except InputError as error:
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
        self._sources.understood(source, "nginx file")
        return True


def _binary(source: Source) -> str | None:
    """What a file is that holds no text of one byte a character; None for texts."""
    if "\0" not in source.text:
        return None
    head = source.text[:400].lstrip(NOT_UTF8)
    wide = max(head[::2].count("\0"), head[1::2].count("\0")) > len(head) / 4
    plain = not re.search(r"[\x01-\x08\x0e-\x1f]", head)
    return "this is UTF-16; save it as UTF-8 to have it read" if wide and plain else "this is a binary file"


_NAMES = (
    ("script", r"\.(sh|bash|zsh|sbatch|slurm)$|^procfile$|" + IS_MAKEFILE.pattern),
    ("text", r"\.(md|rst)$"),
    ("unit", IS_UNIT.pattern),
    ("dockerfile", r"(^|[._-])(docker|container)file|\.dockerfile$"),
    ("caddyfile", IS_CADDYFILE.pattern),
    ("toml", r"\.toml$"),
    ("yaml", r"\.(ya?ml|json)$|^(docker-)?compose"),
    ("nginx", r"\.(conf|template)$|^(nginx|sites-)"),
)


def _told_by_name(source: Source) -> str | None:
    """The kind that a file's name tells; None when its text must."""
    name = source.name.lower()
    kind = next((kind for kind, pattern in _NAMES if re.search(pattern, name)), None)
    if IS_SUPERVISOR.search(source.text):
        return "unit"
    if kind == "dockerfile" and not re.search(r"(?im)^\s*FROM\s", source.text):
        return None
    return kind or ("script" if re.match(r"#!.*\b(ba|da|z)?sh\b", source.text) else None)


def _is_table(source: Source) -> bool:
    """Whether commands in it are quoted in cells or in records, and nothing of it is run."""
    return source.name.lower().endswith(_TABLES) or _HEADER.match(source.text) is not None


_TABLES = (".csv", ".tsv", ".psv", ".jsonl", ".ndjson")
_HEADER = re.compile(r"\ufeff?\w[\w ./-]*([,;|\t]\w[\w ./-]*){2,}\r?\n")  # of a table without such a name


def _is_manifest(root: Node) -> bool:
    return (root.get("apiVersion") is not None and root.get("kind") is not None) or is_kustomization(root)


def _has(*keys: str) -> Callable[[Node], bool]:
    return lambda root: all(root.get(key) is not None for key in keys)


_KINDS: tuple[tuple[str, Callable[[Node], bool]], ...] = (
    ("Compose file", looks_like_compose),
    ("LiteLLM file", _has("model_list")),
    ("Traefik file", looks_like_traefik),
    ("Helm values", looks_like_values),
    ("model's config", _has("architectures")),
    ("layout", _has("replicas", "box")),
    ("Envoy file", _has("static_resources")),
    ("Ray Serve file", _has("applications")),
    ("model's config", _has("model_type")),
)


def _kind_of(roots: Sequence[Node]) -> str | None:
    """What a YAML text describes; None when it is nothing that is known here."""
    if looks_like_inspect(roots[0]):
        return "docker inspect"
    if any(_is_manifest(document) for document in roots):
        return "Kubernetes manifest"
    return next((kind for kind, looks_like in _KINDS if looks_like(roots[0])), None)


_UNKNOWN_KINDS = (
    (IS_MAKEFILE.pattern, "Makefile"),
    (r"\.(tf|hcl|nomad)$", "Terraform or Nomad"),
    (r"\.(j2|tpl)$", "template"),
    (r"\.toml$", "TOML"),
    (r"\.(ps1|bat)$", "script of Windows"),
    (r"(?i)(docker|container)file", "Dockerfile"),
    (r"\.(md|rst|txt)$", "commands in a text"),
    (r"\.(sh|bash)$", "script"),
)


def _unknown_kind(source: Source) -> str:
    """What is not understood, in a few words, for a file that names an engine."""
    named = next((kind for pattern, kind in _UNKNOWN_KINDS if re.search(pattern, source.path)), None)
    if named is None and _TEMPLATE.search(source.text):
        return "template"
    return named or "names an engine in a form that is not known"


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
