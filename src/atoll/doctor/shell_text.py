"""Letters of a shell's text: bytes to characters, backslashes, blanks, pieces of words."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from atoll.doctor.letters import Letter
from atoll.doctor.words import Word

Value = tuple[Letter, ...]


def characters(text: str) -> list[int]:
    """For every byte of the UTF-8 text the character that it belongs to, and one place after the last."""
    made: list[int] = []
    for place, char in enumerate(text):
        made += [place] * len(char.encode("utf-8", "replace"))
    return [*made, len(text)]


def unescaped(letters: Sequence[Letter], *, anything: bool) -> Iterator[Letter]:
    r"""Backslashes taken off: before anything in a bare word, before `"`, `\`, `$` and a backquote between quotes."""
    place = 0
    while place < len(letters):
        following = letters[place + 1].text if place + 1 < len(letters) else ""
        if letters[place].text == "\\" and following and (anything or following in '"\\$`\n'):
            if following != "\n":
                yield letters[place + 1]
            place += 2
            continue
        yield letters[place]
        place += 1


def split_value(letters: Value) -> list[Value]:
    parts: list[list[Letter]] = [[]]
    for letter in letters:
        if letter.text.isspace():
            parts.append([])
        else:
            parts[-1].append(letter)
    return [tuple(part) for part in parts if part]


def joined(values: Sequence[Value]) -> Iterator[Letter]:
    for number, value in enumerate(values):
        if number:
            yield Letter(" ", value[0].offset if value else 0)
        yield from value


def within(word: Word, start: int, text: str) -> Word:
    """A piece of a word from character `start` on, where it stands if the word stands there as it is."""
    if not word.direct or word.end - word.start != len(word.text):
        return replace(word, text=text, direct=False, letters=word.letters[start : start + len(text)])
    first = word.start + start
    return replace(word, text=text, start=first, end=first + len(text), letters=word.letters[start : start + len(text)])
