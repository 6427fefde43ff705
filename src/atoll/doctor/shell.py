"""Shell scripts as the commands that they run: words with their places, variables filled in, `"$@"` handed through.

tree-sitter's grammar of bash reads the text, damaged pieces included; what only a running shell knows stays `${NAME}`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from atoll.doctor.letters import Letter
from atoll.doctor.shell_text import Value, characters, joined, split_value, unescaped
from atoll.doctor.substitution import interpolate
from atoll.doctor.tree import Source
from atoll.doctor.words import Word

_DEEPEST = 80  # nested constructs; a script has about ten
_MOST_ROUNDS = 16  # of a loop that is written out
_MOST_COMMANDS = 2000

Variables = dict[str, tuple[Value, ...]]  # one value, or those of an array


@dataclass(frozen=True, kw_only=True)
class ShellCommand:
    """A simple command. `branch` names the arm of the outermost `if` or `case` around it; empty outside of any."""

    words: tuple[Word, ...]
    assigned: tuple[Word, ...] = ()  # A=b before it
    exported: Mapping[str, Word] = field(default_factory=dict)  # what the script gives to its programs before it
    branch: str = ""
    round: int = 0  # of the loop that it stands in, from 0


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text that a script writes or pipes: of a here-document; `start` to `end` are its characters in the file."""

    start: int
    end: int
    line: int


Read = Callable[[str, Source], Mapping[str, str] | None]  # a file that is sourced -> its variables


@dataclass(frozen=True, kw_only=True)
class Script:
    commands: tuple[ShellCommand, ...]
    documents: tuple[Document, ...]


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_bash.language()))


def plain_letters(source: Source) -> list[Letter]:
    """A whole file as letters."""
    return [Letter(char, offset) for offset, char in enumerate(source.text)]


def read_script(
    letters: Sequence[Letter],
    source: Source,
    arguments: Sequence[Word] | None = None,
    read: Read | None = None,
    given: Mapping[str, str] | None = None,
) -> Script:
    """The commands of a script in the order of the text, functions and every arm of an `if` included.

    Args:
        letters: the text with the offset of each character.
        source: the file in which the offsets count.
        arguments: what `"$@"` stands for; None when nobody knows.
        read: the variables of a file that is sourced.
        given: the variables of the container or unit that runs it.
    """
    reader = _Reader([letter for letter in letters if letter.text], source, arguments, read)
    reader.given = given or {}
    reader.visit(_parser().parse(reader.bytes).root_node, 0)
    return Script(commands=tuple(reader.commands), documents=tuple(reader.documents))


_ARMS = {"elif_clause", "else_clause", "case_item"}
_FOREIGN = {"command_substitution", "process_substitution"}


