"""Which files?"""

from atoll.render.bundle import Bundle, Renderer, RenderSettings
from atoll.render.catalog import RENDERERS, find_renderer, give_ports, render_bundle
from atoll.render.nginx import REPLICA_HEADER, UpstreamServer, process_form, render_nginx

__all__ = [
    "RENDERERS",
    "REPLICA_HEADER",
    "Bundle",
    "RenderSettings",
    "Renderer",
    "UpstreamServer",
    "find_renderer",
    "give_ports",
    "process_form",
    "render_bundle",
    "render_nginx",
]
