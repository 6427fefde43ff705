"""Ways of doors of which nobody can tell whether a language model is at their end: said, and not judged."""

from collections.abc import Iterator

from atoll.doctor.facts import Facts
from atoll.doctor.finding import Unread
from atoll.doctor.leads import Lead


def unknown_ways(facts: Facts) -> Iterator[Unread]:
    """One for each file that holds such ways."""
    ways: dict[str, list[str]] = {}
    for location in facts.locations:
        if facts.lead_of(location) is Lead.UNKNOWN:
            place = " ".join((location.directive.name, *location.directive.args[:2]))
            named = ", ".join(f"{host}:{port}" for host, port in location.hosts[:2])
            address = named if named and "$" in location.target[1] else location.proxy_pass.arg
            ways.setdefault(location.proxy_pass.file, []).append(f"{address} ({place})")
    for door in facts.doors:
        for backend in door.backends:
            if facts.lead_of_backend(door, backend) is Lead.UNKNOWN:
                address = f"{backend.host}:{backend.port}" if backend.port is not None else backend.host
                ways.setdefault(backend.node.file, []).append(f"{address} ({door.kind})")
    for path, listed in ways.items():
        more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
        verb = "lead" if more else "leads"
        yield Unread(file=path, why=f"whether {listed[0]}{more} {verb} to a language model is not known")
    for config in facts.nginx:
        stream = config.main("stream")
        if stream is not None and any(one.child("proxy_pass") is not None for one in stream.children("server")):
            yield Unread(file=stream.file, why="stream {} passes connections on, which no rule looks into")
