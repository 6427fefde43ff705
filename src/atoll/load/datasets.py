"""Prompts out of files: ShareGPT JSON, JSON lines, CSV, a folder of text files.

Each becomes a list of Conversations. Which one a request takes is decided by the seed and by who asks, not by when.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atoll.errors import BadTraffic
from atoll.load.prompts import Made, json_text
from atoll.load.tokens import Counter
from atoll.outside.files import read_text
from atoll.traffic.request import Request

_TEXT_COLUMNS = ("prompt", "text", "question", "instruction", "input", "content", "query")
_OUTPUT_COLUMNS = ("output_tokens", "max_tokens", "output_len", "completion_tokens")
_USERS = {"user", "human"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One thing that a user says, and how long the answer was, when the file knows."""

    text: str
    before: tuple[tuple[str, str], ...] = ()  # earlier messages of the file: (role, text)
    output_tokens: int | None = None
    answer: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    turns: tuple[Said, ...]


def read_conversations(path: Path) -> list[Conversation]:
    """Everything that a file or folder holds.

    Raises:
        InputError: it cannot be read.
        BadTraffic: it is none of the forms, or holds no prompt.
    """
    if path.is_dir():
        found = [_single(read_text(file)) for file in sorted(path.rglob("*.txt"))]
    elif path.suffix == ".csv":
        found = list(_from_csv(read_text(path), str(path)))
    elif path.suffix == ".txt":
        found = [_single(read_text(path))]
    else:
        found = list(_from_json(read_text(path), str(path)))
    found = [item for item in found if item.turns and item.turns[0].text.strip()]
    if not found:
        raise BadTraffic(
            f"{path} holds no prompts. Give ShareGPT JSON, JSON lines with `messages` or `prompt`, a CSV with a"
            " `prompt` column, or a folder of .txt files."
        )
    return found


def _single(text: str, *, output_tokens: int | None = None) -> Conversation:
    return Conversation(turns=(Said(text=text, output_tokens=output_tokens),))


def _from_csv(text: str, origin: str) -> Iterator[Conversation]:
    reader = csv.DictReader(io.StringIO(text))
    names = {name.strip().lower(): name for name in reader.fieldnames or ()}
    column = next((names[name] for name in _TEXT_COLUMNS if name in names), None)
    if column is None:
        raise BadTraffic(f"{origin}: no column {_TEXT_COLUMNS[0]} (or {', '.join(_TEXT_COLUMNS[1:])}).")
    length = next((names[name] for name in _OUTPUT_COLUMNS if name in names), None)
    for row in reader:
        yield _single(row[column] or "", output_tokens=_count(row[length]) if length else None)


def _from_json(text: str, origin: str) -> Iterator[Conversation]:
    """A JSON array (ShareGPT) or one JSON object a line."""
    if text.lstrip("\ufeff \t\r\n").startswith("["):
        try:
            items = json.loads(text)
        except ValueError as error:
            raise BadTraffic(f"{origin}: this is not JSON: {error}.") from None
        yield from (_conversation(item, f"{origin}: item {number}") for number, item in enumerate(items))
        return
    for line, piece in enumerate(text.splitlines(), start=1):
        if piece.strip():
            try:
                item = json.loads(piece)
            except ValueError:
                raise BadTraffic(f"{origin}: line {line} is not JSON.") from None
            yield _conversation(item, f"{origin}: line {line}")


def _conversation(item: object, place: str) -> Conversation:
    """`conversations` (ShareGPT: from/value), `messages` (role/content), `prompt`, or plain text."""
    if isinstance(item, str):
        return _single(item)
    if isinstance(item, list):
        return _turns(item)
    if not isinstance(item, dict):
        raise BadTraffic(f"{place}: a prompt is text, `messages` or `conversations`; this is {type(item).__name__}.")
    for key in ("conversations", "conversation", "messages"):
        if isinstance(item.get(key), list):
            return _turns(item[key], output_tokens=_wanted(item))
    text = next((item[name] for name in _TEXT_COLUMNS if isinstance(item.get(name), str)), None)
    if text is None:
        raise BadTraffic(f"{place}: none of conversations, messages, {', '.join(_TEXT_COLUMNS)}.")
    return _single(text, output_tokens=_wanted(item))


def _wanted(item: Mapping[str, Any]) -> int | None:
    return next((_count(item[name]) for name in _OUTPUT_COLUMNS if name in item), None)


def _count(value: object) -> int | None:
    try:
        number = int(float(str(value)))
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None


def _turns(messages: list[Any], *, output_tokens: int | None = None) -> Conversation:
    """What users say, each with the file's system messages before the first and the file's answer behind it."""
    before: list[tuple[str, str]] = []
    turns: list[Said] = []
    for message in messages:
        if not isinstance(message, dict):
            continue
        role = str(message.get("role") or message.get("from") or "")
        text = message.get("content") if "content" in message else message.get("value")
        if not isinstance(text, str):
            continue
        if role in _USERS:
            turns.append(Said(text=text, before=tuple(before), output_tokens=output_tokens))
            before = []
        elif role == "system":
            before.append(("system", text))
        elif turns and turns[-1].answer is None:
            last = turns[-1]
            turns[-1] = Said(text=last.text, before=last.before, output_tokens=output_tokens, answer=text)
    return Conversation(turns=tuple(turns))


class DatasetPrompts:
    """Prompts of a file. A session goes through one conversation's turns; without sessions first turns are taken."""

    def __init__(
        self,
        conversations: list[Conversation],
        *,
        origin: str,
        seed: int,
        count: Counter | None = None,
        own_output: bool = False,
    ) -> None:
        """Turn them into JSON text, and count their tokens once.

        Args:
            conversations: what the file holds.
            origin: the file, for the report.
            seed: of the order.
            count: the model's tokenizer; None: four characters a token.
            own_output: answers get the length that they have in the file, where it is known.
        """
        tokens = count or (lambda text: max(1, len(text) // 4))
        self._order = _order(seed, len(conversations))
        self._made: list[list[Made]] = [
            [_made(said, tokens, own_output=own_output) for said in item.turns] for item in conversations
        ]
        exact = "counted by the model's tokenizer" if count else "about four characters a token"
        self.how = f"{len(conversations)} conversations of {origin}; {exact}"

    def with_seed(self, seed: int) -> "DatasetPrompts":
        """The same prompts in another order."""
        other = copy(self)
        other._order = _order(seed, len(self._made))  # noqa: SLF001 - our own kind
        return other

    def make(self, request: Request) -> Made:
        """The request's text; a session's later turns go round when the file's conversation is shorter."""
        if request.session is None:
            return self._made[self._order[request.number % len(self._order)]][0]
        turns = self._made[self._order[request.session % len(self._order)]]
        return turns[request.turn % len(turns)]


def _order(seed: int, count: int) -> list[int]:
    order: list[int] = np.random.default_rng([seed, 5]).permutation(count).tolist()
    return order


def _made(said: Said, count: Counter, *, own_output: bool) -> Made:
    before = b"".join(b'{"role":"%s","content":"%s"},' % (role.encode(), json_text(text)) for role, text in said.before)
    known = said.output_tokens or (count(said.answer) if said.answer else None)
    return Made(
        text=json_text(said.text),
        before=before,
        prompt_tokens=count(said.text) + sum(count(text) for _, text in said.before),
        output_tokens=known if own_output else None,
    )
