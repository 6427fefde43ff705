"""Compose projects of the files that make them: overrides, `include`, `extends`, `env_file`, as Compose joins them."""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from atoll.doctor.compose import Project, Service
from atoll.doctor.dockerfiles import Built, read_dockerfile
from atoll.doctor.form import mapping, scalar
from atoll.doctor.inside import Inside, Reader, config_options, inline_source, launched_by_script
from atoll.doctor.parts import Setting, environment_nodes, read_mount
from atoll.doctor.substitution import interpolate
from atoll.doctor.tree import Member, Node, Source

_REPLACED = {"command", "entrypoint", "test"}  # lists that an override replaces; other lists grow

Parse = Callable[[Source, Mapping[str, str]], Node | None]  # (file, variables of its own) -> its tree


def looks_like_compose(root: Node) -> bool:
    services, included = root.get("services"), root.get("include")
    if services is None and included is not None and included.is_list and "compose" in root.source.name:
        return True
    if services is None or not services.is_map or root.get("kind") is not None or root.get("apiVersion") is not None:
        return False
    return all(value.is_map or value.tag == "null" for _, value in services.pairs())


def build_project(name: str, roots: Sequence[Node], read: Reader, parse: Parse) -> Project:
    """One project of a base file and its overrides, in order.

    Args:
        name: what to call it.
        roots: the parsed files, the base first.
        read: gives the files that `include`, `extends` and `env_file` name; None when there is none.
        parse: the tree of such a file; None when it cannot be read.
    """
    whole = roots[0]
    for root in roots[1:]:
        whole = merge(whole, root)
    sources = tuple(dict.fromkeys(root.source for root in roots))
    parts = list(roots)
    for included, found in _included(whole, read, parse):
        whole = merge(included, whole)
        sources = (*sources, *found)
        parts.append(included)
    listed = whole.get("services")
    services = []
    for service_name, entry in (listed.entries if listed is not None else {}).items():
        node = _extended(service_name, whole, read, parse, ())
        if node is not None and node.is_map:
            services.append(_service(name, entry, node, whole, read))
            sources = (*sources, *_extending(entry.value, read))
    unique = tuple(dict.fromkeys(sources))
    return Project(name=name, sources=unique, root=whole, services=tuple(services), roots=tuple(parts))


def _extending(node: Node, read: Reader) -> Iterator[Source]:
    """The file that a service's `extends` names."""
    path = node.string("extends", "file")
    source = read(path, node.source) if path else None
    if source is not None:
        yield source


def _service(project: str, entry: Member, node: Node, root: Node, read: Reader) -> Service:
    built, context = _built(node, read)
    service = Service(
        name=entry.key.raw or "",
        node=_with_image(node, built) if built is not None else node,
        name_node=entry.key,
        project=project,
        env_file=_env_files(node, read),
        unbuilt=context if built is None and node.get("build") is not None else None,
    )
    copied = built.copied if built is not None else {}
    inside = Inside(service=service, root=root, read=read, copied=copied, context=context)
    if service.vllm is None or (service.get("entrypoint") is not None and not service.vllm.program):
        launched = launched_by_script(inside)
        service = replace(service, launched=launched) if launched is not None else service
    path = service.vllm.text("--config") if service.vllm is not None else None
    config = config_options(replace(inside, service=service), path) if path else None
    return replace(service, config=config) if config is not None else service


def _built(node: Node, read: Reader) -> tuple[Built | None, str]:
    """What the Dockerfile of `build:` says, and the folder of its context; else None, and where it should be."""
    build = node.get("build")
    if build is None:
        return None, ""
    context = (build.string("context") if build.is_map else build.text) or "."
    inline = build.get("dockerfile_inline")
    path = posixpath.join(context, build.string("dockerfile") or "Dockerfile")
    source = read(path, build.source)
    if inline is not None:
        source = inline_source(inline)
    if source is None:
        return None, path
    given = {name: item.text or "" for name, item in environment_nodes(build.get("args")).items()}
    arguments = {name: text.removeprefix(f"{name}=") for name, text in given.items()}
    return read_dockerfile(source, arguments, build.string("target")), context


def _with_image(node: Node, built: Built) -> Node:
    """The service as its Dockerfile makes it: the image that it comes from, and what the service itself leaves open."""
    entries = dict(node.entries)
    if built.image is not None:
        entries["image"] = Member(scalar(built.image, "image"), built.image)
    if node.get("entrypoint") is None and built.entrypoint is not None:
        entries["entrypoint"] = Member(scalar(built.entrypoint, "entrypoint"), built.entrypoint)
    if node.get("command") is None and node.get("entrypoint") is None and built.command is not None:
        entries["command"] = Member(scalar(built.command, "command"), built.command)
    if built.environment:
        theirs = mapping(node, dict(built.environment))
        mine = node.get("environment")
        both = theirs if mine is None else replace(merge(theirs, mine, "environment"), style="flow")
        key = entries["environment"].key if mine is not None else scalar(node, "environment")
        entries["environment"] = Member(key, both)
    return replace(node, entries=entries)


