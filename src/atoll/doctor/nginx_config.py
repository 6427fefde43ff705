"""nginx configurations as the checks see them: inheritance, upstreams, places that proxy."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from atoll.doctor.compose import Service
from atoll.doctor.leads import Signs
from atoll.doctor.nginx import Directive
from atoll.doctor.tree import Source
from atoll.doctor.vllm import Version


@dataclass(frozen=True, kw_only=True, eq=False)
class Server:
    """One `server host:port params;` of an upstream."""

    host: str
    port: int | None  # None when none is written: 80
    params: tuple[str, ...]
    directive: Directive

    def param(self, name: str) -> str | None:
        """The value of name=value; None when it is not there."""
        return next((text.partition("=")[2] for text in self.params if text.startswith(f"{name}=")), None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Upstream:
    name: str
    directive: Directive

    @cached_property
    def servers(self) -> tuple[Server, ...]:
        return tuple(_server(directive) for directive in self.directive.children("server") if directive.args)

    def value(self, name: str) -> str | None:
        found = self.directive.child(name)
        return found.arg if found is not None else None

    def has(self, name: str) -> bool:
        return self.directive.child(name) is not None


def _server(directive: Directive) -> Server:
    host, port = split_host(directive.arg)
    return Server(host=host, port=port, params=directive.args[1:], directive=directive)


def split_host(text: str) -> tuple[str, int | None]:
    """`vllm-0:8000` is ("vllm-0", 8000); a missing or variable port is None."""
    if text.startswith("unix:"):
        return "unix", None
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.*))?", text)
    if found is None:
        return text, None
    port = found[2]
    return found[1], int(port) if port and port.isdecimal() else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Location:
    """A place that proxies: the innermost block that holds a proxy_pass, with the blocks around it."""

    directive: Directive  # the location (or if, limit_except) block
    proxy_pass: Directive
    around: tuple[Directive, ...]  # http, server, outer locations: outermost first
    config: "NginxConfig"

    @cached_property
    def path(self) -> str:
        """The location's path, without its modifier."""
        place = next(
            (block for block in (self.directive, *reversed(self.around)) if block.name == "location"), self.directive
        )
        return place.args[-1] if place.args else ""

    @property
    def modifier(self) -> str:
        return self.directive.args[0] if len(self.directive.args) > 1 else ""

    def find(self, name: str) -> Directive | None:
        """The directive in effect here: its own, else that of the nearest block around it."""
        for block in (self.directive, *reversed(self.around)):
            found = block.child(name)
            if found is not None:
                return found
        return self.config.top.get(name)

    def value(self, name: str, default: str) -> str:
        found = self.find(name)
        return found.arg if found is not None else default

    def headers(self) -> dict[str, str]:
        """The proxy_set_header lines in effect: those of the innermost block that has any."""
        for block in (self.directive, *reversed(self.around)):
            found = block.children("proxy_set_header")
            if found:
                return {line.arg.lower(): line.args[1] for line in found if len(line.args) > 1}
        return {}

    @cached_property
    def target(self) -> tuple[str, str, int | None, str]:
        """Scheme, host (or upstream's name), port and URI part of proxy_pass; the URI is empty when there is none."""
        variable = re.match(r"^(\$\w+|\$\{\w+\})([/$].*)?$", self.proxy_pass.arg)
        if variable is not None:
            return "http", f"${variable[1].strip('${}')}", None, variable[2] or ""
        found = re.match(r"^(https?|grpcs?)://(\$\{?\w+\}?[^/$]*|[^/$]*)([/$].*)?$", self.proxy_pass.arg)
        if found is None:
            return "", "", None, ""
        host, port = split_host(found[2])
        return found[1], host, port, found[3] or ""

    @cached_property
    def upstream(self) -> Upstream | None:
        """The upstream{} behind it; of a variable's values the one that all name."""
        host, known = self.target[1], self.config.upstreams
        if not host.startswith("$"):
            return known.get(host)
        named = {value for value, _ in self.config.variable_values(host, self)}
        return known.get(next(iter(named))) if len(named) == 1 else None

    @cached_property
    def hosts(self) -> tuple[tuple[str, int | None], ...]:
        """Every host and port behind it."""
        if self.upstream is not None:
            return tuple((server.host, server.port or 80) for server in self.upstream.servers)
        scheme, host, port, _ = self.target
        usual = port or (443 if scheme in {"https", "grpcs"} else 80)
        if host.startswith("$"):
            return self.config.variable_hosts(host, self, usual)
        return ((host, usual),) if host else ()

    @cached_property
    def signs(self) -> Signs:
        """What shows where it leads, when no service that was read is there."""
        names = (self.target[1], *(host for host, _ in self.hosts), self.path)
        source = self.directive.source
        streams = self.value("proxy_buffering", "on") == "off"
        text = f"{source.path}\n{source.text}"
        return Signs(
            names=names, addresses=self.hosts, path=self.path, uri=self.target[3], text=text, streams=streams
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class NginxConfig:
    """One nginx: its whole configuration with the includes in place.

    `fragment` is a file for conf.d: what stands around it is the image's (or the distribution's) nginx.conf.
    """

    source: Source
    directives: tuple[Directive, ...]
    version: Version | None = None  # None: not known; `newest` then tells whether an unpinned image is meant
    newest: bool = False
    service: Service | None = None
    fragment: bool = False
    mounted_as_main: bool = False  # at /etc/nginx/nginx.conf
    sources: tuple[Source, ...] = field(default_factory=tuple)

    @cached_property
    def http(self) -> Directive | None:
        return next((directive for directive in self.directives if directive.name == "http"), None)

    @property
    def http_children(self) -> tuple[Directive, ...]:
        return self.directives if self.fragment else (self.http.block or () if self.http is not None else ())

    @cached_property
    def top(self) -> dict[str, Directive]:
        """What stands at http level of a fragment."""
        return {directive.name: directive for directive in self.directives} if self.fragment else {}

    def main(self, name: str) -> Directive | None:
        return next((directive for directive in self.directives if directive.name == name), None)

    @cached_property
    def upstreams(self) -> dict[str, Upstream]:
        return {
            directive.arg: Upstream(name=directive.arg, directive=directive)
            for directive in self.http_children
            if directive.name == "upstream" and directive.args
        }

    @cached_property
    def locations(self) -> tuple[Location, ...]:
        around = () if self.http is None or self.fragment else (self.http,)
        return tuple(self._proxied(self.http_children, around))

    def _proxied(self, directives: Sequence[Directive], around: tuple[Directive, ...]) -> Iterator[Location]:
        for directive in directives:
            if directive.block is None or directive.name == "upstream":
                continue
            passing = directive.child("proxy_pass")
            if passing is not None:
                yield Location(directive=directive, proxy_pass=passing, around=around, config=self)
            yield from self._proxied(directive.block, (*around, directive))

    def walk(self) -> Iterator[Directive]:
        yield from _walk(self.directives)

    def variable_hosts(self, variable: str, place: Location, usual: int) -> tuple[tuple[str, int | None], ...]:
        """The hosts behind a variable, upstreams resolved; `usual` is the port where none is named."""
        hosts = self.variable_values(variable, place)
        return tuple(
            (server.host, server.port or 80)
            for host, _ in hosts
            if host in self.upstreams
            for server in self.upstreams[host].servers
        ) or tuple((host, port or usual) for host, port in hosts if host)

    def variable_values(self, variable: str, place: Location) -> list[tuple[str, int | None]]:
        """Host and port of `set $up http://vllm:8000;`, or of each value of a map."""
        name = variable.split(":", maxsplit=1)[0]
        values = [
            line.args[1]
            for block in (place.directive, *place.around)
            for line in block.children("set")
            if len(line.args) > 1 and line.arg == name
        ]
        for table in (directive for directive in self.http_children if directive.name == "map"):
            if table.args[1:] == (name,):
                values += [line.arg for line in table.block or ()]
        return [split_host(re.sub(r"^https?://", "", value).split("/")[0]) for value in values]

    @property
    def modern(self) -> bool:
        """HTTP/1.1 to upstreams and their keepalive on by default: nginx 1.29.7 and later."""
        return self.newest or (self.version is not None and _whole(self.version) >= (1, 29, 7))

    @property
    def resolves_upstreams(self) -> bool:
        """`server NAME resolve` in upstreams is free since 1.27.3."""
        return self.version is None or _whole(self.version) >= (1, 27, 3)

    @property
    def several_workers(self) -> bool:
        found = self.main("worker_processes")
        if found is None:
            return self.fragment  # the image's and the distributions' nginx.conf say auto
        return found.arg != "1"

    @property
    def worker_connections(self) -> tuple[int, Directive | None]:
        """How many, and where it is written; 512 is nginx's own default, 1024 that of the image's file."""
        events = self.main("events")
        found = events.child("worker_connections") if events is not None else None
        if found is None or not found.arg.isdecimal():
            return (1024 if self.fragment else 512), None
        return int(found.arg), found


def _whole(version: Version) -> Version:
    """A tag of two numbers (`nginx:1.27`) is the last release of that line."""
    return version if len(version) > 2 else (*version, 99)


def _walk(directives: Sequence[Directive]) -> Iterator[Directive]:
    for directive in directives:
        yield directive
        yield from _walk(directive.block or ())
