"""Compose projects as the checks see them: services with their ports, mounts, GPUs and commands, each with its line."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from atoll.doctor.tree import Member, Node, Source, read_yaml
from atoll.doctor.vllm import Version, VllmCommand, read_command, with_config
from atoll.doctor.words import Word, words_of
from atoll.engines.vllm.versions import tag_version
from atoll.errors import BadDocument

_REPLACED = {"command", "entrypoint", "test"}  # lists that an override replaces; other lists grow


@dataclass(frozen=True, kw_only=True)
class Image:
    """`registry/path/name:tag@digest` in its parts."""

    text: str
    path: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def version(self) -> Version | None:
        return tag_version(self.tag)


def parse_image(text: str) -> Image:
    path, _, digest = text.partition("@")
    head, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:  # the colon belongs to a registry's port
        head, tag = path, ""
    return Image(text=text, path=head, tag=tag or None, digest=digest or None)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """An environment variable. `value` is None when it comes from outside."""

    name: str
    value: str | None
    node: Node

    @property
    def known(self) -> bool:
        return self.value is not None and "${" not in self.value


@dataclass(frozen=True, kw_only=True)
class Port:
    """A published port. Host and container may be ranges, as written; `published` None: Docker picks one."""

    host_ip: str | None
    published: str | None
    target: str
    protocol: str
    node: Node

    @property
    def open_to_all(self) -> bool:
        return self.published is not None and self.host_ip in {None, "", "0.0.0.0", "::", "[::]"}  # noqa: S104 - looked for, not bound

    def targets(self) -> tuple[int, ...]:
        return _range(self.target)

    def hosts(self) -> tuple[int, ...]:
        return _range(self.published or "")


def _range(text: str) -> tuple[int, ...]:
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    if found is None:
        return ()
    first = int(found[1])
    return tuple(range(first, min(int(found[2] or first), first + 1000) + 1))


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A volume or bind mount of a service; `source` is None for an anonymous volume."""

    kind: str  # bind, volume, tmpfs, config
    source: str | None
    target: str
    node: Node


@dataclass(frozen=True, kw_only=True)
class GpuRequest:
    """What a service asks of the host's GPUs: ids, or a count (-1 is all)."""

    ids: tuple[str, ...] | None
    count: int | None
    node: Node  # the device entry, or whatever else asks
    id_nodes: tuple[Node, ...] = ()

    @cached_property
    def indices(self) -> tuple[int, ...] | None:
        """The ids as host indices; None when they are UUIDs, unknown, or a count."""
        if self.ids is None or not all(re.fullmatch(r"\d+", name) for name in self.ids):
            return None
        return tuple(int(name) for name in self.ids)

    @property
    def size(self) -> int | None:
        """How many GPUs; None for all."""
        if self.ids is not None:
            return len(self.ids)
        return self.count if self.count is not None and self.count >= 0 else None

    @property
    def all(self) -> bool:
        return self.ids is None and self.count == -1


# What an image's name says about what it runs; the first that matches counts.
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("vllm-router", r"vllm[-_]?router|production-stack.*router|lmcache/lmstack-router"),
        ("sglang-router", r"sglang[-_]?router|sgl[-_]router|sgl-model-gateway"),
        ("litellm", r"litellm"),
        ("vllm", r"vllm(?!.*(exporter|bench|playground|proxy|dashboard|monitor|client|webui))"),
        ("tgi", r"text-generation-inference"),
        ("sglang", r"sglang"),
        ("llama.cpp", r"llama[.-]?cpp|llama-server"),
        ("ollama", r"(^|/)ollama(/ollama)?$"),
        ("lmdeploy", r"lmdeploy"),
        ("mongo-tools", r"mongo[-_]express|mongodb?[-_]?exporter|mongosh"),
        ("mongo", r"(^|/)mongo(db)?(-community-server|-enterprise-server|-atlas-local)?$"),
        ("nginx-proxy", r"nginx-proxy|ingress-nginx|proxy-manager|docker-gen"),
        ("nginx", r"(^|/)(nginx|openresty|nginx-unprivileged)(/openresty|/nginx-unprivileged)?$"),
        ("haproxy", r"haproxy"),
        ("envoy", r"(^|/)envoy"),
    )
)
_LLM_KINDS = {"vllm", "tgi", "sglang", "llama.cpp", "ollama", "lmdeploy", "litellm", "vllm-router", "sglang-router"}
_DEFAULT_PORTS = {"vllm": 8000, "tgi": 80, "sglang": 30000, "llama.cpp": 8080, "ollama": 11434, "litellm": 4000}


