"""Text edits of a command's options, in whatever way it is written."""

import re
from collections.abc import Sequence
from dataclasses import replace

from atoll.doctor.edits import Edits, end_of_line, next_line, remove_from_flow, remove_item
from atoll.doctor.finding import Edit
from atoll.doctor.tree import Node
from atoll.doctor.vllm import GivenOption
from atoll.doctor.words import Word


def remove_option(option: GivenOption) -> Edits:
    """Take an option and its value out of a command, in whatever way that is written."""
    return _remove_words(option.words)


def _remove_words(words: Sequence[Word]) -> Edits:
    made: list[Edit] = []
    for line in dict.fromkeys(word.line for word in words):
        here = [word for word in words if word.line == line]
        items = [word.item for word in here if word.item is not None]
        if items:
            made += _remove_items(items)
        else:
            made += _remove_span(here[0], here[-1])
    return tuple(made)


def _remove_items(items: Sequence[Node]) -> Edits:
    """List items that stand on one line: `- a` alone, or neighbours in `[a, b, c]`."""
    if len(items) == 1:
        return remove_item(items[0])
    first, last = items[0], items[-1]
    whole = replace(first, end=last.end)
    return remove_from_flow(whole)


def _remove_span(first: Word, last: Word) -> Edits:
    """The words, the blanks before them, and their whole line when nothing else stands there."""
    if not first.source.fixable or not (first.direct and last.direct):
        return ()  # they came out of a variable
    text = first.source.text
    line_start = text.rfind("\n", 0, first.start) + 1
    line_end = end_of_line(text, last.end)
    start, end = first.start, last.end
    before, after = text[line_start:start], text[end:line_end]
    if not before.strip() and after.strip() in {"", "\\"}:
        return (Edit(file=first.file, start=line_start, end=next_line(text, line_end), text=""),)
    if before.strip():
        start = line_start + len(before.rstrip(" \t"))
    else:
        end += len(after) - len(after.lstrip(" \t"))
    return (Edit(file=first.file, start=start, end=end, text=""),)


def replace_option(option: GivenOption, name: str, value: str | None) -> Edits:
    """Another name and value in place of an option's; in a list, the words it already has are used."""
    first, rest = option.words[0], option.words[1:]
    if not first.source.fixable or not all(word.direct for word in option.words):
        return ()
    if value is None or option.joined or not rest:
        head = name if value is None else f"{name}={value}"
        return (_put(first, head), *_remove_words(rest))
    return (_put(first, name), _put(rest[0], value))


def _put(word: Word, text: str) -> Edit:
    return Edit(file=word.file, start=word.start, end=word.end, text=_quoted(text, word))


def _quoted(text: str, word: Word) -> str:
    """The text as a YAML list item or as a shell word."""
    if word.item is not None:
        if word.item.style == '"' and '"' not in text and "\\" not in text:
            return f'"{text}"'
        return text if re.fullmatch(r"[A-Za-z/.-][\w./=-]*", text) else "'" + text.replace("'", "''") + "'"
    return text if re.fullmatch(r"[\w./=:,@+-]+", text) else "'" + text + "'"


def split_item(word: Word, parts: Sequence[str]) -> Edits:
    """An item of a list that holds several words as that many items, of the style of the list."""
    item, text = word.item, word.source.text
    if item is None or not word.direct or not word.source.fixable or item.style in {"|", ">"}:
        return ()
    before = text[text.rfind("\n", 0, item.start) + 1 : item.start]
    quoted = [_quoted(part, word) for part in parts]
    between = f"\n{before}" if re.fullmatch(r"\s*-\s*", before) else ", "
    return (Edit(file=word.file, start=item.start, end=item.end, text=between.join(quoted)),)


def add_option(words: Sequence[Word], option: Sequence[str], command: Node | None) -> Edits:
    """Words after the last one of a command."""
    if not words or command is None or not words[-1].source.fixable:
        return ()
    if any(re.match(r"--?[\w-]+\s", word.text) for word in words):
        return ()  # `- --dtype auto`: what is one word today must become two first (VL040)
    last = words[-1]
    if last.item is None:
        if not last.direct:
            return ()
        return (Edit(file=last.file, start=last.end, end=last.end, text=" " + " ".join(option)),)
    quoted = [_quoted(text, last) for text in option]
    text = last.source.text
    head = text[text.rfind("\n", 0, last.start) + 1 : last.start]
    if not re.fullmatch(r"\s*(?:-\s+)+", head):  # between brackets
        return (Edit(file=last.file, start=last.end, end=last.end, text="".join(f", {text}" for text in quoted)),)
    end = end_of_line(text, last.end)
    body = "".join(f"\n{head}{part}" for part in quoted)
    return (Edit(file=last.file, start=end, end=end, text=body),)


def put_before(word: Word, text: str) -> Edits:
    """One more word before this one."""
    if word.item is not None:
        return split_item(word, (text, word.text))
    if not word.direct or not word.source.fixable:
        return ()
    return (Edit(file=word.file, start=word.start, end=word.start, text=f"{text} "),)
