"""Makefiles (and justfiles): their recipes as the shell would get them."""

import re
from collections.abc import Iterator

from atoll.doctor.letters import Letter
from atoll.doctor.tree import Source

IS_MAKEFILE = re.compile(r"(^|/)((GNU|gnu)?[Mm]akefile|[Jj]ustfile)$|\.mk$")
_ASSIGNMENT = re.compile(r"^(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*(?:\?|:{1,3}|\+)?=\s*(?P<value>.*?)\s*$")
_REFERENCE = re.compile(r"\$\$|\$\((?P<name>\w+)\)|\$\{(?P<braced>\w+)\}|\{\{\s*(?P<just>\w+)\s*\}\}")


def shell_letters(source: Source) -> list[Letter]:
    """The recipes in their order, with make's variables as the shell's."""
    return list(_letters(source))


def _letters(source: Source) -> Iterator[Letter]:
    continued = False
    for number, line in enumerate(source.lines, start=1):
        offset = source.start(number)
        recipe = re.match(r"(?:\t|[ ]{2,})[@+-]*", line)
        said = _ASSIGNMENT.match(line) if not continued else None
        if continued or (recipe is not None and line.strip()):
            first = recipe.end() if recipe is not None and not continued else 0
            yield from _as_shell(line[first:], offset + first)
        elif said is not None:
            yield from (Letter(char, offset + said.start("name")) for char in f'{said["name"]}="')
            yield from _as_shell(re.sub(r"[\"']", " ", said["value"]), offset + said.start("value"))
            yield Letter('"', offset + said.end("value"))
        continued = line.rstrip().endswith("\\") and (continued or recipe is not None)
        yield Letter("\n", offset + len(line))


def _as_shell(text: str, offset: int) -> Iterator[Letter]:
    at = 0
    for match in _REFERENCE.finditer(text):
        yield from (Letter(char, offset + at + place) for place, char in enumerate(text[at : match.start()]))
        name = match["name"] or match["braced"] or match["just"]
        yield from (Letter(char, offset + match.start()) for char in (f"${{{name}}}" if name else "$"))
        at = match.end()
    yield from (Letter(char, offset + at + place) for place, char in enumerate(text[at:]))