@dataclass(frozen=True, kw_only=True, eq=False)
class Service:
    """One service of a project, overrides, `extends` and anchors applied."""

    name: str
    node: Node
    name_node: Node
    project: str
    env_file: Mapping[str, Setting]
    config: Node | None = None  # the file of vLLM's --config, where it is mounted and lies here

    def get(self, *path: str | int) -> Node | None:
        return self.node.get(*path)

    def string(self, *path: str | int) -> str | None:
        return self.node.string(*path)

    @property
    def file(self) -> str:
        return self.name_node.file

    @property
    def line(self) -> int:
        return self.name_node.line

    @cached_property
    def image(self) -> Image | None:
        text = self.string("image")
        return parse_image(text) if text else None

    @cached_property
    def kind(self) -> str:
        """What it runs: vllm, mongo, nginx, ... or other."""
        path = self.image.path if self.image is not None else ""
        for kind, pattern in _KINDS:
            if pattern.search(path.lower()):
                return kind
        return "vllm" if self.vllm is not None else self._kind_by_program

    @property
    def _kind_by_program(self) -> str:
        words = (*words_of(self.get("entrypoint")), *words_of(self.get("command")))
        program = words[0].text.rpartition("/")[2] if words else ""
        return program if program in {"vllm-router", "litellm", "sglang-router"} else "other"

    @property
    def serves_llm(self) -> bool:
        return self.kind in _LLM_KINDS

    @cached_property
    def vllm(self) -> VllmCommand | None:
        path = self.image.path.lower() if self.image is not None else ""
        if any(pattern.search(path) for kind, pattern in _KINDS[:3]):
            return None  # a router that has vllm in its name
        said = self.get("entrypoint")
        entrypoint = words_of(said) if said is not None and said.tag != "null" else None  # `[]` clears the image's own
        command = words_of(self.get("command"))
        found = read_command(
            entrypoint,
            command,
            image_serves="vllm-openai" in path,
            version=self.image.version if self.image is not None else None,
            version_known=self.image is not None and self.image.version is not None,
        )
        if found is None and "vllm" in path and entrypoint is None and _looks_like_options(command):
            version = self.image.version if self.image is not None else None
            found = VllmCommand(words=command, version=version, version_known=version is not None)
        return with_config(found, self.config) if found is not None else None

    @cached_property
    def environment(self) -> dict[str, Setting]:
        own = {name: _setting(name, value) for name, value in _environment(self.get("environment")).items()}
        inline = self.vllm.environment if self.vllm is not None else {}
        return {
            **self.env_file,
            **{name: _assigned(name, word) for name, word in inline.items()},
            **own,
        }

    @cached_property
    def ports(self) -> tuple[Port, ...]:
        node = self.get("ports")
        made = [_port(item) for item in node.items] if node is not None and node.is_list else []
        return tuple(port for port in made if port is not None)

    @cached_property
    def mounts(self) -> tuple[Mount, ...]:
        node = self.get("volumes")
        made = [_mount(item) for item in node.items] if node is not None and node.is_list else []
        return tuple(mount for mount in made if mount is not None)

    @cached_property
    def requested_gpus(self) -> GpuRequest | None:
        """What the container gets."""
        return _gpu_request(self)

    @cached_property
    def gpus(self) -> GpuRequest | None:
        """What of that its program takes: of all GPUs those that CUDA_VISIBLE_DEVICES or --device-ids names."""
        asked = self.requested_gpus
        return _chosen_inside(self) or asked if asked is not None and asked.all else asked

    @cached_property
    def networks(self) -> tuple[str, ...]:
        node = self.get("networks")
        if node is None:
            return () if self.get("network_mode") is not None else ("default",)
        return tuple(node.entries) if node.is_map else tuple(item.text or "" for item in node.items)

    @cached_property
    def depends_on(self) -> dict[str, Node]:
        """The service that must come first -> where that is said."""
        node = self.get("depends_on")
        if node is None:
            return {}
        if node.is_map:
            return dict(node.pairs())
        return {item.text: item for item in node.items if item.text}

    @property
    def host_network(self) -> bool:
        return self.string("network_mode") == "host"

    @property
    def profiles(self) -> tuple[str, ...]:
        node = self.get("profiles")
        return tuple(item.text or "" for item in node.scalars()) if node is not None else ()

    def together_with(self, other: "Service") -> bool:
        """Whether one `up` can start both: not when they carry different profiles."""
        return not self.profiles or not other.profiles or bool(set(self.profiles) & set(other.profiles))

    @cached_property
    def listen_port(self) -> int | None:
        """The port on which it answers inside its network; None when it cannot be told."""
        if self.vllm is not None:
            return self.vllm.integer("--port", 8000)
        exposed = self.get("expose")
        default = _DEFAULT_PORTS.get(self.kind)
        if default is None and exposed is not None and len(exposed.items) == 1:
            ports = _range(exposed.items[0].text or "")
            return ports[0] if len(ports) == 1 else None
        return default if not words_of(self.get("command")) else None

    @cached_property
    def names(self) -> frozenset[str]:
        """The names by which other services reach it: its own, its container's, its aliases."""
        aliases: list[str] = []
        networks = self.get("networks")
        for _, network in networks.pairs() if networks is not None else ():
            listed = network.get("aliases")
            aliases += [item.text or "" for item in listed.items] if listed is not None else []
        named = [self.string("container_name"), self.string("hostname")]
        return frozenset(name for name in (self.name, *named, *aliases) if name)

    @property
    def replicas(self) -> int:
        text = self.string("deploy", "replicas") or self.string("scale")
        return int(text) if text and text.isdecimal() else 1

    @property
    def has_healthcheck(self) -> bool:
        node = self.get("healthcheck")
        test = node.get("test") if node is not None else None
        if node is None or test is None or node.string("disable") == "true":
            return False
        return (test.string(0) if test.is_list else test.text) != "NONE"


