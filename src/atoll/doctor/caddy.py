"""Caddyfiles: sites, and where their reverse_proxy leads."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from atoll.doctor.door import Backend, Door, Wait, backend, present, seconds
from atoll.doctor.tree import Node, Source
from atoll.errors import BadDocument

_TOKEN = re.compile(r'\\\r?\n|#[^\n]*|"(?:\\.|[^"\\])*"|`[^`]*`|<<(\w+)\n.*?\n\s*\1(?=\s)|[^\s"`]+|\n', re.DOTALL)
_DEEPEST = 30
IS_CADDYFILE = re.compile(r"(?i)caddyfile|\.caddy$")


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One directive (or a site's addresses) with its block."""

    words: tuple[Node, ...]
    block: tuple["Line", ...] | None = None

    @property
    def name(self) -> str:
        return self.words[0].text or "" if self.words else ""

    @property
    def args(self) -> tuple[Node, ...]:
        return self.words[1:]


def parse_caddyfile(source: Source) -> tuple[Line, ...]:
    """The lines of a Caddyfile.

    Raises:
        BadDocument: a brace too few or too many; the sentence carries the line.
    """
    tokens = list(_tokens(source))
    lines, rest = _lines(tokens, 0, 0)
    if rest < len(tokens):
        raise BadDocument(f"line {tokens[rest].line}: this is not a Caddyfile: unexpected '}}'.")
    return lines


def _tokens(source: Source) -> Iterator[Node]:
    before = "\n"
    for match in _TOKEN.finditer(source.text):
        text = match[0]
        comment = text.startswith("#")
        if comment or text.startswith("\\"):
            continue
        bare = text[1:-1] if text[0] in '"`' else text
        if text == "\n" and before == "\n":
            continue
        before = text
        place = source.line_at(match.start())
        yield Node(
            source=source, line=place, start=match.start(), end=match.end(), tag="str", text=bare, raw=text,
            style="quoted" if bare != text else "",
        )  # fmt: skip


def _lines(tokens: Sequence[Node], at: int, depth: int) -> tuple[tuple[Line, ...], int]:
    made: list[Line] = []
    words: list[Node] = []
    if depth > _DEEPEST:
        raise BadDocument(f"line {tokens[at - 1].line}: this is not a Caddyfile: it is nested too deeply.")
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token.raw == "\n":
            if words and not (words[-1].text or "").endswith(","):  # a site's addresses go on after a comma
                made.append(Line(words=tuple(words)))
                words = []
        elif token.raw == "{":
            opened = token.line
            block, at = _lines(tokens, at, depth + 1)
            if at >= len(tokens):
                raise BadDocument(f"line {opened}: this is not a Caddyfile: a brace is not closed.")
            at += 1
            made.append(Line(words=tuple(words), block=block))
            words = []
        elif token.raw == "}":
            return _with_rest(made, words), at - 1
        else:
            words.append(token)
    return _with_rest(made, words), at


def _with_rest(made: list[Line], words: list[Node]) -> tuple[Line, ...]:
    return (*made, *([Line(words=tuple(words))] if words else []))


def doors_of_caddyfile(source: Source) -> tuple[Door, ...]:
    """A door for each reverse_proxy.

    Raises:
        BadDocument: not a Caddyfile.
    """
    return tuple(door for line in parse_caddyfile(source) for door in _doors(line, ()))


def _doors(line: Line, above: tuple[Line, ...]) -> Iterator[Door]:
    if line.name == "reverse_proxy":
        words = [word.text or "" for outer in (*above, line) for word in outer.words]
        flushed = any(inner.name == "flush_interval" for inner in line.block or ())
        yield Door(
            kind="Caddy",
            node=line.words[0],
            backends=_backends(line),
            waits=tuple(_waits(line)),
            names=tuple(words),
            path=next((word for word in reversed(words) if word.startswith("/")), ""),
            streams=flushed,
        )
        return
    for inner in line.block or ():
        yield from _doors(inner, (*above, line))


def _backends(line: Line) -> tuple[Backend, ...]:
    named = [word for word in line.args if not re.match(r"[/@*]", word.text or "")]
    named += [word for inner in line.block or () if inner.name == "to" for word in inner.args]
    return present([backend(word) for word in named])


_LIMITS = {"response_header_timeout", "read_timeout", "stream_timeout"}


def _waits(line: Line) -> Iterator[Wait]:
    for inner in line.block or ():
        if inner.name in _LIMITS and inner.args:
            limit = seconds(inner.args[0].text or "")
            if limit is not None:
                yield Wait(setting=inner.name, seconds=limit, node=inner.args[0], edits_to="30m")
        elif inner.name == "transport":
            yield from _waits(Line(words=inner.words, block=inner.block))
