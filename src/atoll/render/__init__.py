"""Which files?"""

from atoll.render.bundle import Bundle, give_ports, render_bundle
from atoll.render.compose import ComposeSettings
from atoll.render.nginx import REPLICA_HEADER, Upstream, process_form, render_nginx

__all__ = [
    "REPLICA_HEADER",
    "Bundle",
    "ComposeSettings",
    "Upstream",
    "give_ports",
    "process_form",
    "render_bundle",
    "render_nginx",
]