def _included(root: Node, read: Reader, parse: Parse) -> Iterator[tuple[Node, tuple[Source, ...]]]:
    listed = root.get("include")
    for item in listed.items if listed is not None else ():
        paths = item.get("path") if item.is_map else item
        whole: Node | None = None
        found: list[Source] = []
        for path in paths.scalars() if paths is not None else ():  # the second and later ones are laid over the first
            source = read(path.text or "", root.source)
            tree = (
                parse(source, _variables_of(item, found[0] if found else source, read)) if source is not None else None
            )
            if tree is not None and source is not None:
                whole = tree if whole is None else merge(whole, tree)
                found.append(source)
        if whole is not None:
            yield whole, tuple(found)


def _variables_of(item: Node, included: Source, read: Reader) -> dict[str, str]:
    """What an included file is filled in with: its `env_file`, else the `.env` of its folder."""
    folder, named = item.string("project_directory"), item.get("env_file")
    entries = (named.items if named.is_list else (named,)) if named is not None else ()
    texts = [(one.string("path") if one.is_map else one.text) or "" for one in entries]
    files = [read(text, item.source) for text in texts if text and text != "/dev/null"]
    if named is None:
        files = [read(posixpath.join(folder, ".env"), item.source) if folder else read(".env", included)]
    made: dict[str, str] = {}
    for file in files:  # a later file counts more, and may use what an earlier one says
        for name, (text, _) in read_env(file).items() if file is not None else ():
            made[name] = interpolate(text, made)
    return made


def _extended(name: str, root: Node, read: Reader, parse: Parse, seen: tuple[str, ...]) -> Node | None:
    node = root.get("services", name)
    extends = node.get("extends") if node is not None else None
    if node is None or extends is None or name in seen or len(seen) > 10:
        return node
    base_name = extends.text if extends.is_scalar else extends.string("service")
    path = extends.string("file") if extends.is_map else None
    source = read(path, extends.source) if path is not None else None
    base_root = root if path is None else parse(source, {}) if source is not None else None
    if base_root is None or not base_name:
        return node
    base = _extended(base_name, base_root, read, parse, (*seen, name) if path is None else (f"{name}@{path}",))
    return node if base is None else merge(base, node)


def _env_files(node: Node, read: Reader) -> dict[str, Setting]:
    listed = node.get("env_file")
    made: dict[str, Setting] = {}
    if listed is None:
        return made
    for item in listed.items or (listed,):
        path = item.string("path") if item.is_map else item.text
        source = read(path, item.source) if path else None
        if source is not None:
            made |= env_settings(source)
    return made


def env_settings(source: Source) -> dict[str, Setting]:
    """The variables of a `.env` file as settings of a service."""
    return {
        name: Setting(name=name, value=value, node=_line_node(source, line))
        for name, (value, line) in read_env(source).items()
    }


def _line_node(source: Source, line: int) -> Node:
    start = source.start(line)
    text = source.line(line)
    return Node(source=source, line=line, start=start, end=start + len(text), tag="str", text=text, raw=text)


def read_env(source: Source) -> dict[str, tuple[str, int]]:
    """The variables of a `.env` file -> value and line."""
    made: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(source.lines, start=1):
        found = re.match(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$", line)
        if found is not None:
            made[found[1]] = (_unquote(found[2]), number)
    return made


def _unquote(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return re.sub(r"\s+#.*$", "", text)


def merge(base: Node, over: Node, key: str = "") -> Node:
    """What Compose makes of a value and its override: mappings join, most lists grow, the rest is replaced."""
    if over.custom == "!override" or over.tag == "null":
        return over if over.custom else base
    if key == "environment":
        base, over = _as_map(base), _as_map(over)
    if base.is_map and over.is_map:
        entries = dict(base.entries)
        for name, entry in over.entries.items():
            if entry.value.custom == "!reset":
                entries.pop(name, None)
            elif name in entries:
                entries[name] = Member(entry.key, merge(entries[name].value, entry.value, name))
            else:
                entries[name] = entry
        return replace(over, entries=entries)
    if base.is_list and over.is_list and key not in _REPLACED:
        return replace(over, items=_joined(base, over, key))
    return over


def _joined(base: Node, over: Node, key: str) -> tuple[Node, ...]:
    if key != "volumes":
        known = {item.text for item in over.items if item.is_scalar}
        return (*(item for item in base.items if not item.is_scalar or item.text not in known), *over.items)
    targets = {mount.target for mount in map(read_mount, over.items) if mount is not None}
    kept = [item for item in base.items if (mount := read_mount(item)) is None or mount.target not in targets]
    return (*kept, *over.items)


def _as_map(node: Node) -> Node:
    if not node.is_list:
        return node
    entries = {name: Member(item, item) for name, item in environment_nodes(node).items()}
    return replace(node, tag="map", items=(), entries=entries)
