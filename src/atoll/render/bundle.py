"""The files of a deployment, still as text, and the shape that every module has which makes them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.render.app import OwnBackend
from atoll.render.tls import DoorTls, Version


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Relative path -> text. `modes` holds permissions other than 644, such as `.env` at 600."""

    name: str
    files: dict[str, str]
    modes: dict[str, int] = field(default_factory=dict)
    owners: dict[str, tuple[int, int]] = field(default_factory=dict)  # user and group, where they may be given

    @property
    def digest(self) -> str:
        """Names which files made which numbers: sha256 over paths and texts in path order, secrets left out."""
        joined = hashlib.sha256()
        for path in sorted(self.files):
            if path in self.modes:
                continue
            joined.update(f"{path}\0{self.files[path]}\0".encode())
        return joined.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderSettings:
    """What a bundle needs to know beside the layout, as far as its form uses it; None takes what fits the layout."""

    engine_image: str | None = None
    nginx_image: str | None = None
    models: str | None = None  # the folder of this host that is mounted at /models
    bind: str = "127.0.0.1"  # where the door is published
    stack: str | None = None  # "app": with the backend and MongoDB
    extras: tuple[str, ...] = ()  # what stands beside: "monitoring"
    backend: OwnBackend | None = None  # of that stack; None: the control plane
    requirements: Callable[[], str] = str  # what an image with atoll installs, one pinned package a line
    tls: DoorTls | None = None  # of the door
    nginx_version: Version | None = None  # of this machine's, where processes are meant
    secrets: Mapping[str, str] = field(default_factory=dict)  # variables for .env, made by the caller


class Renderer(Protocol):
    """A module such as render/compose.py."""

    name: str

    def render(self, layout: Layout, card: ModelCard, settings: RenderSettings) -> Bundle:
        """The files of a layout whose replicas have ports.

        Raises InputError for an engine or a policy that there is not, or an option that this engine version lacks.
        """
        ...
