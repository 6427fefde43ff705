"""Facts: all that the checks look at, frozen."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from atoll.doctor.compose import Project, Service
from atoll.doctor.door import Backend, Door
from atoll.doctor.finding import Finding, Unread
from atoll.doctor.leads import Lead, Signs, judge
from atoll.doctor.nginx_config import Location, NginxConfig
from atoll.doctor.tree import Node, Source
from atoll.doctor.vllm import VllmCommand
from atoll.errors import UnknownGpu
from atoll.inventory.box import Box
from atoll.inventory.catalog import GpuKind, find_gpu
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.traffic.workload import Arrivals, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What the asker says of the traffic; None where nothing was said."""

    users: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    itl_s: float = 0.05  # seconds per output token of a busy engine, to turn tokens into an answer's length
    shared_prefix: float | None = None  # part of a prompt that all share, 0 to 1

    def or_else(self, written: Workload | None) -> "Load":
        """The same, and what the asker left out as a layout's `workload` says it: its mean lengths."""
        if written is None:
            return self
        lengths = {} if written.arrivals is Arrivals.TRACE else _lengths_of(written)
        said = {"users": written.users, **lengths}
        missing = {name: value for name, value in said.items() if getattr(self, name) is None}
        return replace(self, **missing)

    @property
    def answer_s(self) -> float | None:
        return self.output_tokens * self.itl_s if self.output_tokens is not None else None


def _lengths_of(written: Workload) -> dict[str, Any]:
    prompt, output = written.prompt.mean, written.output.mean
    shared = min(1.0, written.shared_prefix_tokens / prompt)
    return {"prompt_tokens": round(prompt), "output_tokens": round(output), "shared_prefix": shared or None}


@dataclass(frozen=True, kw_only=True)
class Host:
    """What only the machine itself tells (`--live`); None where it was not asked or gave no answer."""

    networks: frozenset[str] | None = None  # of `docker network ls`
    runtimes: frozenset[str] | None = None  # of `docker info`
    nginx_version: str | None = None
    acs_redirect: tuple[str, ...] | None = None  # PCI bridges with ACSCtl ReqRedir+, of `lspci -vvv`


@dataclass(frozen=True, kw_only=True)
class ServedEngine:
    """A vLLM service with its command and, where known, its model."""

    service: Service
    command: VllmCommand
    card: ModelCard | None

    @property
    def name(self) -> str:
        return self.service.name

    @property
    def release_told(self) -> bool:
        """Whether the image says which release it carries, by its tag or as vLLM's own newest.

        Elsewhere no rule about what a release has or lacks holds.
        """
        image = self.service.image
        return self.command.version_known or (image is not None and image.newest_engine)

    @property
    def doubt(self) -> str | None:
        """What a fix that hangs on the release may change, where the image does not name it for certain; else None."""
        image = self.service.image
        if image is not None and image.by_default:
            return f"The image's tag is only a variable's default. If another release is set, {_MAY}"
        return None if self.command.version_known else f"The image names no release. If an older vLLM runs, {_MAY}"


_MAY = "it may need what goes or refuse what comes."