class _Reader:
    def __init__(
        self, letters: Sequence[Letter], source: Source, arguments: Sequence[Word] | None, read: Read | None
    ) -> None:
        self._letters, self._source, self._arguments, self._read = letters, source, arguments, read
        text = "".join(letter.text for letter in letters)
        self.bytes = text.encode("utf-8", "replace")
        self._chars = None if len(self.bytes) == len(text) else characters(text)
        self._variables: Variables = {}
        self._exported: dict[str, Word] = {}
        self._branch = ""
        self._round = 0
        self.given: Mapping[str, str] = {}
        self.commands: list[ShellCommand] = []
        self.documents: list[Document] = []

    # the statements -----------------------------------------------------------------------------------------------

    def visit(self, node: Node, depth: int) -> None:
        if depth > _DEEPEST or len(self.commands) > _MOST_COMMANDS:
            return
        kind = node.type
        if kind == "command":
            self._command(node)
        elif kind == "variable_assignment":
            self._assign(node, exported=False)
        elif kind == "declaration_command":
            self._declare(node)
        elif kind == "for_statement":
            self._loop(node, depth)
        elif kind in {"if_statement", "case_statement"}:
            self._branches(node, depth)
        elif kind == "heredoc_body":
            self._document(node)
        else:
            for child in node.named_children:
                self.visit(child, depth + 1)
        if kind in {"command", "variable_assignment", "declaration_command"}:
            for inner in _substitutions(node, 0):
                for child in inner.named_children:
                    self.visit(child, depth + 1)

    def _branches(self, node: Node, depth: int) -> None:
        outer = self._branch
        for child in node.named_children:
            if not outer:
                arm = child if child.type in _ARMS else node
                self._branch = f"{arm.type} {arm.start_byte}"
            self.visit(child, depth + 1)
        self._branch = outer

    def _loop(self, node: Node, depth: int) -> None:
        name_node = node.child_by_field_name("variable")
        body = node.child_by_field_name("body")
        name = self._text(name_node) if name_node is not None else ""
        listed = [value for child in node.children_by_field_name("value") for value in self._loop_values(child)]
        if body is None:
            return
        outer = self._round
        for number, value in enumerate(listed[:_MOST_ROUNDS]):
            self._round = number
            self._variables[name] = (value,)
            self.visit(body, depth + 1)
        if not listed:
            self._variables.pop(name, None)
            self.visit(body, depth + 1)
        self._round = outer

    def _loop_values(self, node: Node) -> Iterator[Value]:
        text = self._text(node)
        counted = re.fullmatch(r"\{(\d{1,4})\.\.(\d{1,4})\}|\$\(seq\s+(?:(\d{1,4})\s+)?(\d{1,4})\)", text)
        if counted is None:
            yield from (letters for word in self._words(node) if (letters := word.letters) and word.known)
            return
        first, last = (int(n) for n in ((counted[1] or counted[3] or "1"), (counted[2] or counted[4])))
        offset = self._offset(node.start_byte)
        for number in range(first, min(last, first + _MOST_ROUNDS - 1) + 1):
            yield tuple(Letter(char, offset) for char in str(number))

    def _document(self, node: Node) -> None:
        if not self._letters:
            return
        start = self._offset(node.start_byte)
        end = self._offset(node.end_byte - 1) + 1 if node.end_byte > node.start_byte else start
        self.documents.append(Document(start=start, end=end, line=self._source.line_at(start)))

    def _declare(self, node: Node) -> None:
        exported = self._text(node).startswith(("export", "declare -x", "typeset -x"))
        for child in node.named_children:
            if child.type == "variable_assignment":
                self._assign(child, exported=exported)
            elif exported and child.type == "variable_name" and (known := self._variables.get(self._text(child))):
                self._export(self._text(child), known[0], child)

    def _assign(self, node: Node, *, exported: bool) -> None:
        name_node, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        name = self._text(name_node) if name_node is not None else ""
        more = any(child.type == "+=" for child in node.children)
        made = [word.letters for word in self._words(value, split=False)] if value is not None else []
        before = self._variables.get(name, ()) if more else ()
        if more and value is not None and value.type != "array":
            made = [(*(before[0] if before else ()), *(made[0] if made else ()))]
            before = ()
        self._variables[name] = (*before, *(made or [()]))
        if exported:
            self._export(name, self._variables[name][0], node)

    def _export(self, name: str, value: Value, node: Node) -> None:
        start = self._offset(node.start_byte)
        letters = (*(Letter(char, start) for char in f"{name}="), *value)
        self._exported[name] = self._word(letters, node, direct=False)

    def _command(self, node: Node) -> None:
        assigned, words = [], []
        for child in node.named_children:
            if child.type == "variable_assignment":
                text = self._text(child).partition("=")[0] + "="
                value = child.child_by_field_name("value")
                inner = [word.letters for word in self._words(value, split=False)] if value is not None else []
                start = self._offset(child.start_byte)
                letters = (*(Letter(char, start) for char in text), *(inner[0] if inner else ()))
                assigned.append(self._word(letters, child, direct=False))
            elif child.type == "command_name":
                words += [word for part in child.named_children for word in self._words(part)]
            elif not child.type.endswith("redirect"):
                words += self._words(child)
        self._follow(words)
        if words:
            self.commands.append(
                ShellCommand(
                    words=tuple(words),
                    assigned=tuple(assigned),
                    exported=dict(self._exported),
                    branch=self._branch,
                    round=self._round,
                )
            )

    def _follow(self, words: Sequence[Word]) -> None:
        """`source FILE`: its variables count from here."""
        if self._read is None or len(words) < 2 or words[0].text not in {"source", "."}:
            return
        for name, text in (self._read(words[1].text, self._source) or {}).items():
            self._variables[name] = (tuple(Letter(char, words[1].start) for char in text),)

    # the words ----------------------------------------------------------------------------------------------------

    def _words(self, node: Node, *, split: bool = True) -> list[Word]:
        """What an argument becomes: one word, none, or many for an array, `"$@"` or a variable with blanks."""
        if node.type == "array":
            return [word for child in node.named_children for word in self._words(child)]
        name = self._only_variable(node)
        if name in {"@", "*"} and self._arguments is not None:
            return list(self._arguments)
        if name is not None and name.endswith(("[@]", "[*]")):
            listed = self._variables.get(name[:-3])
            if listed is not None:
                return [self._word(value, node, direct=False) for value in listed if value]
        letters = tuple(self._value(node, 0))
        if split and node.type in {"simple_expansion", "expansion"}:
            return [self._word(part, node, direct=False) for part in split_value(letters)]
        start, end = self._offset(node.start_byte), self._offset(max(node.start_byte, node.end_byte - 1)) + 1
        inside = all(start <= letter.offset < end for letter in letters)
        variable = any(child.type in _EXPANSIONS for child in (node, *node.named_children))
        return [self._word(letters, node, direct=inside and not variable)]

    def _only_variable(self, node: Node) -> str | None:
        """The name in a word that is one variable and nothing else, quoted or not."""
        if node.type == "string" and len(node.named_children) == 1:
            node = node.named_children[0]
        if node.type not in {"simple_expansion", "expansion"}:
            return None
        return self._text(node).lstrip("$").strip("{}")

    def _word(self, letters: Value, node: Node, *, direct: bool) -> Word:
        start, end = self._offset(node.start_byte), self._offset(max(node.start_byte, node.end_byte - 1)) + 1
        if letters and not direct and not any(start <= letter.offset < end for letter in letters):
            start, end = letters[0].offset, letters[-1].offset + 1  # of a variable: where its value is written
        end = max(start, end)
        return Word(
            text="".join(letter.text for letter in letters),
            source=self._source,
            line=self._source.line_at(start),
            start=start,
            end=end,
            letters=letters,
            direct=direct,
        )

    def _value(self, node: Node, depth: int) -> Iterator[Letter]:
        if depth > _DEEPEST:
            return
        kind = node.type
        if kind in {"string", "concatenation", "translated_string"}:
            yield from self._composite(node, depth)
        elif kind == "raw_string":
            yield from self._slice(node.start_byte + 1, node.end_byte - 1)
        elif kind == "ansi_c_string":
            yield from self._slice(node.start_byte + 2, node.end_byte - 1)
        elif kind in {"simple_expansion", "expansion"}:
            yield from self._expansion(node)
        elif kind == "arithmetic_expansion":
            yield from self._sum(node)
        elif kind in _FOREIGN:
            yield from self._unknown(node, "output")
        else:
            yield from unescaped(self._slice(node.start_byte, node.end_byte), anything=True)

    def _composite(self, node: Node, depth: int) -> Iterator[Letter]:
        """A string or a concatenation: its parts, and what lies between them in a string."""
        quoted = node.type != "concatenation"
        at, last = node.start_byte, node.end_byte
        if quoted:
            at += self.bytes[at : at + 2].find(b'"') + 1
            last -= 1
        for child in node.named_children:
            if quoted and child.start_byte > at:
                yield from unescaped(self._slice(at, child.start_byte), anything=False)
            if quoted and child.type == "string_content":
                yield from unescaped(self._slice(child.start_byte, child.end_byte), anything=False)
            else:
                yield from self._value(child, depth + 1)
            at = max(at, child.end_byte)
        if quoted and at < last:
            yield from unescaped(self._slice(at, last), anything=False)

    def _expansion(self, node: Node) -> Iterator[Letter]:
        text = self._text(node)
        found = re.fullmatch(r"\$\{?([A-Za-z_]\w*|[@*#?0-9])(?:\[[^\]]*\])?(.*?)\}?", text, re.DOTALL)
        if found is None:
            yield from self._unknown(node, "?")
            return
        name, rest = found[1], found[2] if text.startswith("${") else ""
        listed = self._variables.get(name)
        known: Value | None = tuple(joined(listed)) if listed is not None else None
        if known is None and name in self.given:
            known = tuple(Letter(char, self._offset(node.start_byte)) for char in self.given[name])
        if self._arguments and name.isdecimal() and 0 < int(name) <= len(self._arguments):
            known = self._arguments[int(name) - 1].letters
        if known and not rest.startswith((":+", "+")):
            yield from known if not rest or rest[0] in ":-?=" else self._unknown(node, name)
        elif rest.startswith((":-", ":=", "-", "=")):
            default = interpolate(rest.lstrip(":")[1:].strip("\"'"), self._known)
            yield from (Letter(char, self._offset(node.start_byte)) for char in default)
        elif rest.startswith((":+", "+")) or known is not None:
            return
        else:
            yield from self._unknown(node, name)

    @property
    def _known(self) -> dict[str, str]:
        own = {name: "".join(letter.text for letter in joined(values)) for name, values in self._variables.items()}
        return {**self.given, **own}

    def _sum(self, node: Node) -> Iterator[Letter]:
        """`$((8000 + i))`, where all of it is known and only added."""
        inner = re.sub(r"^\$?\(\(|\)\)$", "", self._text(node))
        filled = re.sub(r"\$?\{?([A-Za-z_]\w*)\}?", lambda match: self._number(match[1]), inner).replace(" ", "")
        if re.fullmatch(r"\d{1,9}(?:[+-]\d{1,9})*", filled):
            total = sum(int(part) for part in re.findall(r"[+-]?\d+", filled))
            yield from (Letter(char, self._offset(node.start_byte)) for char in str(total))
        else:
            yield from self._unknown(node, "sum")

    def _number(self, name: str) -> str:
        return "".join(letter.text for letter in joined(self._variables.get(name, ()))) or "?"

    def _unknown(self, node: Node, name: str) -> Iterator[Letter]:
        offset = self._offset(node.start_byte)
        return (Letter(char, offset) for char in f"${{{name}}}")

    # places -------------------------------------------------------------------------------------------------------

    def _text(self, node: Node) -> str:
        return self.bytes[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def _place(self, byte: int) -> int:
        return byte if self._chars is None else self._chars[min(byte, len(self._chars) - 1)]

    def _offset(self, byte: int) -> int:
        place = min(self._place(byte), len(self._letters) - 1)
        return self._letters[place].offset if place >= 0 else 0

    def _slice(self, start: int, end: int) -> Sequence[Letter]:
        return self._letters[self._place(start) : self._place(end)] if end > start else ()


_EXPANSIONS = {"simple_expansion", "expansion", "arithmetic_expansion", *_FOREIGN}


def _substitutions(node: Node, depth: int) -> Iterator[Node]:
    """The outermost `$(...)` in a command."""
    for child in node.named_children:
        if child.type in _FOREIGN:
            yield child
        elif depth < _DEEPEST:
            yield from _substitutions(child, depth + 1)
