"""Fills Facts through the door: reads the files, follows what they name."""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from atoll.doctor.checks import all_rules
from atoll.doctor.checks.files import careless_silence
from atoll.doctor.compose import Project
from atoll.doctor.compose_files import compose_projects
from atoll.doctor.dockerfiles import service_of_dockerfile
from atoll.doctor.door import Door
from atoll.doctor.facts import Facts, Host, Load
from atoll.doctor.files import Files
from atoll.doctor.finding import Unread
from atoll.doctor.gateways import door_of_labels, doors_of_envoy
from atoll.doctor.haproxy import doors_of_haproxy
from atoll.doctor.helm import services_of_values
from atoll.doctor.kubernetes import project_of_manifests
from atoll.doctor.kustomize import is_kustomization, is_patched, is_understood
from atoll.doctor.nginx_files import NginxFiles
from atoll.doctor.ray_serve import ray_projects, serve_configs
from atoll.doctor.recognise import Pile, Recogniser
from atoll.doctor.scripts import STARTS_ENGINE
from atoll.doctor.silence import careless_silences
from atoll.doctor.sources import Sources
from atoll.doctor.tree import Source
from atoll.doctor.units import unit_projects
from atoll.doctor.unknown_ways import unknown_ways
from atoll.doctor.walk import Walk
from atoll.engines.vllm.versions import tag_version
from atoll.errors import InputError
from atoll.inventory.box import Box
from atoll.inventory.catalog import find_gpu
from atoll.model.card import ModelCard


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
    asked, sources = asked or Asked(), Sources(files)
    recogniser, walk = Recogniser(sources), Walk(sources)
    for path in paths:
        names = files.listing(path) if path != "-" else None
        if names is not None:
            for source in walk.over(path, names):
                recogniser.take(source, explicit=False)
        else:
            recogniser.take(_named(path, sources), explicit=True)
    return _join(recogniser.pile, sources, asked)


def _named(path: str, sources: Sources) -> Source:
    """A file that was named on the command line: what may not be read, or is not there, is a fault of the command."""
    if path != "-":
        sources.files.read(posixpath.normpath(path))
        sources.roots |= {sources.files.identity(path), sources.files.identity(posixpath.dirname(path) or ".")}
    source = sources.source(path)
    if source is None:
        raise InputError(f"There is no file or folder {path}.")
    return source


def _join(pile: Pile, sources: Sources, asked: Asked) -> Facts:
    charts = [service for root in pile.values for service in services_of_values(root)]
    cluster = project_of_manifests(pile.manifests, charts)
    pile.ray += serve_configs(pile.manifests)
    composed = tuple(compose_projects(pile.compose, sources))
    kept = tuple(unit_projects(pile.units, sources))
    projects = (
        *_not_called(pile.projects, composed, kept),
        *composed,
        *kept,
        *_built_alone(pile.dockerfiles, sources),
        *([cluster] if cluster is not None else []),
        *ray_projects(pile.ray),
    )
    _say_where_no_engine_was_found(pile, projects, sources)
    _say_what_is_built_elsewhere(projects, sources)
    sources.partly += _programs_that_are_not_known(projects)
    live = tag_version(asked.host.nginx_version) if asked.host is not None else None
    nginx = tuple(NginxFiles(sources, pile.nginx, live).configs(projects))
    _look_for_careless_silences(sources)
    facts = Facts(
        sources=dict(sources.by_path),
        projects=projects,
        nginx=nginx,
        manifests=tuple(pile.manifests),
        haproxy=tuple(pile.haproxy),
        envoy=tuple(pile.envoy),
        ray=tuple(pile.ray),
        doors=tuple(_doors(pile, projects)),
        layouts=tuple(pile.layouts),
        box=_box(pile, asked),
        box_source=pile.box[0] if pile.box is not None else None,
        any_kind=find_gpu(asked.gpu) if asked.gpu else None,
        load=asked.load,
        host=_host(pile, asked),
        problems=tuple(sources.problems),
        looked_at={path: kind for path, kind in sources.read_as.items() if path not in sources.unread},
        not_understood=(*sources.unread.values(), *sources.partly),
        not_entered=tuple(sources.not_entered),
    )
    unknown = (*facts.not_understood, *unknown_ways(facts))
    return replace(facts, cards=_find_cards(facts, pile, asked), not_understood=unknown)


def _doors(pile: Pile, projects: Sequence[Project]) -> Iterator[Door]:
    yield from pile.doors
    for source in pile.haproxy:
        yield from doors_of_haproxy(source)
    for root in pile.envoy:
        yield from doors_of_envoy(root)
    for service in (service for project in projects for service in project.services):
        door = door_of_labels(service)
        yield from [door] if door is not None else []


