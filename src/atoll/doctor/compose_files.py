"""The Compose projects that the files make: a base, what is laid over it, and the variables beside it."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from atoll.doctor.assemble import build_project, read_env
from atoll.doctor.compose import Project
from atoll.doctor.sources import Sources
from atoll.doctor.substitution import interpolate
from atoll.doctor.tree import Node, Source


def compose_projects(compose: Sequence[Source], sources: Sources) -> Iterator[Project]:
    """The projects of all Compose files, less those that another one includes."""
    yield from _outermost(list(_all_projects(compose, sources)))


def _all_projects(compose: Sequence[Source], sources: Sources) -> Iterator[Project]:
    folders: dict[str, list[Source]] = {}
    for source in compose:
        folders.setdefault(source.folder, []).append(source)
    for folder, listed in folders.items():
        variables = _variables(folder, sources)
        roots = [root for source in listed if (root := sources.tree(source, variables)) is not None]
        for chain in _chains(roots):
            yield build_project(chain[0].source.path, chain, sources.near, partial(_parsed, sources, variables))


def _parsed(sources: Sources, mine: Mapping[str, str], source: Source, its_own: Mapping[str, str]) -> Node | None:
    """A file that is included: the project's variables count more than its own."""
    return sources.tree(source, {**its_own, **mine})


def _variables(folder: str, sources: Sources) -> dict[str, str]:
    source = sources.source(posixpath.join(folder, ".env"))
    made: dict[str, str] = {}
    for name, (value, _) in read_env(source).items() if source is not None else ():
        made[name] = interpolate(value, made)  # `IMAGE=vllm/vllm-openai:${TAG}` after TAG
    return made


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
