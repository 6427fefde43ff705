"""The shape that every engine module has, and what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atoll.engines.counters import CounterNames
from atoll.layout.layout import Layout, Replica
from atoll.model.card import ModelCard


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How to start one replica: a program and its arguments, the variables it needs, and the cores it belongs on."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    cpus: str | None = None  # "0-31,64-95": cores beside the replica's GPUs; None where the box has one NUMA node


class Engine(Protocol):
    """A module such as engines/vllm.py."""

    name: str
    program: tuple[str, ...]  # the words before the first argument: vllm serve
    health_path: str
    counters: CounterNames

    def image(self, version: str) -> str:
        """The pinned container image of a version."""
        ...

    def launch(self, layout: Layout, replica: Replica, card: ModelCard, *, host: str, port: int) -> Launch:
        """Program, arguments and variables of one replica."""
        ...

    def keep_alive_s(self, version: str) -> float:
        """After how many idle seconds a replica started so closes a connection."""
        ...

    def health_command(self, port: int) -> tuple[str, ...]:
        """What, run in the replica's container, succeeds when it can serve."""
        ...

    def legal_tensor_parallel(self, card: ModelCard, sizes: Sequence[int]) -> tuple[int, ...]:
        """Those of the sizes that this engine can split the model into."""
        ...


def is_path(model: str) -> bool:
    """Whether a layout's model is a folder and not a name."""
    return model.startswith(("/", ".", "~"))


def loaded_name(layout: Layout, card: ModelCard) -> str:
    """What an engine loads: a folder as the layout names it, otherwise the hub's full name.

    A layout may say `qwen2.5-32b-instruct`, which atoll knows and the hub does not.
    """
    return layout.model if is_path(layout.model) else card.name


def served_name(card: ModelCard) -> str:
    """The name that requests ask for."""
    return card.name