def _looks_like_options(words: Sequence[Word]) -> bool:
    return any(word.text.split("=")[0] in {"--model", "--tensor-parallel-size", "--max-model-len"} for word in words)


def _environment(node: Node | None) -> dict[str, Node]:
    """Name -> the value's node, or the whole item `NAME=value` of a list."""
    if node is None:
        return {}
    if node.is_map:
        return dict(node.pairs())
    return {(item.text or "").partition("=")[0]: item for item in node.items if item.is_scalar}


def _setting(name: str, node: Node) -> Setting:
    text = node.text if node.is_scalar else None
    if text is not None and text.startswith(f"{name}="):
        text = text[len(name) + 1 :]
    elif text == name:
        text = None
    return Setting(name=name, value=text, node=node)


_SHORT_PORT = re.compile(
    r"^(?:(?P<ip>\[[0-9a-fA-F:]*\]|[0-9.]+|\$\{[^}]*\}|[A-Za-z][\w.-]*):(?=[^:]*:))?(?:(?P<host>[^:]*):)?(?P<target>[^:/]+)(?:/(?P<proto>\w+))?$"
)


def _port(node: Node) -> Port | None:
    if node.is_map:
        target = node.string("target")
        if target is None:
            return None
        return Port(
            host_ip=node.string("host_ip"),
            published=node.string("published"),
            target=target,
            protocol=node.string("protocol") or "tcp",
            node=node,
        )
    found = _SHORT_PORT.match((node.text or "").strip())
    if found is None:
        return None
    return Port(
        host_ip=found["ip"],
        published=found["host"] or None,
        target=found["target"],
        protocol=found["proto"] or "tcp",
        node=node,
    )


def _mount(node: Node) -> Mount | None:
    if node.is_map:
        target = node.string("target")
        if target is None:
            return None
        return Mount(kind=node.string("type") or "volume", source=node.string("source"), target=target, node=node)
    parts = (node.text or "").split(":")
    if len(parts) == 1:
        return Mount(kind="volume", source=None, target=parts[0], node=node) if parts[0] else None
    kind = "bind" if re.match(r"^[./~$]", parts[0]) else "volume"
    return Mount(kind=kind, source=parts[0], target=parts[1], node=node)


