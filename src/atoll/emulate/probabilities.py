"""Made-up probabilities, in the shapes of vLLM: a token that was taken is always the likeliest of its place.

They are the same for the same token and place, add up to no more than one, and say nothing of any model.
"""

import math
import zlib
from dataclasses import dataclass
from itertools import islice
from typing import Any

from atoll.emulate.ask import Ask, Shown
from atoll.emulate.vocabulary import Vocabulary, neighbours
from atoll.emulate.words import RING

LEAST = 1e-30  # of a token that is listed
END_SHOWN = "<|im_end|>"  # the end of a sequence, where tokens are listed


@dataclass(frozen=True, slots=True)
class Candidate:
    number: int  # the token's id
    text: str
    logprob: float
    rank: int


def candidates(
    vocabulary: Vocabulary, number: int, *, place: int, count: int, ids: tuple[int, ...] = ()
) -> list[Candidate]:
    """The token that was taken, then others by falling probability: `count` in all (at least one), or these `ids`."""
    text = vocabulary.text_of(number)
    roll = zlib.crc32(f"{number} {place}".encode())
    taken = 0.35 + 0.6 * (roll % 1000) / 1000
    found = [Candidate(number, text or END_SHOWN, round(math.log(taken), 6), 1)]
    others: list[tuple[int, str]]
    if ids:
        others = [(other, vocabulary.text_of(other) or END_SHOWN) for other in ids if other != number]
    else:
        texts = [word for word in neighbours(roll % RING, count) if word != text][: max(0, count - 1)]
        others = [(vocabulary.id_of(word), word) for word in texts]
        if count > len(others) + 1:  # more than there are words: any other token of the vocabulary
            listed = {number, *(other for other, _ in others)}
            rest = (other for other in range(vocabulary.size) if other not in listed)
            more = islice(rest, count - len(others) - 1)
            others += [(other, vocabulary.text_of(other) or END_SHOWN) for other in more]
    left = 1 - taken
    for rank, (other, word) in enumerate(others, 2):
        left = max(left / 2, LEAST)
        found.append(Candidate(other, word, round(math.log(left), 6), rank))
    return found


class Odds:
    """The probabilities that one answer shows."""

    def __init__(self, vocabulary: Vocabulary, ask: Ask, shown: Shown) -> None:
        self._vocabulary = vocabulary
        self._ask = ask
        self._shown = shown
        self._offset = 0  # letters of the tokens listed so far

    def ids(self, first: int, stop: int) -> list[int]:
        """The ids of some of the answer's tokens."""
        return [self._vocabulary.id_of(self._ask.piece(place)) for place in range(first, stop)]

    def chat(self, first: int, stop: int) -> dict[str, Any]:
        """`logprobs` of a chat's choice, for some of its tokens."""
        top = self._count(self._shown.logprobs)
        content = []
        for place in range(first, stop):
            ranked = self._at(place)
            listed = ranked if self._shown.logprob_ids else ranked[:top]
            entry = self._entry(ranked[0]) | {"bytes": list(ranked[0].text.encode(errors="replace"))}
            content.append(entry | {"top_logprobs": [self._entry(one) for one in listed]})
        return {"content": content}

    def text(self, first: int, stop: int, *, prompt: bool = False) -> dict[str, Any]:
        """`logprobs` of a completion's choice, for some of its tokens, and its prompt's before them."""
        rows: list[tuple[str, list[Candidate] | None]] = []
        if prompt:
            for place, number in enumerate(self._ask.prompt_ids):
                ranked = self._prompt_at(place, self._count(self._shown.logprobs)) if place else None
                rows.append((self._vocabulary.text_of(number), ranked))
        rows += [(self._ask.piece(place), self._at(place)) for place in range(first, stop)]
        tokens, offsets, ours, top = [], [], [], []
        for text, ranked in rows:
            token = self._token(ranked[0]) if ranked else self._token_of_text(text)
            tokens.append(token)
            offsets.append(self._offset)
            self._offset += len(token)
            ours.append(ranked[0].logprob if ranked else None)
            top.append({self._token(one): one.logprob for one in ranked} if ranked else None)
        return {"text_offset": offsets, "token_logprobs": ours, "tokens": tokens, "top_logprobs": top}

    def prompt(self) -> list[dict[str, Any] | None] | None:
        """`prompt_logprobs`: nothing for the first token, then one dictionary a token."""
        asked = self._shown.prompt_logprobs
        if asked is None:
            return None
        listed: list[dict[str, Any] | None] = [None]
        for place in range(1, len(self._ask.prompt_ids)):
            ranked = self._prompt_at(place, self._count(asked))
            listed.append(
                {
                    str(one.number): {"logprob": one.logprob, "rank": one.rank, "decoded_token": one.text}
                    for one in ranked
                }
            )
        return listed

    def _count(self, asked: int | None) -> int:
        """How many to list; -1 is all of the vocabulary."""
        return self._vocabulary.size if asked == -1 else asked or 0

    def _at(self, place: int) -> list[Candidate]:
        number = self._vocabulary.id_of(self._ask.piece(place))
        count = max(1, self._count(self._shown.logprobs))
        return candidates(self._vocabulary, number, place=place, count=count, ids=self._shown.logprob_ids)

    def _prompt_at(self, place: int, count: int) -> list[Candidate]:
        return candidates(self._vocabulary, self._ask.prompt_ids[place], place=place, count=max(1, count))

    def _entry(self, one: Candidate) -> dict[str, Any]:
        token = self._token(one)
        return {"token": token, "logprob": one.logprob, "bytes": list(token.encode(errors="replace"))}

    def _token(self, one: Candidate) -> str:
        return f"token_id:{one.number}" if self._shown.tokens_as_ids else one.text

    def _token_of_text(self, text: str) -> str:
        return f"token_id:{self._vocabulary.id_of(text)}" if self._shown.tokens_as_ids else text
