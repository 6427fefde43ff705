"""Compose projects as the checks see them: services with their ports, mounts, GPUs and commands, each with its line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from atoll.doctor.gpu_request import GpuRequest, chosen_inside, request_of
from atoll.doctor.image import DEFAULT_PORTS, LLM_KINDS, ROUTERS, Image, parse_image
from atoll.doctor.launch import made_of, read_command, with_config
from atoll.doctor.other_engines import listens_at
from atoll.doctor.parts import (
    Mount,
    Port,
    Setting,
    assigned_setting,
    environment_nodes,
    port_range,
    read_mount,
    read_port,
    read_setting,
)
from atoll.doctor.tree import Node, Source
from atoll.doctor.vllm import VllmCommand
from atoll.doctor.words import Word, words_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Service:
    """One service of a project, overrides, `extends` and anchors applied."""

    name: str
    node: Node
    name_node: Node
    project: str
    env_file: Mapping[str, Setting]
    config: Node | None = None  # the file of vLLM's --config, where it is mounted and lies here
    launched: VllmCommand | None = None  # what a script that it runs, and that lies here, starts
    unbuilt: str | None = None  # the Dockerfile of its `build:`, where that is not here
    on_host: bool = False  # a program of the machine itself, in no container
    open_tag: bool = False  # of Kubernetes: kustomize or a chart may set the tag that its image lacks

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
        node = self.get("image")
        if node is None or not node.text:
            return None
        return parse_image(node.text, by_default=node.by_default, open_tag=self.open_tag)

    @cached_property
    def kind(self) -> str:
        """What it runs: vllm, mongo, nginx, ... or other."""
        named = self.image.kind if self.image is not None else None
        if named is not None:
            return named
        return "vllm" if self.vllm is not None else self._kind_by_program

    @property
    def _kind_by_program(self) -> str:
        words = (*words_of(self.get("entrypoint")), *words_of(self.get("command")))
        program = words[0].text.rpartition("/")[2] if words else ""
        return program if program in {"vllm-router", "litellm", "sglang-router"} else "other"

    @property
    def serves_llm(self) -> bool:
        return self.kind in LLM_KINDS

    @cached_property
    def vllm(self) -> VllmCommand | None:
        if self.image is not None and self.image.kind in ROUTERS:
            return None  # a router that has vllm in its name
        found = self.launched or self._command
        if found is None:
            return None
        version = self.image.engine_version if self.image is not None else None
        return with_config(replace(found, version=version, version_known=version is not None), self.config)

    @property
    def _command(self) -> VllmCommand | None:
        path = self.image.path.lower() if self.image is not None else ""
        said = self.get("entrypoint")
        entrypoint = words_of(said) if said is not None and said.tag != "null" else None  # `[]` clears the image's own
        command = words_of(self.get("command"))
        found = read_command(entrypoint, command, image_serves="vllm-openai" in path, given=self.given_variables)
        own_script = entrypoint is None or len(entrypoint) == 1
        if found is not None or not own_script or (self.image is not None and self.image.kind not in {None, "vllm"}):
            return found
        told = _are_options(command) if "vllm" in path else _can_only_be_options(command)
        return made_of(command) if told else None

    @property
    def given_variables(self) -> dict[str, str]:
        """The variables that its container is started with, as far as they are known."""
        own = {name: read_setting(name, value) for name, value in environment_nodes(self.get("environment")).items()}
        return {n: one.value for n, one in {**self.env_file, **own}.items() if one.value is not None and one.known}

    @cached_property
    def environment(self) -> dict[str, Setting]:
        own = {name: read_setting(name, value) for name, value in environment_nodes(self.get("environment")).items()}
        inline = self.vllm.environment if self.vllm is not None else {}
        return {
            **self.env_file,
            **{name: assigned_setting(name, word) for name, word in inline.items()},
            **own,
        }

    @cached_property
    def ports(self) -> tuple[Port, ...]:
        node = self.get("ports")
        made = [read_port(item) for item in node.items] if node is not None and node.is_list else []
        return tuple(port for port in made if port is not None)

    @cached_property
    def mounts(self) -> tuple[Mount, ...]:
        node = self.get("volumes")
        made = [read_mount(item) for item in node.items] if node is not None and node.is_list else []
        return tuple(mount for mount in made if mount is not None)

    @cached_property
    def requested_gpus(self) -> GpuRequest | None:
        """What the container gets; of a program on the host what it takes: the first cards unless it is told which."""
        if self.on_host:
            size = self.vllm.world_size if self.vllm is not None else None
            chosen = chosen_inside(self.environment, self.vllm)
            return chosen or (GpuRequest(ids=None, count=size, node=self.name_node) if size is not None else None)
        return request_of(self.node, self.environment)

    @cached_property
    def gpus(self) -> GpuRequest | None:
        """What of that its program takes: of all GPUs those that CUDA_VISIBLE_DEVICES or --device-ids names."""
        asked = self.requested_gpus
        return chosen_inside(self.environment, self.vllm) or asked if asked is not None and asked.all else asked

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
    def words(self) -> tuple[Word, ...]:
        """The whole command line, as far as it is written."""
        return (*words_of(self.get("entrypoint")), *words_of(self.get("command")))

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
        default = DEFAULT_PORTS.get(self.kind)
        if self.kind in {"sglang", "tgi", "llama.cpp", "lmdeploy"}:
            return listens_at(self.kind, self.words, default)[1]
        if default is None and exposed is not None and len(exposed.items) == 1:
            ports = port_range(exposed.items[0].text or "")
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


def _can_only_be_options(words: Sequence[Word]) -> bool:
    """Whether two or more of them are names that only vLLM has: an image of one's own, or one built elsewhere."""
    return len({word.text.partition("=")[0].replace("_", "-") for word in words} & _OF_VLLM_ALONE) > 1


_OF_VLLM_ALONE = {
    "--tensor-parallel-size", "--max-model-len", "--gpu-memory-utilization", "--max-num-seqs",
    "--max-num-batched-tokens", "--served-model-name", "--enable-auto-tool-choice", "--swap-space",
}  # fmt: skip


def _are_options(words: Sequence[Word]) -> bool:
    return any(word.text.split("=")[0] in {"--model", "--tensor-parallel-size", "--max-model-len"} for word in words)


@dataclass(frozen=True, kw_only=True, eq=False)
class Project:
    """One Compose project: what `docker compose up` would see; or the containers of a `docker inspect`."""

    name: str
    sources: tuple[Source, ...]
    root: Node
    services: tuple[Service, ...]
    origin: str = "compose"  # or inspect, kubernetes, script, unit
    roots: tuple[Node, ...] = ()  # the files that it was made of, each for itself

    @property
    def files(self) -> tuple[Node, ...]:
        """Its files, each for itself; the whole for projects that no file of Compose makes."""
        return self.roots or (self.root,)

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