def _gpu_request(service: Service) -> GpuRequest | None:
    devices = service.get("deploy", "resources", "reservations", "devices")
    for device in devices.items if devices is not None else ():
        if _is_gpu(device):
            return _request_of(device)
    asked = service.get("gpus")
    if asked is not None:
        if asked.is_list and asked.items and asked.items[0].is_map:
            return _request_of(asked.items[0])
        return GpuRequest(ids=None, count=_count(asked), node=asked)
    return _cdi_request(service) or _runtime_request(service)


def _is_gpu(device: Node) -> bool:
    if not device.is_map:
        return False
    capabilities = device.get("capabilities")
    named = {item.text for item in capabilities.items} if capabilities is not None else set()
    return "gpu" in named or device.string("driver") in {"nvidia", "cdi"} or device.get("device_ids") is not None


def _request_of(device: Node) -> GpuRequest:
    listed = device.get("device_ids")
    if listed is not None and listed.is_list:
        ids = tuple(_short_id(item.text or "") for item in listed.items)
        return GpuRequest(ids=ids, count=None, node=device, id_nodes=listed.items)
    count = device.get("count")
    return GpuRequest(ids=None, count=-1 if count is None else _count(count), node=device)


def _short_id(text: str) -> str:
    return text.removeprefix("nvidia.com/gpu=")


def _count(node: Node) -> int | None:
    text = node.text or ""
    if text in {"all", "-1"}:
        return -1
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None


def _cdi_request(service: Service) -> GpuRequest | None:
    devices = service.get("devices")
    named = [item for item in (devices.items if devices is not None else ()) if "nvidia.com/gpu=" in (item.text or "")]
    if not named:
        return None
    ids = tuple(_short_id(item.text or "") for item in named)
    if ids == ("all",):
        return GpuRequest(ids=None, count=-1, node=named[0])
    return GpuRequest(ids=ids, count=None, node=named[0], id_nodes=tuple(named))


def _runtime_request(service: Service) -> GpuRequest | None:
    """What NVIDIA_VISIBLE_DEVICES asks for: under `runtime: nvidia`, or by ids where that is the host's default."""
    setting, runtime = service.environment.get("NVIDIA_VISIBLE_DEVICES"), service.get("runtime")
    listed = _listed_gpus(setting)
    if setting is not None and listed:
        return GpuRequest(ids=listed, count=None, node=setting.node)
    if runtime is None or runtime.text != "nvidia" or (setting is not None and setting.value in {"none", "void"}):
        return None
    count = -1 if setting is None or setting.value in {None, "all", ""} else None
    return GpuRequest(ids=None, count=count, node=setting.node if setting is not None else runtime)