def _not_called(projects: Sequence[Project], composed: Sequence[Project], kept: Sequence[Project]) -> Iterator[Project]:
    """Those of the scripts that no container or unit runs: one that does is read there, with what reaches it."""
    launched = (service.launched for project in composed for service in project.services)
    called = {word.file for command in launched if command is not None for word in command.program}
    called |= {service.file for project in kept for service in project.services}
    return (one for one in projects if one.origin != "script" or one.sources[0].path not in called)


def _built_alone(dockerfiles: Sequence[Source], sources: Sources) -> Iterator[Project]:
    """The engines of Dockerfiles that no Compose file builds."""
    for source in dockerfiles:
        service = service_of_dockerfile(source) if source.path not in sources.read_as else None
        if service is not None:
            root = service.node
            yield Project(name=source.path, sources=(source,), root=root, services=(service,), origin="script")
        elif source.path not in sources.read_as:
            sources.not_understood(source.path, "builds an engine whose command was not found")
            continue
        sources.understood(source, "Dockerfile")


# Argo CD, Flux, k3s: they name a chart and give it values.
_BROUGHT_BY_A_CHART = {"Application", "ApplicationSet", "HelmRelease", "HelmChart", "HelmChartConfig"}


def _say_where_no_engine_was_found(pile: Pile, projects: Sequence[Project], sources: Sources) -> None:
    """Manifests and values that name an engine of which no command was found: overlays, formats of others."""
    found = {service.name_node.file for project in projects for service in project.services}
    for node in (*pile.manifests, *pile.values):
        if is_kustomization(node) and is_understood(node, pile.manifests, found):
            continue
        kind = node.string("kind") or sources.read_as.get(node.file, "file")
        if is_kustomization(node) and is_patched(node):
            sources.not_understood(node.file, "a kustomization; what it patches is not put in")
        elif kind in _BROUGHT_BY_A_CHART:
            sources.not_understood(node.file, f"{kind}, whose chart is not here")
        elif node.file not in found and STARTS_ENGINE.search(node.source.text[node.start : node.end]):
            sources.not_understood(node.file, f"{kind} that names an engine, of which no command was found")


def _say_what_is_built_elsewhere(projects: Sequence[Project], sources: Sources) -> None:
    """An engine's image that is built of what does not lie here, or that shows no command."""
    for service in (service for project in projects for service in project.services):
        if service.unbuilt is not None and (service.gpus is not None or service.serves_llm):
            path = posixpath.normpath(posixpath.join(service.node.source.folder, service.unbuilt))
            sources.not_understood(path, f"the image of {service.name} is built of it, and it is not here")


def _programs_that_are_not_known(projects: Sequence[Project]) -> Iterator[Unread]:
    """Services that take GPUs, and of which no rule knows what they run; vLLM's images started by what is not here."""
    for service in (service for project in projects for service in project.services):
        if service.kind == "vllm" and service.vllm is None and service.unbuilt is None:
            yield Unread(file=service.file, why=f"how {service.name} starts vLLM was not found")
        if service.kind == "other" and service.requested_gpus is not None and service.unbuilt is None:
            name = service.image.text if service.image is not None else "without an image"
            yield Unread(file=service.file, why=f"{service.name} takes GPUs; what {name} runs is not known")


def _look_for_careless_silences(sources: Sources) -> None:
    rules = tuple(rule.id for rule in all_rules())
    for source in tuple(sources.by_path.values()):
        for line, problem in careless_silences(source, rules):
            sources.problem(source, line, careless_silence, problem)


def _box(pile: Pile, asked: Asked) -> Box | None:
    box = pile.box[1] if pile.box is not None else asked.box
    return pile.layouts[0][1].box if box is None and len(pile.layouts) == 1 else box


def _host(pile: Pile, asked: Asked) -> Host | None:
    if pile.acs is None:
        return asked.host
    return replace(asked.host or Host(), acs_redirect=tuple(pile.acs))


def _find_cards(facts: Facts, pile: Pile, asked: Asked) -> dict[str, ModelCard]:
    named = {engine.command.model for engine in facts.engines} | {layout.model for _, layout in facts.layouts}
    alone = len(named) == 1
    made: dict[str, ModelCard] = {}
    for name in named:
        given = pile.config_cards[0] if alone and pile.config_cards else None
        card = given or (asked.find_card(name) or (asked.model if alone else None) if name else None)
        if card is not None and name:
            made[name] = card
    return made
