"""Fills Facts through the door: reads the files, follows what they name, asks the machine when told to."""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from atoll.doctor.checks import all_rules
from atoll.doctor.checks.files import careless_silence, unknown, unreadable
from atoll.doctor.compose import Project, Service, build_project, looks_like_compose, read_env
from atoll.doctor.facts import Facts, Host, Load
from atoll.doctor.finding import Finding
from atoll.doctor.inspected import looks_like_inspect, project_of_inspect
from atoll.doctor.kubernetes import project_of_manifests
from atoll.doctor.nginx import Directive, NginxConfig, looks_like_nginx, parse_nginx, with_includes
from atoll.doctor.rule import Rule
from atoll.doctor.silence import careless_silences
from atoll.doctor.tree import Node, Source, read_yaml
from atoll.engines.vllm.versions import tag_version
from atoll.errors import BadDocument, BadTopology, InputError
from atoll.inventory.box import Box
from atoll.inventory.catalog import GpuKind, find_gpu
from atoll.inventory.parse import parse_box
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.outside.files import read_text

T = TypeVar("T")


class Files(Protocol):
    """Where the files lie: a disk, or a dict of texts."""

    def read(self, path: str) -> str | None:
        """The text; None when there is no such file. Raises InputError when it may not be read."""
        ...

    def listing(self, path: str) -> tuple[str, ...] | None:
        """The names in a folder, in order; None when it is none. Raises InputError when it may not be read."""
        ...

    def identity(self, path: str) -> str:
        """One name for a file, by whatever path it is reached."""
        ...


class DiskFiles:
    """The files of this machine; a file of more than 4 MB is no configuration and counts as missing."""

    def read(self, path: str) -> str | None:
        place = Path(path)
        if path == "-" or _said(path, lambda: place.is_file() and place.stat().st_size <= 4 * 10**6):
            return read_text(place).removeprefix("\ufeff")
        return None

    def listing(self, path: str) -> tuple[str, ...] | None:
        place = Path(path)
        return _said(path, lambda: tuple(sorted(c.name for c in place.iterdir())) if place.is_dir() else None)

    def identity(self, path: str) -> str:
        try:
            return str(Path(path).resolve()) if path != "-" else path
        except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no file can have
            return path


def _said(path: str, look: Callable[[], T]) -> T | None:
    """What is seen of a file or folder; None for a name that no file can have. Raises InputError when it is closed."""
    try:
        return look()
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (OSError, ValueError):
        return None


