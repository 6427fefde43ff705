"""How long nginx waits, read by several checks."""

from atoll.doctor.facts import Route
from atoll.doctor.nginx import nginx_seconds


def read_timeout(route: Route) -> float | None:
    """Seconds of silence after which nginx cuts an answer; None for a variable."""
    return nginx_seconds(route.location.value("proxy_read_timeout", "60s"))
