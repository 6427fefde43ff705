"""nginx's main configuration: the file at /etc/nginx/nginx.conf."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.edits import Edits, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.nginx_config import NginxConfig
from atoll.doctor.rule import ERROR, SAFE, rule


@rule("NG040", ERROR, risk=SAFE)
def no_http_block(facts: Facts) -> Iterable[Finding]:
    for config in facts.nginx:
        if config.mounted_as_main and config.fragment and config.directives:
            first = config.directives[0]
            yield found(first, f"`{first.name}` stands outside of http {{}}: nginx refuses it", edits=_as_site(config))


def _as_site(config: NginxConfig) -> Edits:
    """Its mount moved to where sites belong."""
    for mount in config.service.mounts if config.service is not None else ():
        text = mount.node.raw or ""
        if mount.target == "/etc/nginx/nginx.conf" and mount.node.is_scalar and text == mount.node.text:
            moved = text.replace(":/etc/nginx/nginx.conf", ":/etc/nginx/conf.d/default.conf")
            quote = mount.node.style if mount.node.style in {"'", '"'} else ""
            return replace_value(mount.node, f"{quote}{moved}{quote}") if moved != text else ()
    return ()