class HeldFiles:
    """Texts by path, in memory, over the files of another place (if any)."""

    def __init__(self, texts: Mapping[str, str], below: Files | None = None) -> None:
        self._texts = {posixpath.normpath(path): text for path, text in texts.items()}
        self._below = below

    def read(self, path: str) -> str | None:
        held = self._texts.get(posixpath.normpath(path))
        return held if held is not None or self._below is None else self._below.read(path)

    def listing(self, path: str) -> tuple[str, ...] | None:
        folder = posixpath.normpath(path)
        prefix = "" if folder == "." else folder + "/"
        inside = {name[len(prefix) :].split("/")[0] for name in self._texts if name.startswith(prefix)}
        below = self._below.listing(path) if self._below is not None else None
        return tuple(sorted(inside | set(below or ()))) if inside or below is not None else None

    def identity(self, path: str) -> str:
        return posixpath.normpath(path) if self._below is None else self._below.identity(path)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the asker adds to the files."""

    load: Load = field(default_factory=Load)
    box: Box | None = None
    gpu: str | None = None
    model: ModelCard | None = None  # for commands whose own model is not known
    host: Host | None = None
    find_card: Callable[[str], ModelCard | None] = field(default=lambda _: None)


def gather(paths: Sequence[str], files: Files, asked: Asked | None = None) -> Facts:
    """Read the paths and all that they name.

    Args:
        paths: files and folders, as the user gave them.
        files: where they lie.
        asked: users, GPU kind and the like.

    Raises:
        InputError: a path that is not there.
    """
    reading = _Reading(files, asked or Asked())
    for path in paths:
        reading.take(path)
    return reading.facts()


NOT_UTF8 = "\ufffd"  # what stands for such bytes; a file that has them is not mended, or they would be lost
CORRECTED = ".fixed."  # in the name of a corrected copy, which is looked at only when it is named
_SKIPPED = {"node_modules", "__pycache__", "venv", "site-packages", "dist", "build", "target"}
_WALKED = re.compile(r"\.(ya?ml|conf|cfg|json|template)$|^nginx(?!.*\.pyc?$)|topo.*\.txt$|^sites-")
_TOPOLOGY = re.compile(r"^\s*(\x1b\[\S+)?\s*GPU0\s+", re.MULTILINE)
_HAPROXY = re.compile(r"^\s*(frontend|backend|listen|defaults)\b", re.MULTILINE)
_NGINX_BLOCK = re.compile(r"\b(server|location\s+\S+|upstream\s+\S+|http|events)\s*\{|\bproxy_pass\s")


_TEMPLATE = re.compile(r"\{\{[^{}\n]*\}\}|\{%[^{}\n]*%\}")  # of Helm, Jinja and the like


def _is_within(identity: str, root: str) -> bool:
    """Whether a file is a folder itself, or in it."""
    if root in {".", "/"}:
        return not identity.startswith("../")
    return identity == root or identity.startswith(root + "/")


class _Reading:
    """What has been read so far."""

    def __init__(self, files: Files, asked: Asked) -> None:
        self._files, self._asked = files, asked
        self._sources: dict[str, Source] = {}
        self._named: dict[str, str] = {}  # what a file is -> the first path by which it was reached
        self._compose: dict[str, Source] = {}
        self._nginx: dict[str, tuple[Directive, ...]] = {}
        self._projects: list[Project] = []
        self._manifests: list[Node] = []
        self._envoy: list[Node] = []
        self._ray: list[Node] = []
        self._haproxy: list[Source] = []
        self._layouts: list[tuple[Source, Layout]] = []
        self._cards: dict[str, ModelCard] = {}
        self._config_cards: list[ModelCard] = []
        self._box: tuple[Source, Box] | None = None
        self._acs: list[str] | None = None
        self._problems: list[Finding] = []
        self._roots: set[str] = set()  # what was given: files outside of it may be read, where named, but not mended
        self._entered: set[str] = set()  # folders, so that a link to one above does not lead round and round

    # one path after the other ------------------------------------------------------------------------------------

    def take(self, path: str) -> None:
        names = self._files.listing(path) if path != "-" else None
        if names is not None:
            self._roots.add(self._files.identity(path))
            self._entered.add(self._files.identity(path))
            self._take_folder(path, names, root=self._files.identity(path), depth=0)
            return
        if path != "-":
            self._files.read(posixpath.normpath(path))  # what was named and may not be read is a fault of the command
            self._roots |= {self._files.identity(path), self._files.identity(posixpath.dirname(path) or ".")}
        source = self._source(path)
        if source is None:
            raise InputError(f"There is no file or folder {path}.")
        self._recognise(source, explicit=True)

    def _take_folder(self, path: str, names: Iterable[str], *, root: str, depth: int) -> None:
        for name in names:
            child = posixpath.join(path, name) if path != "." else name
            if name.startswith(".") or name in _SKIPPED or CORRECTED in name:
                continue
            try:
                inside = self._files.listing(child)
            except InputError as error:
                self._problem(child, 1, unknown, str(error).rstrip("."))
                continue
            if not _is_within(self._files.identity(child), root):
                if inside is not None or _WALKED.search(name):
                    self._problem(child, 1, unknown, "this link leads out of the folder and was not followed")
                continue
            if inside is not None:
                if depth < 5 and self._files.identity(child) not in self._entered:
                    self._entered.add(self._files.identity(child))
                    self._take_folder(child, inside, root=root, depth=depth + 1)
            elif _WALKED.search(name) and (source := self._source(child)) is not None and _is_worth_reading(source):
                self._recognise(source, explicit=False)

    def _source(self, path: str) -> Source | None:
        name = path if path == "-" else posixpath.normpath(path)
        if name in self._sources:
            return self._sources[name]
        try:
            text = self._files.read(name)
        except InputError as error:
            if not any(problem.file == name for problem in self._problems):
                self._problem(name, 1, unknown, str(error).rstrip("."))
            return None
        if text is None:
            return None
        identity = self._files.identity(name)
        same = self._named.setdefault(identity, name)
        if same not in self._sources:
            ours = any(_is_within(identity, root) for root in self._roots)  # beside them nothing is mended
            self._sources[same] = Source(same, text, fixable=ours and name != "-" and NOT_UTF8 not in text)
        return self._sources[same]

    # what kind of file ------------------------------------------------------------------------------------------

    def _recognise(self, source: Source, *, explicit: bool) -> None:
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
            self._problem(source, 1, unknown, "this is no file that the doctor knows")

    def _take_plain(self, source: Source) -> bool:
        if _TOPOLOGY.search(source.text):
            return self._take_topology(source)
        if "ACSCtl:" in source.text:
            self._acs = [*(self._acs or []), *redirecting_bridges(source.text)]
            return True
        if _HAPROXY.search(source.text) and re.search(r"^\s*(server|bind|mode)\s", source.text, re.MULTILINE):
            self._haproxy.append(source)
            return True
        return False

    def _take_topology(self, source: Source) -> bool:
        try:
            self._box = (source, parse_box(source.text, origin=source.path))
        except BadTopology as error:
            self._unreadable(source, 1, str(error))
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
                self._problem(
                    source, line_number, unknown, f"this is a template ({template[0]}), to be filled in first"
                )
                return True
            line, _, problem = str(error).removeprefix("line ").partition(": ")
            self._unreadable(source, int(line), problem)
            return True
        known = self._take_tree(source, roots)
        if known and NOT_UTF8 in source.text:
            line_number = source.line_at(source.text.index(NOT_UTF8))
            self._unreadable(source, line_number, "a byte here is not UTF-8, which YAML must be")
        return known

    def _take_tree(self, source: Source, roots: Sequence[Node]) -> bool:
        if not roots:
            return False
        root = roots[0]
        if any(document.string("kind") == "List" for document in roots):
            roots = [one for document in roots for one in _listed_objects(document)] or roots
        if looks_like_inspect(root):
            output = replace(source, fixable=False)  # a program's words, nothing that one could mend
            self._projects.append(project_of_inspect(read_yaml(output)[0]))
        elif any(document.get("apiVersion") is not None and document.get("kind") is not None for document in roots):
            self._manifests += [document for document in roots if document.string("kind")]
            self._ray += [document for document in roots if document.string("kind") == "RayService"]
        elif looks_like_compose(root):
            self._compose[source.path] = source
        elif root.get("replicas") is not None and root.get("box") is not None:
            self._take_layout(source)
        elif root.get("static_resources") is not None:
            self._envoy.append(root)
        elif root.get("applications") is not None and root.get("applications", 0, "import_path") is not None:
            self._ray.append(root)
        elif root.get("model_type") is not None or root.get("architectures") is not None:
            self._take_card(source)
        else:
            return False
        return True

    def _take_layout(self, source: Source) -> None:
        try:
            layout = Layout.parse(source.text, origin=source.path)
        except BadDocument as error:
            self._unreadable(source, 1, str(error).removeprefix(f"{source.path}: "))
            return
        self._layouts.append((source, layout))

    def _take_card(self, source: Source) -> None:
        from atoll.doctor.cards import card_of_config

        try:
            self._config_cards.append(card_of_config(source))
        except InputError as error:
            self._unreadable(source, 1, str(error))

    def _take_nginx(self, source: Source, *, explicit: bool) -> bool:
        try:
            directives = parse_nginx(source)
        except BadDocument as error:
            if not (explicit or _NGINX_BLOCK.search(source.text)):
                return False
            line, _, problem = str(error).removeprefix("line ").partition(": ")
            self._unreadable(source, int(line), problem)
            return True
        if not looks_like_nginx(directives):
            return self._take_plain(source)
        self._nginx[source.path] = directives
        return True

    def _unreadable(self, source: Source, line: int, problem: str) -> None:
        self._problem(source, line, unreadable, problem.rstrip("."))

    def _problem(self, source: Source | str, line: int, rule: Rule, what: str) -> None:
        page = rule.page
        self._problems.append(
            Finding(
                file=source if isinstance(source, str) else source.path,
                line=line,
                rule=rule.id,
                severity=rule.severity,
                what=what,
                why=page.consequence,
                fix=page.fix,
            )
        )

    # joining ----------------------------------------------------------------------------------------------------

    def facts(self) -> Facts:
        cluster = project_of_manifests(self._manifests) if self._manifests else None
        projects = (
            *self._projects,
            *_outermost(list(self._build_projects())),
            *([cluster] if cluster is not None else []),
        )
        nginx = tuple(self._build_nginx(projects))
        layouts = tuple(self._layouts)
        self._look_for_careless_silences()
        box = self._box[1] if self._box is not None else self._asked.box
        if box is None and len(layouts) == 1:
            box = layouts[0][1].box
        facts = Facts(
            sources=dict(self._sources),
            projects=projects,
            nginx=nginx,
            manifests=tuple(self._manifests),
            haproxy=tuple(self._haproxy),
            envoy=tuple(self._envoy),
            ray=tuple(self._ray),
            layouts=layouts,
            box=box,
            box_source=self._box[0] if self._box is not None else None,
            any_kind=_kind(self._asked.gpu),
            load=self._asked.load,
            host=self._host(),
            problems=tuple(self._problems),
        )
        return replace(facts, cards=self._find_cards(facts))

    def _look_for_careless_silences(self) -> None:
        rules = tuple(rule.id for rule in all_rules())
        for source in tuple(self._sources.values()):
            for line, problem in careless_silences(source, rules):
                self._problem(source, line, careless_silence, problem)

    def _host(self) -> Host | None:
        if self._acs is None:
            return self._asked.host
        return replace(self._asked.host or Host(), acs_redirect=tuple(self._acs))

    def _find_cards(self, facts: Facts) -> dict[str, ModelCard]:
        named = {engine.command.model for engine in facts.engines} | {layout.model for _, layout in facts.layouts}
        made: dict[str, ModelCard] = {}
        for name in named:
            card = self._card(name, alone=len(named) == 1) if name else None
            if card is not None and name is not None:
                made[name] = card
        return made

    def _card(self, name: str, *, alone: bool) -> ModelCard | None:
        if alone and self._config_cards:
            return self._config_cards[0]
        return self._asked.find_card(name) or (self._asked.model if alone else None)

    # compose ----------------------------------------------------------------------------------------------------

    def _build_projects(self) -> Iterator[Project]:
        folders: dict[str, list[Source]] = {}
        for source in self._compose.values():
            folders.setdefault(source.folder, []).append(source)
        for folder, sources in folders.items():
            variables = self._variables(folder)
            roots = [root for source in sources if (root := self._tree(source, variables)) is not None]
            for chain in _chains(roots):
                yield build_project(chain[0].source.path, chain, self._near, partial(self._tree, variables=variables))

    def _variables(self, folder: str) -> dict[str, str]:
        source = self._source(posixpath.join(folder, ".env"))
        return {name: value for name, (value, _) in read_env(source).items()} if source is not None else {}

    def _tree(self, source: Source, variables: Mapping[str, str]) -> Node | None:
        try:
            roots = read_yaml(source, variables)
        except BadDocument as error:
            if not any(problem.file == source.path for problem in self._problems):
                line, _, problem = str(error).removeprefix("line ").partition(": ")
                self._unreadable(source, int(line), problem)
            return None
        return roots[0] if roots and roots[0].is_map else None

    def _near(self, name: str, source: Source) -> Source | None:
        """The file that another one names; a corrected copy names corrected copies, where there are any."""
        path = posixpath.join(source.folder, name)
        stem, suffix = posixpath.splitext(path)
        corrected = self._source(f"{stem}.fixed{suffix}") if CORRECTED in source.name else None
        return corrected or self._source(path)

    # nginx ------------------------------------------------------------------------------------------------------

    def _build_nginx(self, projects: Sequence[Project]) -> Iterator[NginxConfig]:
        taken: set[str] = set()
        without: list[Service] = []
        for service in (service for project in projects for service in project.services):
            if service.kind != "nginx":
                continue
            configs = list(self._config_of(service))
            taken |= {source.path for config in configs for source in config.sources}
            yield from configs
            without += [] if configs else [service]
        alone = list(self._standing_alone(taken))
        only = without[0] if len(without) == 1 and len(alone) == 1 else None
        for config in alone:
            yield self._with_service(config, only) if only is not None else config

    def _config_of(self, service: Service) -> Iterator[NginxConfig]:
        """The configuration that a service's mounts give it."""
        inside = dict(self._mounted(service))
        if not inside:
            return
        mains = [place for place in inside if place.endswith("/nginx.conf")]
        chosen = mains or [place for place in inside if re.search(r"/(conf\.d|templates)/", place)] or list(inside)
        include = self._include_inside(inside)
        parsed = [
            (source, with_includes(directives, include, (source.path,)))
            for place in chosen
            if (source := inside[place]) and (directives := self._directives(source)) is not None
        ]
        if not parsed:
            return
        directives = tuple(directive for _, listed in parsed for directive in listed)
        config = _config(parsed[0][0], directives, fragment=not mains)
        sources = tuple(dict.fromkeys((*(source for source, _ in parsed), *inside.values(), *config.sources)))
        yield self._with_service(replace(config, sources=sources), service)

    def _mounted(self, service: Service) -> Iterator[tuple[str, Source]]:
        for mount in service.mounts:
            if mount.kind != "bind" or mount.source is None or "nginx" not in mount.target:
                continue
            path = posixpath.join(mount.node.source.folder, mount.source)
            names = self._files.listing(path)
            for name in names or ():
                source = self._source(posixpath.join(path, name))
                if source is not None and name.endswith((".conf", ".template")):
                    yield posixpath.join(mount.target, name), _filled_template(source, service)
            source = self._near(mount.source, mount.node.source) if names is None else None
            if source is not None and not source.name.endswith((".pem", ".crt", ".key", ".html")):
                yield mount.target, _filled_template(source, service)
        yield from self._configs_of(service)

    def _configs_of(self, service: Service) -> Iterator[tuple[str, Source]]:
        """Files that come in through `configs:`."""
        listed = service.get("configs")
        root = self._tree(service.node.source, {}) if listed is not None else None
        for item in listed.items if listed is not None and root is not None else ():
            name = item.string("source") if item.is_map else item.text
            target = item.string("target") if item.is_map else f"/{name}"
            path = root.string("configs", name or "", "file") if root is not None else None
            source = self._source(posixpath.join(service.node.source.folder, path)) if path else None
            if source is not None and target and "nginx" in target:
                yield target, source

    def _include_inside(self, inside: Mapping[str, Source]) -> Callable[[str, Source], list[Source]]:
        def include(pattern: str, by: Source) -> list[Source]:
            wanted = pattern if pattern.startswith("/") else posixpath.join("/etc/nginx", pattern)
            found = [source for place, source in sorted(inside.items()) if fnmatch(place, wanted)]
            return found or self._include(pattern, by)

        return include

    def _include(self, pattern: str, by: Source) -> list[Source]:
        """The files of an include that lie here: beside the file, or the /etc/nginx that was copied beside it."""
        if re.search(r"mime\.types|fastcgi_params|modules", pattern):
            return []
        near = pattern.removeprefix("/etc/nginx/") if pattern.startswith("/etc/nginx/") else pattern
        folder, wanted = posixpath.split(posixpath.join(by.folder, near))
        names = self._files.listing(folder) or ()
        found = (self._source(posixpath.join(folder, name)) for name in names if fnmatch(name, wanted))
        return [source for source in found if source is not None]

    def _directives(self, source: Source) -> tuple[Directive, ...] | None:
        if source.path not in self._nginx:
            if any(problem.file == source.path for problem in self._problems):
                return None
            try:
                self._nginx[source.path] = parse_nginx(source)
            except BadDocument as error:
                line, _, problem = str(error).removeprefix("line ").partition(": ")
                self._unreadable(source, int(line), problem)
                return None
        if not source.fixable:  # a template with its variables filled in
            return parse_nginx(source)
        return self._nginx[source.path]

    def _with_service(self, config: NginxConfig, service: Service) -> NginxConfig:
        version = service.image.version if service.image is not None else None
        newest = service.image is not None and version is None and service.image.digest is None
        return replace(config, service=service, version=version, newest=newest and service.image.path != "")  # type: ignore[union-attr]

    def _standing_alone(self, taken: set[str]) -> Iterator[NginxConfig]:
        """Configurations that no service mounts: whole files, and the fragments of one folder together."""
        whole = {path: listed for path, listed in self._nginx.items() if path not in taken and _is_whole(listed)}
        included: set[str] = set(taken)
        live = tag_version(self._asked.host.nginx_version) if self._asked.host is not None else None
        for path, listed in whole.items():
            joined = with_includes(listed, self._include, (path,))
            config = _config(self._sources[path], joined, fragment=False)
            included |= {source.path for source in config.sources if source.path != path}
            yield replace(config, version=live)
        folders: dict[str, list[str]] = {}
        for path in self._nginx:
            if path not in whole and path not in included:
                folders.setdefault(self._sources[path].folder, []).append(path)
        for paths in folders.values():
            joined = tuple(
                directive for path in paths for directive in with_includes(self._nginx[path], self._include, (path,))
            )
            yield replace(_config(self._sources[paths[0]], joined, fragment=True), version=live)


