"""The characters of a YAML scalar, each with its place in the file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from atoll.doctor.substitution import VARIABLE, interpolate
from atoll.doctor.tree import Node


@dataclass(frozen=True, slots=True)
class Letter:
    """One character of a value and where in the file it stands."""

    text: str
    offset: int


def letters(node: Node) -> list[Letter]:
    """The characters of a scalar with their places, variables substituted, line ends folded, indentation left in."""
    body = node.source.text[node.start : node.end]
    spell: Callable[[str, int], list[Letter]] = {"'": _single, '"': _double, "|": _block, ">": _block}.get(
        node.style, _plain
    )
    spelled = spell(body, node.start)
    if node.style != "|" and "\n" in body:
        spelled = list(_folded(spelled))
    return spelled if node.variables is None else _substitute(spelled, node.variables)


def _folded(spelled: list[Letter]) -> Iterator[Letter]:
    """Line ends as YAML folds them: one between two lines is a blank."""
    for place, letter in enumerate(spelled):
        following = spelled[place + 1].text if place + 1 < len(spelled) else ""
        before = spelled[place - 1].text if place else ""
        one = letter.text == "\n" and following not in {"", "\n"} and before != "\n"
        yield Letter(" ", letter.offset) if one else letter


def _plain(body: str, start: int) -> list[Letter]:
    return [Letter(char, start + index) for index, char in enumerate(body)]


def _block(body: str, start: int) -> list[Letter]:
    head = body.find("\n") + 1
    return _plain(body[head:], start + head) if head else []


def _single(body: str, start: int) -> list[Letter]:
    made: list[Letter] = []
    index = 1
    while index < len(body) - 1:
        made.append(Letter(body[index], start + index))
        index += 2 if body[index : index + 2] == "''" else 1
    return made


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\n": "", " ": " ", "/": "/", '"': '"', "\\": "\\"}


def _double(body: str, start: int) -> list[Letter]:
    made: list[Letter] = []
    index = 1
    while index < len(body) - 1:
        if body[index] == "\\" and index + 1 < len(body) - 1:
            made.append(Letter(_ESCAPES.get(body[index + 1], body[index + 1]), start + index))
            index += 2
            continue
        made.append(Letter(body[index], start + index))
        index += 1
    return made


def _substitute(spelled: list[Letter], variables: Mapping[str, str]) -> list[Letter]:
    text = "".join(letter.text or "\1" for letter in spelled)
    if "$" not in text:
        return spelled
    made: list[Letter] = []
    position = 0
    for match in _outermost(text):
        made += spelled[position : match[0]]
        made += [Letter(char, spelled[match[0]].offset) for char in interpolate(text[match[0] : match[1]], variables)]
        position = match[1]
    return made + spelled[position:]


def _outermost(text: str) -> Iterator[tuple[int, int]]:
    """Where `$$`, `$VAR` and `${...}` stand, braces balanced."""
    index = 0
    while (index := text.find("$", index)) >= 0:
        end = _end_of_variable(text, index)
        if end > index + 1:
            yield index, end
        index = max(end, index + 1)


def _end_of_variable(text: str, start: int) -> int:
    if text.startswith("$$", start):
        return start + 2
    if not text.startswith("${", start):
        match = VARIABLE.match(text, start)
        return match.end() if match else start + 1
    depth = 0
    for index in range(start + 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    return start + 1
