"""What a service asks of the host's GPUs, in every way that Compose has for it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from atoll.doctor.form import ALLOTTED
from atoll.doctor.parts import Setting, word_node
from atoll.doctor.tree import Node
from atoll.doctor.vllm import VllmCommand


@dataclass(frozen=True, kw_only=True)
class GpuRequest:
    """What a service asks of the host's GPUs: ids, or a count (-1 is all)."""

    ids: tuple[str, ...] | None
    count: int | None
    node: Node  # the device entry, or whatever else asks
    id_nodes: tuple[Node, ...] = ()
    allotted: bool = False  # a scheduler chooses cards that nobody else has; else Docker gives the first ones

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
    def is_count_of_the_first(self) -> bool:
        """Whether Docker answers it with the first cards of the box."""
        return self.ids is None and not self.all and not self.allotted

    @property
    def all(self) -> bool:
        return self.ids is None and self.count == -1


def request_of(service: Node, environment: Mapping[str, Setting]) -> GpuRequest | None:
    """What a service's container gets; None when it asks for no GPU."""
    devices = service.get("deploy", "resources", "reservations", "devices")
    for device in devices.items if devices is not None else ():
        if _is_gpu(device):
            return _device_request(device)
    for item in _generic(service):
        kind, count = item.string("discrete_resource_spec", "kind"), item.get("discrete_resource_spec", "value")
        if count is not None and "gpu" in (kind or "").lower():
            return GpuRequest(ids=None, count=_count(count), node=count, allotted=True)  # Swarm chooses them
    asked = service.get("gpus")
    if asked is not None:
        if asked.is_list and asked.items and asked.items[0].is_map:
            return _device_request(asked.items[0])
        return GpuRequest(ids=None, count=_count(asked), node=asked)
    return _cdi_request(service) or _runtime_request(service, environment)


def _generic(service: Node) -> tuple[Node, ...]:
    listed = service.get("deploy", "resources", "reservations", "generic_resources")
    return listed.items if listed is not None else ()


def _is_gpu(device: Node) -> bool:
    if not device.is_map:
        return False
    capabilities = device.get("capabilities")
    named = {item.text for item in capabilities.items} if capabilities is not None else set()
    return "gpu" in named or device.string("driver") in {"nvidia", "cdi"} or device.get("device_ids") is not None


def _device_request(device: Node) -> GpuRequest:
    listed = device.get("device_ids")
    if listed is not None and listed.is_list:
        ids = tuple(_short_id(part) for item in listed.items for part in _parts(item.text or ""))
        return GpuRequest(ids=ids, count=None, node=device, id_nodes=listed.items)
    count = device.get("count")
    allotted = device.get(ALLOTTED) is not None
    return GpuRequest(ids=None, count=-1 if count is None else _count(count), node=device, allotted=allotted)


def _parts(text: str) -> list[str]:
    """`"0,1"` in one item is two: Docker joins the items by commas again (moby, daemon/nvidia_linux.go)."""
    return [part.strip() for part in text.split(",")] if re.fullmatch(r"[\w/ -]+(,[\w/ -]+)+", text) else [text]


def _short_id(text: str) -> str:
    return text.removeprefix("nvidia.com/gpu=")


def _count(node: Node) -> int | None:
    text = node.text or ""
    if text in {"all", "-1"}:
        return -1
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else None


def _cdi_request(service: Node) -> GpuRequest | None:
    devices = service.get("devices")
    named = [item for item in (devices.items if devices is not None else ()) if "nvidia.com/gpu=" in (item.text or "")]
    if not named:
        return None
    ids = tuple(_short_id(item.text or "") for item in named)
    if ids == ("all",):
        return GpuRequest(ids=None, count=-1, node=named[0])
    return GpuRequest(ids=ids, count=None, node=named[0], id_nodes=tuple(named))


def _runtime_request(service: Node, environment: Mapping[str, Setting]) -> GpuRequest | None:
    """What NVIDIA_VISIBLE_DEVICES asks for: under `runtime: nvidia`, or by ids where that is the host's default."""
    setting, runtime = environment.get("NVIDIA_VISIBLE_DEVICES"), service.get("runtime")
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


def chosen_inside(environment: Mapping[str, Setting], command: VllmCommand | None) -> GpuRequest | None:
    """What a program takes of the GPUs that it is given, by CUDA_VISIBLE_DEVICES or --device-ids; None for all."""
    setting = environment.get("CUDA_VISIBLE_DEVICES")
    listed = _listed_gpus(setting)
    if setting is not None and listed:
        return GpuRequest(ids=listed, count=None, node=setting.node)
    option = command.option("--device-ids") if command is not None else None
    chosen = tuple(re.findall(r"\d+", option.value or "")) if option is not None and option.known else ()
    return GpuRequest(ids=chosen, count=None, node=word_node(option.word)) if option is not None and chosen else None
