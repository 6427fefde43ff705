"""YAML (and so JSON) as a tree that knows the file, the line and the characters of each value.

ruamel.yaml composes it; aliases and `<<` merges are resolved here, and `${VAR:-default}` is substituted when the
variables are handed in, as Docker Compose does.
"""

import re
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from atoll.doctor.substitution import VARIABLE, interpolate
from atoll.errors import BadDocument

_DEEPEST = 60  # nested levels; a compose file has about ten


@dataclass(frozen=True)
class Source:
    """A file that was read. `path` is the name that people see; `place` is where it lies, for relative names in it."""

    path: str
    text: str = field(repr=False)
    fixable: bool = True  # False for the output of a program

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def composed(self) -> list[Any]:
        """The nodes that ruamel makes of a YAML text, made once; raises what ruamel raises."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # allowed; the later one counts
            return list(YAML(typ="safe", pure=True).compose_all(self.text))

    def line(self, number: int) -> str:
        """Line `number` from 1; empty beyond the end."""
        return self.lines[number - 1].rstrip("\r") if 0 < number <= len(self.lines) else ""

    @cached_property
    def starts(self) -> list[int]:
        """Where each line begins, the first at place 0."""
        made, offset = [], 0
        for line in self.lines:
            made.append(offset)
            offset += len(line) + 1
        return made

    def start(self, number: int) -> int:
        """Where line `number` (from 1) begins; the end of the text beyond the last."""
        return self.starts[number - 1] if 0 < number <= len(self.starts) else len(self.text)

    def line_at(self, offset: int) -> int:
        """The number of the line that holds this character."""
        return bisect_right(self.starts, offset)

    @cached_property
    def folder(self) -> str:
        head, _, _ = self.path.rpartition("/")
        return head or ("/" if self.path.startswith("/") else ".")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def cut_out(source: Source, start: int, end: int) -> Source:
    """A text inside a file (a here-document, a block scalar) as a file of its own, every character where it stands."""
    blank = re.sub(r"[^\n]", " ", source.text[:start])
    return Source(source.path, blank + source.text[start:end], fixable=source.fixable)


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """A value: a mapping (`entries`), a list (`items`) or a scalar (`text`, None for null)."""

    source: Source = field(repr=False)
    line: int
    start: int
    end: int
    style: str = ""  # of a scalar: ' " | > or empty; of a collection: flow or block
    tag: str = ""  # str, int, float, bool, null, map, seq
    custom: str = ""  # a tag such as !reset or !override
    text: str | None = None
    raw: str | None = None  # before substitution
    items: tuple["Node", ...] = ()
    entries: Mapping[str, "Member"] = field(default_factory=dict)
    variables: Mapping[str, str] | None = None

    @property
    def file(self) -> str:
        return self.source.path

    @property
    def is_map(self) -> bool:
        return self.tag == "map"

    @property
    def is_list(self) -> bool:
        return self.tag == "seq"

    @property
    def is_scalar(self) -> bool:
        return self.tag not in {"map", "seq"}

    @property
    def known(self) -> bool:
        """Whether no `${VAR}` without a value is left in it."""
        return self.text is not None and not VARIABLE.search(self.text)

    @property
    def by_default(self) -> bool:
        """Whether a part of it is the default of a variable: `${TAG:-v1}` where nothing here sets TAG."""
        named = VARIABLE.finditer(self.raw or "") if self.variables is not None else ()
        return any(not self.variables.get(one["braced"] or one["bare"]) for one in named if self.variables is not None)

    def get(self, *path: str | int) -> "Node | None":
        """The value under keys and list positions, or None."""
        here: Node | None = self
        for step in path:
            if here is None:
                return None
            if isinstance(step, int):
                here = here.items[step] if -len(here.items) <= step < len(here.items) else None
            else:
                entry = here.entries.get(step)
                here = entry.value if entry is not None else None
        return here

    def string(self, *path: str | int) -> str | None:
        """The text of the scalar there; None for a missing, null or unfinished one (`${VAR}` without a value)."""
        node = self.get(*path)
        return node.text if node is not None and node.is_scalar and node.known else None

    def key(self, name: str) -> "Node | None":
        entry = self.entries.get(name)
        return entry.key if entry is not None else None

    def pairs(self) -> Iterator[tuple[str, "Node"]]:
        for name, entry in self.entries.items():
            yield name, entry.value

    def scalars(self) -> Iterator["Node"]:
        """Scalar list items, or the scalar itself."""
        if self.is_list:
            yield from (item for item in self.items if item.is_scalar)
        elif self.is_scalar:
            yield self

    def plain(self, depth: int = 0) -> Any:
        """Dicts, lists, strings, numbers; what stands deeper than a person writes is left out."""
        if depth > 20:
            return None
        if self.is_map:
            return {name: value.plain(depth + 1) for name, value in self.pairs()}
        if self.is_list:
            return [item.plain(depth + 1) for item in self.items]
        return _typed(self.tag, self.text)


@dataclass(frozen=True, slots=True)
class Member:
    """One key of a mapping and its value."""

    key: Node
    value: Node
    merged: bool = False  # it came in through `<<`


def _typed(tag: str, text: str | None) -> Any:
    if text is None or tag == "null":
        return None
    try:
        if tag == "int":
            return int(text.replace("_", ""), 0)
        if tag == "float":
            return float(text)
    except ValueError:
        return text
    return text.lower() == "true" if tag == "bool" else text


def read_yaml(source: Source, variables: Mapping[str, str] | None = None) -> tuple[Node, ...]:
    """The documents of a YAML text, empty ones left out.

    Args:
        source: the file.
        variables: for `${VAR}`; None leaves dollars alone. A variable that has no value stays as it is written.

    Raises:
        BadDocument: not YAML; the sentence carries the line.
    """
    try:
        convert = _Converter(source, variables)
        return tuple(convert(root, 0) for root in source.composed if root is not None)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = mark.line + 1 if mark is not None else _line_in(str(error))
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable"
        raise BadDocument(f"line {line}: this is not YAML: {problem}.") from None
    except RecursionError:
        raise BadDocument("line 1: this YAML is nested too deeply to be read.") from None
    except (ValueError, ArithmeticError, AttributeError, TypeError, LookupError) as error:
        # ruamel lets its own slips through on damaged text
        raise BadDocument(f"line 1: this is not YAML: {error or type(error).__name__}.") from None


def _line_in(message: str) -> int:
    found = re.search(r"line (\d+)", message)
    return int(found[1]) if found else 1


class _Converter:
    """ruamel's nodes to ours; a node that aliases share is converted once."""

    def __init__(self, source: Source, variables: Mapping[str, str] | None) -> None:
        self._source, self._variables = source, variables
        self._done: dict[int, Node] = {}
        self._open: set[int] = set()

    def __call__(self, node: Any, depth: int) -> Node:
        known = self._done.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            raise BadDocument(f"line {node.start_mark.line + 1}: this is not YAML: an alias refers to itself.")
        if depth > _DEEPEST:
            raise BadDocument(f"line {node.start_mark.line + 1}: this YAML is nested too deeply to be read.")
        self._open.add(id(node))
        made = self._convert(node, depth)
        self._open.discard(id(node))
        self._done[id(node)] = made
        return made

    def _convert(self, node: Any, depth: int) -> Node:
        place = {
            "source": self._source,
            "line": node.start_mark.line + 1,
            "start": node.start_mark.index,
            "end": node.end_mark.index,
            "variables": self._variables,
            "custom": str(node.tag) if str(node.tag).startswith("!") else "",
        }
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        style = "flow" if node.flow_style else "block"
        if isinstance(node, SequenceNode):
            items = tuple(self(item, depth + 1) for item in node.value)
            return Node(**place, tag="seq", style=style, items=items)
        assert isinstance(node, MappingNode)
        return Node(**place, tag="map", style=style, entries=self._entries(node, depth))

    def _scalar(self, node: ScalarNode, place: dict[str, Any]) -> Node:
        raw, tag = str(node.value), _short_tag(str(node.tag))
        text = raw if self._variables is None else interpolate(raw, self._variables)
        return Node(**place, tag=tag, style=node.style or "", text=None if tag == "null" else text, raw=raw)

    def _entries(self, node: MappingNode, depth: int) -> dict[str, Member]:
        own: dict[str, Member] = {}
        merged: dict[str, Member] = {}
        for key_node, value_node in node.value:
            if isinstance(key_node, ScalarNode) and str(key_node.value) == "<<" and not key_node.style:
                self._merge(self(value_node, depth + 1), merged)
                continue
            if not isinstance(key_node, ScalarNode):
                continue  # a mapping as a key means nothing in any file that we read
            key = self(key_node, depth + 1)
            if key.raw in own:
                raise BadDocument(f"line {key.line}: the key {key.raw!r} stands twice in one mapping.")
            own[key.raw or ""] = Member(key, self(value_node, depth + 1))
        return {**{name: entry for name, entry in merged.items() if name not in own}, **own}

    @staticmethod
    def _merge(value: Node, into: dict[str, Member]) -> None:
        for part in value.items if value.is_list else (value,):
            for name, entry in part.entries.items():
                into.setdefault(name, Member(entry.key, entry.value, merged=True))


def _short_tag(tag: str) -> str:
    short = tag.rpartition(":")[2]
    return short if short in {"str", "int", "float", "bool", "null"} else "str"
