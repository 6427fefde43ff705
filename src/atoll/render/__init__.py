"""Which files?"""

from atoll.render.bundle import Bundle, Renderer, RenderSettings
from atoll.render.catalog import RENDERERS, find_renderer, render_bundle
from atoll.render.nginx import REPLICA_HEADER, process_form, render_nginx
from atoll.render.pool import Pool, UpstreamServer

__all__ = [
    "RENDERERS",
    "REPLICA_HEADER",
    "Bundle",
    "Pool",
    "RenderSettings",
    "Renderer",
    "UpstreamServer",
    "find_renderer",
    "process_form",
    "render_bundle",
    "render_nginx",
]
