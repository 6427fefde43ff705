"""What one feature of the door adds to nginx.conf, by the place where it stands: affinity, models, keys, ..."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SCRIPT_FILE = "door.js"  # beside nginx.conf


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Pieces of nginx.conf, each without the indent of its place, and the njs functions that they name.

    A request of a client comes to the entry, where it is decided who may pass. From there it goes to a replica in the
    same location, or, where there are several models, by way of a script to the named location of its model. `passing`
    stands in each of those.
    """

    http: tuple[str, ...] = ()  # blocks before the upstreams: maps, zones
    server: tuple[str, ...] = ()  # lines of the server, after what it listens on
    entry: tuple[str, ...] = ()  # lines of the location that a client's request comes to
    passing: tuple[str, ...] = ()  # lines of every location that hands a request to a replica
    locations: tuple[str, ...] = ()  # further locations
    functions: Mapping[str, str] = field(default_factory=dict)  # of njs, by name; `door.NAME` in the configuration
    constants: tuple[str, ...] = ()  # what the functions share


def join_parts(parts: Sequence[Part]) -> Part:
    """All of them as one, in their order."""
    functions: dict[str, str] = {}
    for part in parts:
        functions |= part.functions
    return Part(
        http=tuple(block for part in parts for block in part.http),
        server=tuple(line for part in parts for line in part.server),
        entry=tuple(line for part in parts for line in part.entry),
        passing=tuple(line for part in parts for line in part.passing),
        locations=tuple(block for part in parts for block in part.locations),
        functions=functions,
        constants=tuple(text for part in parts for text in part.constants),
    )


def door_script(parts: Sequence[Part]) -> str | None:
    """The text of door.js, in the JavaScript of njs (no `for ... of`); None where no part needs one."""
    whole = join_parts(parts)
    if not whole.functions:
        return None
    pieces = [*whole.constants, *whole.functions.values()]
    return "\n\n".join(pieces) + f"\n\nexport default {{ {', '.join(whole.functions)} }};\n"
