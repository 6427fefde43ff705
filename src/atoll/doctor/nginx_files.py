"""The nginx configurations that the files make: those that services mount, and those that stand alone."""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch

from atoll.doctor.compose import Project, Service
from atoll.doctor.inside import Inside
from atoll.doctor.nginx import Directive, parse_nginx, with_includes
from atoll.doctor.nginx_config import NginxConfig
from atoll.doctor.sources import Sources
from atoll.doctor.tree import Source
from atoll.doctor.vllm import Version
from atoll.errors import BadDocument


class NginxFiles:
    """The parsed files, joined as nginx would join them."""

    def __init__(self, sources: Sources, parsed: dict[str, tuple[Directive, ...]], live: Version | None) -> None:
        self._sources, self._parsed, self._live = sources, parsed, live

    def configs(self, projects: Sequence[Project]) -> Iterator[NginxConfig]:
        """One for each nginx: those of services, then those that no service mounts."""
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
        sites = [place for place in inside if re.search(r"/(conf\.d|templates|sites-\w+)/", place)]
        mains = [place for place in inside if place.endswith("/nginx.conf") and place not in sites]
        chosen = mains or sites or list(inside)
        include = self._include_inside(inside)
        parsed = [
            (source, with_includes(directives, include, (source.path,)))
            for place in chosen
            if (source := inside[place]) and (directives := self._directives(source)) is not None
        ]
        if not parsed:
            return
        directives = tuple(directive for _, listed in parsed for directive in listed)
        headless = bool(mains) and not _is_whole(directives)  # nginx will refuse it; what is in it is looked at
        config = _config(parsed[0][0], directives, fragment=not mains or headless)
        config = replace(config, mounted_as_main=bool(mains))
        sources = tuple(dict.fromkeys((*(source for source, _ in parsed), *inside.values(), *config.sources)))
        yield self._with_service(replace(config, sources=sources), service)

    def _mounted(self, service: Service) -> Iterator[tuple[str, Source]]:
        for mount in service.mounts:
            if mount.kind != "bind" or mount.source is None or "nginx" not in mount.target:
                continue
            path = posixpath.join(mount.node.source.folder, mount.source)
            names = self._sources.files.listing(path)
            for name in names or ():
                source = self._sources.source(posixpath.join(path, name))
                if source is not None and name.endswith((".conf", ".template")):
                    yield posixpath.join(mount.target, name), _filled_template(source, service)
            source = self._sources.near(mount.source, mount.node.source) if names is None else None
            if source is not None and not source.name.endswith((".pem", ".crt", ".key", ".html")):
                yield mount.target, _filled_template(source, service)
        root = self._sources.tree(service.node.source, {}) if service.get("configs") is not None else None
        if root is not None:
            inside = Inside(service=service, root=root, read=self._sources.near)
            yield from ((target, source) for target, source in inside.configs() if "nginx" in target)

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
        names = self._sources.files.listing(folder) or ()
        found = (self._sources.source(posixpath.join(folder, name)) for name in names if fnmatch(name, wanted))
        return [source for source in found if source is not None]

    def _directives(self, source: Source) -> tuple[Directive, ...] | None:
        """Parsed once, but for texts that are no file as it lies: filled-in templates, `content:` of Compose."""
        if not source.fixable:
            return self._parsed_here(source)
        if source.path not in self._parsed:
            if self._sources.has_problem(source.path):
                return None
            try:
                self._parsed[source.path] = parse_nginx(source)
            except BadDocument as error:
                self._sources.damaged(source, error)
                return None
        return self._parsed[source.path]

    def _parsed_here(self, source: Source) -> tuple[Directive, ...] | None:
        try:
            return parse_nginx(source)
        except BadDocument as error:
            if not self._sources.has_problem(source.path):
                self._sources.damaged(source, error)
            return None

    def _with_service(self, config: NginxConfig, service: Service) -> NginxConfig:
        version = service.image.version if service.image is not None else None
        newest = service.image is not None and version is None and service.image.digest is None
        return replace(config, service=service, version=version, newest=newest and service.image.path != "")  # type: ignore[union-attr]

    def _standing_alone(self, taken: set[str]) -> Iterator[NginxConfig]:
        """Configurations that no service mounts: whole files, and the fragments of one folder together."""
        whole = {path: listed for path, listed in self._parsed.items() if path not in taken and _is_whole(listed)}
        included: set[str] = set(taken)
        for path, listed in whole.items():
            joined = with_includes(listed, self._include, (path,))
            config = _config(self._sources.by_path[path], joined, fragment=False)
            included |= {source.path for source in config.sources if source.path != path}
            yield replace(config, version=self._live)
        folders: dict[str, list[str]] = {}
        for path in self._parsed:
            if path not in whole and path not in included:
                folders.setdefault(self._sources.by_path[path].folder, []).append(path)
        for paths in folders.values():
            joined = tuple(
                directive for path in paths for directive in with_includes(self._parsed[path], self._include, (path,))
            )
            yield replace(_config(self._sources.by_path[paths[0]], joined, fragment=True), version=self._live)


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
