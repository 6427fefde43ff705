"""Prompts out of files. Which conversation a request takes is decided by the seed and by who asks, not by when."""

import json
from copy import copy
from typing import Any

import numpy as np

from atoll.load.conversations import Conversation, Said
from atoll.load.prompts import Made, json_text
from atoll.load.tokens import Counter
from atoll.traffic.request import Request


class DatasetPrompts:
    """Prompts of a file. A session goes through one conversation's turns; without sessions each is one request."""

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
        self._turns = [[_made(said, tokens, own_output=own_output) for said in item.turns] for item in conversations]
        self._alone = [
            turns[0] if item.whole is None else _made(item.whole, tokens, own_output=own_output)
            for item, turns in zip(conversations, self._turns, strict=True)
        ]
        exact = "counted by the model's tokenizer" if count else "about four characters a token"
        self.how = f"{len(conversations)} conversations of {origin}; {exact}"
        without = sum(made.output_tokens is None for made in self._alone)
        self.note: str | None = None  # what is not as it was wanted
        if own_output and without:
            which = (
                "no lengths" if without == len(self._alone) else f"no length in {without} of {len(self._alone)} rows"
            )
            self.note = f"{which} in {origin}"

    def with_seed(self, seed: int) -> "DatasetPrompts":
        """The same prompts in another order."""
        other = copy(self)
        other._order = _order(seed, len(self._alone))  # noqa: SLF001 - our own kind
        return other

    def make(self, request: Request) -> Made:
        """The request's text; a session's later turns go round when the file's conversation is shorter."""
        if request.session is None:
            return self._alone[self._order[request.number % len(self._order)]]
        turns = self._turns[self._order[request.session % len(self._order)]]
        return turns[request.turn % len(turns)]


def _order(seed: int, count: int) -> list[int]:
    order: list[int] = np.random.default_rng([abs(seed), 5]).permutation(count).tolist()
    return order


def _made(said: Said, count: Counter, *, own_output: bool) -> Made:
    known = said.output_tokens or (count(said.answer) if said.answer else None)
    said_before = (message.get("content") for message in said.before)
    return Made(
        text=json_text(said.text),
        before=b"".join(_json(message) + b"," for message in said.before),
        message=None if said.message is None else _json(said.message),
        fields=said.fields,
        prompt_tokens=count(said.text) + sum(count(text) for text in said_before if isinstance(text, str)),
        output_tokens=known if own_output else None,
    )


def _json(plain: Any) -> bytes:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