_TOLD_BY = re.compile(
    r'^\s*[{"]*(services|apiVersion|static_resources|replicas|applications|HostConfig|architectures|model_type)"?\s*:',
    re.MULTILINE,
)


def _is_worth_reading(source: Source) -> bool:
    """Whether a YAML or JSON file met on a walk can be one of ours; reading a large one takes seconds."""
    if not source.name.endswith((".yaml", ".yml", ".json")) or "compose" in source.name:
        return True
    return len(source.text) < 10**6 and _TOLD_BY.search(source.text) is not None


def _listed_objects(document: Node) -> tuple[Node, ...]:
    """The objects of Kubernetes' `kind: List`, or the one object itself."""
    items = document.get("items") if document.string("kind") == "List" else None
    return items.items if items is not None else (document,)


def _is_whole(directives: Sequence[Directive]) -> bool:
    return any(directive.name in {"http", "events", "stream"} for directive in directives)


def _config(source: Source, directives: tuple[Directive, ...], *, fragment: bool) -> NginxConfig:
    config = NginxConfig(source=source, directives=directives, fragment=fragment)
    sources = tuple(dict.fromkeys((source, *(directive.source for directive in config.walk()))))
    return replace(config, sources=sources)


def _filled_template(source: Source, service: Service) -> Source:
    """An nginx template of the image's envsubst step, the service's variables filled in."""
    if not source.name.endswith(".template"):
        return source
    known = {name: setting.value for name, setting in service.environment.items() if setting.value is not None}
    text = re.sub(r"\$\{(\w+)\}", lambda match: known.get(match[1], match[0]), source.text)
    return source if text == source.text else Source(source.path, text, fixable=False)


