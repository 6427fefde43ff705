"""The forms that a bundle may have. Another one is a module of the same shape and a line here."""

from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.layout.ports import give_ports
from atoll.model.card import ModelCard
from atoll.render import compose, kubernetes, process
from atoll.render.bundle import Bundle, Renderer, RenderSettings

_KNOWN: tuple[Renderer, ...] = (compose, process, kubernetes)
RENDERERS = {renderer.name: renderer for renderer in _KNOWN}


def find_renderer(name: str) -> Renderer:
    """The renderer of that name; raises InputError with those there are."""
    try:
        return RENDERERS[name]
    except KeyError:
        raise InputError(f"{name!r} is no form of a bundle; there are {', '.join(RENDERERS)}.") from None


def render_bundle(layout: Layout, card: ModelCard, *, to: str, settings: RenderSettings | None = None) -> Bundle:
    """The files of a layout.

    Args:
        layout: replicas without a port get the next free one from 8000 on.
        card: the model's, for its size and its name.
        to: the form: one of RENDERERS.
        settings: images, folders, secrets, for the forms that have them.

    Raises:
        InputError: a form, an engine or a policy that there is not, or an option that this engine version lacks.
    """
    return find_renderer(to).render(give_ports(layout), card, settings or RenderSettings())