def _listed_gpus(setting: Setting | None) -> tuple[str, ...]:
    """The ids in `0,1` or `GPU-aaaa,GPU-bbbb`; none for `all`, `void` or what is not known."""
    parts = tuple(part.strip() for part in (setting.value or "").split(",")) if setting is not None else ()
    return parts if all(re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", part) for part in parts) else ()


def _chosen_inside(service: Service) -> GpuRequest | None:
    setting = service.environment.get("CUDA_VISIBLE_DEVICES")
    listed = _listed_gpus(setting)
    if setting is not None and listed:
        return GpuRequest(ids=listed, count=None, node=setting.node)
    option = service.vllm.option("--device-ids") if service.vllm is not None else None
    chosen = tuple(re.findall(r"\d+", option.value or "")) if option is not None and option.known else ()
    return GpuRequest(ids=chosen, count=None, node=_as_node(option.word)) if option is not None and chosen else None


def _as_node(word: Word) -> Node:
    return Node(
        source=word.source, line=word.line, start=word.start, end=word.end, tag="str", text=word.text, raw=word.text
    )


def _assigned(name: str, word: Word) -> Setting:
    return Setting(name=name, value=word.text.partition("=")[2], node=_as_node(word))


@dataclass(frozen=True, kw_only=True, eq=False)
class Project:
    """One Compose project: what `docker compose up` would see; or the containers of a `docker inspect`."""

    name: str
    sources: tuple[Source, ...]
    root: Node
    services: tuple[Service, ...]
    origin: str = "compose"  # or inspect, kubernetes
    roots: tuple[Node, ...] = ()  # the files that it was made of, each for itself

    @cached_property
    def _by_name(self) -> dict[str, Service]:
        return {name: service for service in reversed(self.services) for name in service.names}

    def service(self, name: str) -> Service | None:
        """The service that answers to this name on its networks."""
        return self._by_name.get(name)

    @cached_property
    def vllm(self) -> tuple[Service, ...]:
        return tuple(service for service in self.services if service.vllm is not None)

    @cached_property
    def gpu_services(self) -> tuple[Service, ...]:
        return tuple(service for service in self.services if service.gpus is not None)


Reader = Callable[[str, Source], Source | None]  # (name as written, the file that names it) -> that file


def looks_like_compose(root: Node) -> bool:
    services = root.get("services")
    if services is None or not services.is_map or root.get("kind") is not None or root.get("apiVersion") is not None:
        return False
    return all(value.is_map or value.tag == "null" for _, value in services.pairs())


def build_project(name: str, roots: Sequence[Node], read: Reader, parse: Callable[[Source], Node | None]) -> Project:
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
    for included, source in _included(whole, read, parse):
        whole = merge(included, whole)
        sources = (*sources, source)
        parts.append(included)
    listed = whole.get("services")
    services = []
    for service_name, entry in (listed.entries if listed is not None else {}).items():
        node = _extended(service_name, whole, read, parse, ())
        if node is not None and node.is_map:
            services.append(_service(name, entry, node, read))
    return Project(name=name, sources=sources, root=whole, services=tuple(services), roots=tuple(parts))


def _service(project: str, entry: Member, node: Node, read: Reader) -> Service:
    service = Service(
        name=entry.key.raw or "", node=node, name_node=entry.key, project=project, env_file=_env_files(node, read)
    )
    path = service.vllm.text("--config") if service.vllm is not None else None
    config = _config_file(service, path, read) if path else None
    return replace(service, config=config) if config is not None else service


def _config_file(service: Service, path: str, read: Reader) -> Node | None:
    """The options in the file that a mount puts at this path of the container."""
    for mount in service.mounts:
        if mount.kind != "bind" or mount.source is None or not f"{path}/".startswith(f"{mount.target.rstrip('/')}/"):
            continue
        source = read(mount.source + path[len(mount.target.rstrip("/")) :], mount.node.source)
        try:
            roots = read_yaml(replace(source, fixable=False)) if source is not None else ()
        except BadDocument:
            return None  # vLLM says so itself
        return roots[0] if roots and roots[0].is_map else None
    return None


def _included(root: Node, read: Reader, parse: Callable[[Source], Node | None]) -> Iterator[tuple[Node, Source]]:
    listed = root.get("include")
    for item in listed.items if listed is not None else ():
        paths = item.get("path") if item.is_map else item
        for path in paths.scalars() if paths is not None else ():
            source = read(path.text or "", root.source)
            tree = parse(source) if source is not None else None
            if tree is not None and source is not None:
                yield tree, source


def _extended(
    name: str, root: Node, read: Reader, parse: Callable[[Source], Node | None], seen: tuple[str, ...]
) -> Node | None:
    node = root.get("services", name)
    extends = node.get("extends") if node is not None else None
    if node is None or extends is None or name in seen or len(seen) > 10:
        return node
    base_name = extends.text if extends.is_scalar else extends.string("service")
    path = extends.string("file") if extends.is_map else None
    source = read(path, extends.source) if path is not None else None
    base_root = root if path is None else parse(source) if source is not None else None
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
            made |= {
                name: Setting(name=name, value=value, node=_line_node(source, line))
                for name, (value, line) in read_env(source).items()
            }
    return made


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
    targets = {mount.target for mount in map(_mount, over.items) if mount is not None}
    kept = [item for item in base.items if (mount := _mount(item)) is None or mount.target not in targets]
    return (*kept, *over.items)


def _as_map(node: Node) -> Node:
    if not node.is_list:
        return node
    entries = {name: Member(item, item) for name, item in _environment(node).items()}
    return replace(node, tag="map", items=(), entries=entries)