def _outermost(projects: Sequence[Project]) -> Iterator[Project]:
    """The projects less those that another one includes."""
    files = [{source.path for source in project.sources} for project in projects]
    for project, mine in zip(projects, files, strict=True):
        if not any(mine < theirs for theirs in files):
            yield project


def _chains(roots: Sequence[Node]) -> Iterator[list[Node]]:
    """Base files with what is laid over them: `X.override.yaml`, and files that only add to services of the base."""
    bases = [root for root in roots if not _is_override(root) and not _is_partial(root, roots)]
    overrides = [root for root in roots if _is_override(root)]
    additions = [root for root in roots if root not in bases and root not in overrides]
    if not bases:
        bases, overrides, additions = [*overrides, *additions], [], []
    for base in bases:
        laid = [root for root in overrides if _stem(root).startswith(_stem(base)) or len(bases) == 1]
        own = [root for root in additions if _adds_to(root, base)]
        for extra in [[root] for root in own] or [[]]:
            yield [base, *laid, *extra]


def _stem(root: Node) -> str:
    return re.sub(r"(\.override)?\.ya?ml$", "", root.source.name)


def _is_override(root: Node) -> bool:
    return ".override." in root.source.name


def _is_partial(root: Node, roots: Sequence[Node]) -> bool:
    listed = root.get("services")
    services = [value for _, value in listed.pairs()] if listed is not None else []
    if not services or any(value.get("image") or value.get("build") or value.get("extends") for value in services):
        return False
    return any(_adds_to(root, other) for other in roots if other is not root)


def _adds_to(root: Node, base: Node) -> bool:
    mine, theirs = root.get("services"), base.get("services")
    return mine is not None and theirs is not None and set(mine.entries) <= set(theirs.entries)


def _kind(name: str | None) -> GpuKind | None:
    return find_gpu(name) if name else None


def redirecting_bridges(text: str) -> list[str]:
    """The PCI bridges whose ACS sends peer traffic up to the root port, of `lspci -vvv`."""
    made, device = [], ""
    for line in text.splitlines():
        if re.match(r"^[0-9a-f]{2,4}:", line):
            device = line.split()[0]
        elif "ACSCtl:" in line and "ReqRedir+" in line:
            made.append(device)
    return made
