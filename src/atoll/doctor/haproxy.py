"""HAProxy configurations: sections, servers, timeouts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from atoll.doctor.door import Backend, Door, Wait, backend, present, seconds
from atoll.doctor.tree import Node, Source


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of an HAProxy configuration."""

    kind: str  # defaults, frontend, backend, listen, global
    name: str
    line: int
    source: Source
    lines: tuple[tuple[int, str], ...]

    @property
    def file(self) -> str:
        return self.source.path

    def says(self, pattern: str) -> bool:
        return any(re.match(pattern, text) for _, text in self.lines)


def haproxy_sections(source: Source) -> Iterator[Section]:
    kind = name = ""
    line = 0
    lines: list[tuple[int, str]] = []
    for number, text in enumerate(source.lines, start=1):
        bare = text.split("#")[0].strip()
        head = re.match(r"^(global|defaults|frontend|backend|listen)\b\s*(\S*)", bare)
        if head is not None and not text[:1].isspace():
            if kind:
                yield Section(kind=kind, name=name, line=line, source=source, lines=tuple(lines))
            kind, name, line, lines = head[1], head[2], number, []
        elif bare:
            lines.append((number, bare))
    if kind:
        yield Section(kind=kind, name=name, line=line, source=source, lines=tuple(lines))


def doors_of_haproxy(source: Source) -> Iterator[Door]:
    """A door for each section with servers; a limit of `defaults` counts where the section has none of its own."""
    usual: list[Wait] = []
    for section in haproxy_sections(source):
        limits = [wait for number, text in section.lines if (wait := _limit(source, number, text)) is not None]
        if section.kind == "defaults":
            usual = limits
        servers = [(number, text.split()) for number, text in section.lines if text.startswith("server ")]
        named = [_backend(source, number, words) for number, words in servers if len(words) > 2]
        if present(named):
            node = _piece(source, section.line, section.kind)
            yield Door(
                kind="HAProxy",
                node=node,
                backends=present(named),
                waits=tuple(limits or usual),
                names=(section.name,),
                streams=section.says(r"option\s+http-no-delay"),
            )


def _backend(source: Source, number: int, words: list[str]) -> Backend | None:
    return backend(_piece(source, number, words[2]))


def _limit(source: Source, number: int, text: str) -> Wait | None:
    found = re.match(r"timeout\s+(server|tunnel)\s+(\S+)", text)
    limit = seconds(found[2], unit_s=1e-3) if found is not None else None  # a bare number is milliseconds
    if found is None or limit is None or found[1] == "tunnel":
        return None
    return Wait(setting="timeout server", seconds=limit, node=_piece(source, number, found[2]), edits_to="30m")


def _piece(source: Source, number: int, text: str) -> Node:
    """A word of a line, where it stands."""
    line = source.line(number)
    found = re.search(rf"(?<!\S){re.escape(text)}(?!\S)", line)
    start = source.start(number) + (found.start() if found is not None else 0)
    return Node(source=source, line=number, start=start, end=start + len(text), tag="str", text=text, raw=text)
