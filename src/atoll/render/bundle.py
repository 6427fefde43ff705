"""The files of a deployment, still as text."""

import hashlib
from dataclasses import dataclass, field

from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.render.compose import ComposeSettings, render_compose
from atoll.render.process import render_process

FIRST_PORT = 8000  # replica 0's, unless the layout says otherwise
FORMS = ("compose", "process")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Relative path -> text. `modes` holds permissions other than 644, such as `.env` at 600."""

    name: str
    files: dict[str, str]
    modes: dict[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Names which files made which numbers: sha256 over paths and texts in path order, secrets left out."""
        joined = hashlib.sha256()
        for path in sorted(self.files):
            if path in self.modes:
                continue
            joined.update(f"{path}\0{self.files[path]}\0".encode())
        return joined.hexdigest()


def render_bundle(layout: Layout, card: ModelCard, *, to: str, settings: ComposeSettings | None = None) -> Bundle:
    """The files of a layout.

    Args:
        layout: replicas without a port get the next free one from 8000 on.
        card: the model's, for its size and its name.
        to: `compose` or `process`.
        settings: for compose: images, folders, secrets.

    Raises:
        InputError: a form, an engine or a policy that there is not, or an option that this engine version lacks.
    """
    layout = give_ports(layout)
    if to == "compose":
        files = render_compose(layout, card, settings or ComposeSettings())
        return Bundle(name=layout.name, files=files, modes={".env": 0o600})
    if to == "process":
        return Bundle(name=layout.name, files=render_process(layout, card))
    raise InputError(f"{to!r} is no form of a bundle; there are {' and '.join(FORMS)}.")


def give_ports(layout: Layout) -> Layout:
    """The same layout with a port for every replica, none twice and none the router's."""
    taken = {replica.port for replica in layout.replicas} | {layout.router.port}
    free = (port for port in range(FIRST_PORT, 65536) if port not in taken)
    replicas = tuple(r if r.port is not None else r.replace(port=next(free)) for r in layout.replicas)
    return layout.replace(replicas=replicas)
