"""The shape that every engine module has, and what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atoll.model.card import ModelCard
from atoll.plan.layout import Layout, Replica


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How to start one replica: a program and its arguments, and the variables it needs."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """Names of an engine's Prometheus metrics."""

    running: str
    waiting: str
    kv_usage: str  # 0 to 1
    preemptions: str
    prefix_hits: str
    prefix_queries: str
    prompt_tokens: str
    generation_tokens: str


class Engine(Protocol):
    """A module such as engines/vllm.py."""

    name: str
    health_path: str
    counters: Counters

    def image(self, version: str) -> str:
        """The pinned container image of a version."""
        ...

    def launch(self, layout: Layout, replica: Replica, card: ModelCard, *, host: str, port: int) -> Launch:
        """Program, arguments and variables of one replica."""
        ...

    def legal_tensor_parallel(self, card: ModelCard, sizes: Sequence[int]) -> tuple[int, ...]:
        """Those of the sizes that this engine can split the model into."""
        ...
