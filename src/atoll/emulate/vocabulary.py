"""Token ids without a tokenizer: every piece of text gets a number below the model's vocabulary size, and back.

A piece takes the number that its letters hash to, or one close by, so two replicas almost always agree. Ids that a
client names without having seen them get made-up text of their own, so that /detokenize and echoed prompts have
something to say.
"""

import zlib
from collections.abc import Sequence
from functools import cache

from atoll.emulate.words import answer_ring, pieces

PROBES = 8  # numbers that are tried for a piece before one is taken from another


class Vocabulary:
    """Pieces and their ids. `size` is the model's, and bounds what is remembered."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.end = size - 1  # the end of a sequence, which has no text
        self._ids: dict[str, int] = {}
        self._pieces: dict[int, str] = {}

    def id_of(self, piece: str) -> int:
        """The id of one token's text."""
        known = self.end if piece == "" else self._ids.get(piece)
        if known is not None:
            return known
        first = zlib.crc32(piece.encode(errors="replace")) % self.end
        slots = (slot % self.end for slot in range(first, first + PROBES))
        free = next((slot for slot in slots if slot not in self._pieces), first)
        self._ids.pop(self._pieces.get(free, ""), None)
        self._ids[piece], self._pieces[free] = free, piece
        return free

    def text_of(self, number: int) -> str:
        """The text of an id; none for one outside the vocabulary, as vLLM's tokenizers give."""
        if not 0 <= number < self.end:
            return ""
        piece = self._pieces.get(number)
        if piece is None:
            piece = " " + _letters(number)
            while piece in self._ids:
                piece += "x"
            self._ids[piece], self._pieces[number] = number, piece
        return piece

    def encode(self, text: str) -> list[int]:
        return [self.id_of(piece) for piece in pieces(text)]

    def decode(self, numbers: Sequence[int]) -> str:
        return "".join(self.text_of(number) for number in numbers)

    def of_tokens(self, prompt: Sequence[object], text: str | None) -> list[int]:
        """The ids of a prompt that came as text, which is then cut again with its blanks, or as ids."""
        if text is not None:
            return self.encode(text)
        return [number for number in prompt if isinstance(number, int)]


def _letters(number: int) -> str:
    """A number in letters, at most five for any vocabulary: 0 a, 25 z, 26 ba."""
    word = chr(97 + number % 26)
    while number := number // 26:
        word = chr(97 + number % 26) + word
    return word


@cache
def neighbours(place: int, count: int) -> tuple[str, ...]:
    """The words behind a place of the ring, for alternatives to a token: all different, and no more than there are."""
    ring = answer_ring()
    found: dict[str, None] = {}
    for step in range(1, len(ring) + 1):
        if len(found) == count:
            break
        found[ring[(place + 7 * step) % len(ring)]] = None
    return tuple(found)
