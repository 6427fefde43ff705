"""The rules, one module a subject. Facts in, findings out; nothing here touches the outside."""

from atoll.doctor.checks import (
    clusters,
    containers,
    environment,
    files,
    fit,
    flags,
    locations,
    mongodb,
    proxies,
    security,
    topology,
    upstreams,
)
from atoll.doctor.rule import Rule

_MODULES = (
    clusters,
    containers,
    environment,
    files,
    fit,
    flags,
    locations,
    mongodb,
    proxies,
    security,
    topology,
    upstreams,
)


def all_rules() -> tuple[Rule, ...]:
    """Every rule, by number."""
    return tuple(sorted((rule for module in _MODULES for rule in module.RULES), key=lambda rule: rule.id))
