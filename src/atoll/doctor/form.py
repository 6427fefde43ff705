"""A service in Compose's form, for one that something else describes. Nothing is ever added to such a service."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from atoll.doctor.letters import Letter
from atoll.doctor.parts import word_node
from atoll.doctor.tree import Member, Node, Source
from atoll.doctor.words import Word


def scalar(near: Node, text: str) -> Node:
    """A text that stands near a value, and that nobody may rewrite there."""
    source = replace(near.source, fixable=False)
    return Node(source=source, line=near.line, start=near.start, end=near.end, tag="str", text=text, raw=text)


@dataclass(frozen=True, kw_only=True)
class Lettered:
    """Something of a file that is no YAML, by its characters, continued lines joined."""

    letters: tuple[Letter, ...]
    source: Source
    start: int
    line: int

    @property
    def text(self) -> str:
        return "".join(letter.text for letter in self.letters)

    @property
    def node(self) -> Node:
        """It as a value that nobody may rewrite."""
        end = self.letters[-1].offset + 1 if self.letters else self.start
        place = Node(source=self.source, line=self.line, start=self.start, end=end, tag="str", text=self.text)
        return scalar(place, self.text)


def value(word: Word, text: str | None = None) -> Node:
    """A word, or a piece of one, as a value that stays as it is written."""
    node = word_node(word)
    return scalar(node, node.text if text is None else text)  # type: ignore[arg-type]


def listing(near: Node, items: Iterable[Node]) -> Node:
    return Node(source=near.source, line=near.line, start=near.start, end=near.end, tag="seq", items=tuple(items))


def mapping(near: Node, values: Mapping[str, Node | None]) -> Node:
    """The values that there are, under their keys."""
    entries = {name: Member(scalar(node, name), node) for name, node in values.items() if node is not None}
    source = replace(near.source, fixable=False)
    return Node(source=source, line=near.line, start=near.start, end=near.end, tag="map", entries=entries)


ALLOTTED = "allotted"  # beside a count: a scheduler chose the cards


class Form:
    """A service that is put together key by key."""

    def __init__(self, near: Node) -> None:
        self.near = near
        self._values: dict[str, Node] = {}
        self._lists: dict[str, list[Node]] = {}
        self._maps: dict[str, dict[str, Node | None]] = {}

    def set(self, key: str, node: Node | None) -> None:
        if node is not None:
            self._values[key] = node

    def add(self, key: str, node: Node) -> None:
        """One more item of a list."""
        self._lists.setdefault(key, []).append(node)

    def put_in(self, key: str, inner: str, node: Node) -> None:
        """One more entry of a mapping."""
        self._maps.setdefault(key, {})[inner] = node

    def node(self) -> Node:
        mapped = {key: mapping(self.near, inner) for key, inner in self._maps.items()}
        listed = {key: listing(items[0], items) for key, items in self._lists.items()}
        return mapping(self.near, {**self._values, **listed, **mapped})


def gpu_devices(
    near: Node, *, ids: Iterable[str] | None = None, count: str | None = None, allotted: bool = False
) -> Node:
    """The value of `gpus:` for these ids, or for a count (`all` or a number); `allotted` cards are nobody else's."""
    if ids is not None:
        return listing(near, [mapping(near, {"device_ids": listing(near, [scalar(near, name) for name in ids])})])
    own = scalar(near, "true") if allotted else None
    return listing(near, [mapping(near, {"count": scalar(near, count or "all"), ALLOTTED: own})])