# Names of what stands before vLLM with a UI and routes of its own.
_ROUTER = re.compile(r"litellm|router|gateway|proxy|webui|kong|traefik|portkey|bifrost|higress|apisix", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Route:
    """An nginx location that leads to a language model, and the services behind it that we have seen."""

    location: Location
    services: tuple[Service, ...]

    @property
    def config(self) -> NginxConfig:
        return self.location.config

    @cached_property
    def engines(self) -> tuple[Service, ...]:
        return tuple(service for service in self.services if service.vllm is not None)

    @cached_property
    def generates(self) -> bool:
        """Whether answers are made here: not at an exact path such as `= /health` or `= /v1/models`."""
        exact = self.location.modifier == "="
        return not exact or bool(re.search(r"completions|generate|responses|chat|messages", self.location.path))

    @cached_property
    def to_vllm(self) -> bool:
        """Whether it leads to vLLM: by the services seen, or by its names when there are none."""
        if self.services:
            return bool(self.engines)
        names = (self.location.target[1], *(host for host, _ in self.location.hosts))
        if any(_ROUTER.search(name) for name in names) or any(port == 4000 for _, port in self.location.hosts):
            return False
        return any("vllm" in name.lower() for name in names) or self.location.path.startswith("/v1")


@dataclass(frozen=True, kw_only=True)
class Facts:
    sources: Mapping[str, Source] = field(default_factory=dict)
    projects: tuple[Project, ...] = ()
    nginx: tuple[NginxConfig, ...] = ()
    manifests: tuple[Node, ...] = ()  # Kubernetes objects
    haproxy: tuple[Source, ...] = ()
    envoy: tuple[Node, ...] = ()
    doors: tuple[Door, ...] = ()  # all but nginx
    ray: tuple[Node, ...] = ()  # Ray Serve configurations
    layouts: tuple[tuple[Source, Layout], ...] = ()
    box: Box | None = None
    box_source: Source | None = None
    any_kind: GpuKind | None = None  # the kind of every GPU, when only its name was given
    cards: Mapping[str, ModelCard] = field(default_factory=dict)  # model as named in a command -> card
    load: Load = Load()
    host: Host | None = None
    problems: tuple[Finding, ...] = ()  # what could not be read
    looked_at: Mapping[str, str] = field(default_factory=dict)  # path -> what it was understood as
    not_understood: tuple[Unread, ...] = ()
    not_entered: tuple[str, ...] = ()  # names of folders that hold other people's things: .git, node_modules

    @cached_property
    def services(self) -> tuple[Service, ...]:
        return tuple(service for project in self.projects for service in project.services)

    @cached_property
    def engines(self) -> tuple[ServedEngine, ...]:
        return tuple(
            ServedEngine(service=service, command=service.vllm, card=self.cards.get(service.vllm.model or ""))
            for service in self.services
            if service.vllm is not None
        )

    def project_of(self, service: Service) -> Project:
        return self._projects[id(service)]

    @cached_property
    def _projects(self) -> dict[int, Project]:
        return {id(service): project for project in self.projects for service in project.services}

    def box_of(self, service: Service) -> Box | None:
        """The box that a service runs on: its layout's when one lies beside it, else the one that was given."""
        folder = service.node.source.folder
        beside = [layout.box for source, layout in self.layouts if source.folder == folder]
        return beside[0] if beside else self.box

    def layout_beside(self, path: str) -> Layout | None:
        """The layout that a file of a rendered bundle was made of, or that the file itself holds."""
        folder = path.rpartition("/")[0]
        here = [layout for source, layout in self.layouts if source.path.rpartition("/")[0] == folder]
        own = [layout for source, layout in self.layouts if source.path == path]
        return next(iter([*own, *here]), None)

    def load_at(self, path: str) -> Load:
        """The load of the engines in this file: what the asker says, else what their layout carries."""
        layout = self.layout_beside(path)
        return self.load.or_else(layout.workload if layout is not None else None)

    def kind_at(self, box: Box | None, gpu: int) -> GpuKind | None:
        """The kind of one GPU of a box; None when neither box nor asker names it."""
        named = next((card.name for card in box.gpus if card.index == gpu), None) if box is not None else None
        try:
            return find_gpu(named) if named is not None else self.any_kind
        except UnknownGpu:
            return self.any_kind

    def kind_of(self, service: Service) -> GpuKind | None:
        """The kind of the GPUs that a service gets; None when not known or mixed."""
        box, gpus = self.box_of(service), self.gpus_of(service)
        indices = gpus if gpus is not None else box.indices if box is not None else ()
        kinds = {self.kind_at(box, gpu) for gpu in indices} if indices else {self.any_kind}
        return next(iter(kinds)) if len(kinds) == 1 else None

    def gpus_of(self, service: Service) -> tuple[int, ...] | None:
        """The host GPUs that a service gets; None when the files do not tell."""
        request, box = service.gpus, self.box_of(service)
        if request is None:
            return None
        if request.indices is not None:
            return request.indices
        if box is None or request.allotted:
            return None
        if request.ids is not None:
            return _by_uuid(box, request.ids)
        if request.count is None:
            return None
        return box.indices if request.all else box.indices[: request.count]  # Docker gives the first ones

    def gpu_names(self, service: Service) -> tuple[str, ...]:
        """The GPUs that a service names: host numbers where the box knows its UUIDs; none for a count."""
        request = service.gpus
        if request is None or request.ids is None:
            return ()
        numbers = self.gpus_of(service)
        return tuple(map(str, numbers)) if numbers is not None else request.ids

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The nginx locations that lead to a language model."""
        found = [self._route(location) for location in self.locations]
        return tuple(route for route in found if route is not None)

    @property
    def locations(self) -> Iterator[Location]:
        """The places of all nginx that proxy."""
        return (location for config in self.nginx for location in config.locations)

    def _route(self, location: Location) -> Route | None:
        if self.lead_of(location) is not Lead.MODEL:
            return None
        reached = dict.fromkeys(self._reached(location))
        return Route(location=location, services=tuple(service for service in reached if service.serves_llm))

    def lead_of(self, location: Location) -> Lead:
        """What a location leads to: by the services that it reaches, else by what it shows."""
        reached = list(self._reached(location))
        if reached:
            return Lead.MODEL if any(service.serves_llm for service in reached) else Lead.OTHER
        return judge(location.signs, self._engine_ports)

    def lead_of_backend(self, door: Door, backend: Backend) -> Lead:
        """The same of one address of another door."""
        service = self.behind(door, backend)
        if service is not None:
            return Lead.MODEL if service.serves_llm else Lead.OTHER
        if door.kind == "LiteLLM":
            return Lead.MODEL
        source = door.node.source
        names = (backend.host, source.line(door.node.line), source.line(backend.node.line), *door.names)
        text = f"{source.path}\n{source.text}"
        signs = Signs(
            names=names, addresses=((backend.host, backend.port),), path=door.path, uri=backend.path, text=text,
            streams=door.streams,
        )  # fmt: skip
        return judge(signs, self._engine_ports)

    @cached_property
    def _engine_ports(self) -> frozenset[int]:
        """The ports of their hosts at which the engines answer."""
        engines = [service for service in self.services if service.serves_llm]
        published = {number for service in engines for port in service.ports for number in port.hosts()}
        own = {one.listen_port for one in engines if one.host_network or one.on_host}
        return frozenset(number for number in published | own if number is not None)

    def _reached(self, location: Location) -> Iterator[Service]:
        for host, port in location.hosts:
            for project in self.neighbours(location.config):
                service = _by_name(project, host) or _by_published_port(project, host, port)
                if service is not None:
                    yield service

    def projects_around(self, source: Source) -> tuple[Project, ...]:
        """The projects that a door's file may lead to: those whose files lie around it."""
        if len(self.projects) < 2:
            return self.projects
        own = [project for project in self.projects if source in project.sources]
        around = [p for p in self.projects if _is_around(p.sources[0].folder, source.folder)]
        return tuple(own or around)

    def behind(self, door: Door, backend: Backend) -> Service | None:
        """The service that a door asks there, where it is among these files."""
        for project in self.projects_around(door.node.source):
            service = _by_name(project, backend.host) or _by_published_port(project, backend.host, backend.port)
            if service is not None:
                return service
        return None

    def neighbours(self, config: NginxConfig) -> tuple[Project, ...]:
        """The projects whose services an nginx may reach: its own, else those whose files lie around it."""
        if config.service is not None:
            return (self.project_of(config.service),)
        if len(self.projects) < 2:
            return self.projects
        folder = config.source.folder
        return tuple(project for project in self.projects if _is_around(project.sources[0].folder, folder))

    def routes_to(self, service: Service) -> tuple[Route, ...]:
        return tuple(route for route in self.routes if service in route.services)

    @cached_property
    def answering(self) -> tuple[Route, ...]:
        """Those at which answers are made."""
        return tuple(route for route in self.routes if route.generates)

    @cached_property
    def upstream_routes(self) -> tuple[Route, ...]:
        """One route for each upstream{} that leads to a language model."""
        by_upstream = {id(route.location.upstream): route for route in self.answering if route.location.upstream}
        return tuple(by_upstream.values())

    def model_of(self, service: Service) -> ModelCard | None:
        return self.cards.get(service.vllm.model or "") if service.vllm is not None else None


def _by_uuid(box: Box, ids: tuple[str, ...]) -> tuple[int, ...] | None:
    known = {gpu.uuid: gpu.index for gpu in box.gpus if gpu.uuid is not None}
    found = tuple(known[name] for name in ids if name in known)
    return found if len(found) == len(ids) else None


def _is_around(outer: str, inner: str) -> bool:
    return outer in {inner, "."} or inner.startswith(f"{outer}/") or outer.startswith(f"{inner}/")


def is_this_machine(host: str) -> bool:
    """Whether a name or address is that of the host, as containers and its own programs call it."""
    ours = r"127\.\d+\.\d+\.\d+|localhost|host\.docker\.internal|172\.17\.0\.1|0\.0\.0\.0"
    return re.fullmatch(ours, host) is not None


def _by_name(project: Project, host: str) -> Service | None:
    """The service of that name; in a cluster `llm.team.svc.cluster.local` and `llm.team.svc` are llm."""
    return project.service(host) or project.service(re.sub(r"\.[a-z0-9-]+\.svc(\..+)?$", "", host))


def _by_published_port(project: Project, host: str, port: int | None) -> Service | None:
    if not is_this_machine(host):
        return None
    for service in project.services:
        if any(port in published.hosts() for published in service.ports):
            return service
        if (service.host_network or service.on_host) and service.listen_port == port:
            return service
    return None
