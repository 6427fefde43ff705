"""Command words with their places: the shell's splitting of `command:`, whatever YAML style it is written in."""

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.doctor.letters import Letter, letters
from atoll.doctor.tree import Node, Source

_OPERATORS = ("&&", "||", ";", "|", "&", "\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """One argument. `start` to `end` is what stands in the file, quotes included."""

    text: str
    source: Source
    line: int
    start: int
    end: int
    item: Node | None = None  # the list item that it is, for a command written as a list
    letters: tuple[Letter, ...] = ()  # of the text, quotes taken off
    direct: bool = True  # it stands in the file as it is, and did not come out of a variable
    operator: bool = False

    @property
    def file(self) -> str:
        return self.source.path

    @property
    def known(self) -> bool:
        """Whether no `${VAR}` without a value is left in it."""
        return "${" not in self.text


@dataclass(frozen=True, kw_only=True, eq=False)
class WordList(Node):
    """The command of a service that no Compose file describes: words that were read elsewhere."""

    words: tuple[Word, ...] = ()


def word_list(words: Sequence[Word], near: Node) -> WordList:
    """These words as a value in a service's tree; where there are none, it stands near another one."""
    first, last = (words[0], words[-1]) if words else (near, near)
    texts = " ".join(word.text for word in words)
    return WordList(
        source=first.source, line=first.line, start=first.start, end=max(first.start, last.end), tag="str", text=texts,
        raw=texts, words=tuple(words),
    )  # fmt: skip


def words_of(node: Node | None) -> tuple[Word, ...]:
    """The words of a `command` or `entrypoint`: list items as they are, a string split as a shell does."""
    if isinstance(node, WordList):
        return node.words
    if node is None or (node.text is None and not node.is_list):
        return ()
    if node.is_list:
        return tuple(_item_word(item) for item in node.items if item.is_scalar and item.text is not None)
    return split_words(letters(node), node.source, script=False)


def _item_word(item: Node) -> Word:
    return Word(
        text=item.text or "",
        source=item.source,
        line=item.line,
        start=item.start,
        end=item.end,
        item=item,
        letters=tuple(letters(item)),
        direct="$" not in (item.raw or ""),
    )


def script_words(word: Word) -> tuple[Word, ...]:
    """The words of a script handed to `sh -c`; operators and line ends are words with `operator` set."""
    return split_words(word.letters, word.source, script=True)


def split_words(chars: Sequence[Letter], source: Source, *, script: bool) -> tuple[Word, ...]:
    """Split as a POSIX shell does, keeping for every word where it stands.

    Args:
        chars: the text with the offset of each character.
        source: the file in which the offsets count.
        script: `&&`, `;`, `|` and line ends are words of their own, and `#` starts a comment.
    """
    return tuple(_Splitter(chars, source, script=script).split())


class _Splitter:
    def __init__(self, chars: Sequence[Letter], source: Source, *, script: bool) -> None:
        self._chars, self._source, self._script = chars, source, script
        self._at = 0
        self._made: list[Word] = []

    def split(self) -> list[Word]:
        while self._at < len(self._chars):
            char = self._chars[self._at].text
            if self._script and self._take_operator():
                continue
            if char.isspace() or not char or self._is_continuation():
                self._at += 2 if self._is_continuation() else 1
            elif self._script and char == "#":
                self._skip_comment()
            else:
                self._take_word()
        return self._made

    def _is_continuation(self) -> bool:
        here = self._chars[self._at : self._at + 2]
        return len(here) == 2 and here[0].text == "\\" and here[1].text in {"\n", ""}

    def _take_operator(self) -> bool:
        here = "".join(letter.text for letter in self._chars[self._at : self._at + 2])
        for operator in _OPERATORS:
            if here.startswith(operator):
                end = self._at + len(operator)
                self._add(self._at, end, self._chars[self._at : end], operator=True)
                self._at += len(operator)
                return True
        return False

    def _skip_comment(self) -> None:
        while self._at < len(self._chars) and self._chars[self._at].text != "\n":
            self._at += 1

    def _take_word(self) -> None:
        first, quote = self._at, ""
        made: list[Letter] = []
        while self._at < len(self._chars):
            letter = self._chars[self._at]
            char = letter.text
            if quote:
                if char == quote:
                    quote = ""
                elif char == "\\" and quote == '"' and self._at + 1 < len(self._chars):
                    made += self._escaped_in_quotes()
                else:
                    made.append(letter)
            elif char in {"'", '"'}:
                quote = char
            elif char == "\\" and self._at + 1 < len(self._chars):
                if self._is_continuation():
                    break
                self._at += 1
                made.append(self._chars[self._at])
            elif char.isspace() or (self._script and char in {";", "|", "&"}):
                break
            else:
                made.append(letter)
            self._at += 1
        self._add(first, self._at, made)

    def _escaped_in_quotes(self) -> list[Letter]:
        """Between double quotes a backslash protects only these four."""
        backslash, self._at = self._chars[self._at], self._at + 1
        following = self._chars[self._at]
        return [following] if following.text in '"\\$`' else [backslash, following]

    def _add(self, first: int, last: int, inner: Sequence[Letter], *, operator: bool = False) -> None:
        start, end = self._chars[first].offset, self._chars[last - 1].offset + 1
        self._made.append(
            Word(
                text="".join(letter.text for letter in inner),
                source=self._source,
                line=self._source.line_at(start),
                start=start,
                end=end,
                letters=tuple(inner),
                direct=last - first == end - start,
                operator=operator,
            )
        )
