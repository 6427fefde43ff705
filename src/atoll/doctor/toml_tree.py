"""TOML as the tree that YAML gives: each value with the line that it is most likely written on."""

import re
import tomllib
from dataclasses import replace
from typing import Any

from atoll.doctor.tree import Member, Node, Source
from atoll.errors import BadDocument


def read_toml(source: Source) -> Node:
    """The tree of a TOML text; its values are looked at and never rewritten, for their places are found by search.

    Raises:
        BadDocument: not TOML; the sentence carries the line.
    """
    try:
        plain = tomllib.loads(source.text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        found = re.search(r"line (\d+)", str(error))
        line = min(int(found[1]), len(source.lines)) if found is not None else 1
        raise BadDocument(f"line {line}: this is not TOML: {str(error).partition(' (at')[0]}.") from None
    return _Finder(Source(source.path, source.text, fixable=False)).node(plain, 0, 0)


class _Finder:
    """Looks for each key after the place of the one before; TOML keeps the order of a table's keys."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def node(self, value: Any, at: int, depth: int) -> Node:
        if depth > 20:
            return self._scalar("", at, "null")
        if isinstance(value, dict):
            entries: dict[str, Member] = {}
            here = at
            for name, inner in value.items():
                here = self._find(name, inner, here)
                entries[name] = Member(self._scalar(name, here), self.node(inner, here, depth + 1))
            return replace(self._scalar("", at, "map"), entries=entries)
        if isinstance(value, list):
            return replace(self._scalar("", at, "seq"), items=tuple(self.node(item, at, depth + 1) for item in value))
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return self._scalar(text, at, "bool" if isinstance(value, bool) else "str")

    def _find(self, name: str, value: Any, at: int) -> int:
        """Where `name = ` or `[...name]` stands from here on; here when it cannot be found."""
        head = re.escape(name)
        table = rf"(?m)^\s*\[+[^\]\n]*\b{head}\"?\]"
        key = rf"(?<![\w-])\"?{head}\"?\s*="
        for pattern in (table if isinstance(value, dict | list) else key, rf"\b{head}\b"):
            found = re.compile(pattern).search(self._source.text, at)
            if found is not None:
                return found.end() - 1
        return at

    def _scalar(self, text: str, at: int, tag: str = "str") -> Node:
        return Node(source=self._source, line=self._source.line_at(at), start=at, end=at, tag=tag, text=text, raw=text)
