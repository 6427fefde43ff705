"""What the users say. All text is made before the load; during it, a prompt is a slice of what is there.

A synthetic prompt of n tokens is n common English words. Nearly every tokenizer has each of them, with the blank before
it, as one token; with the model's own tokenizer at hand only words for which that is true are used, and the count is
exact. Every prompt starts at a place of its own in one long random text, so that no two share a beginning and the
engine's prefix cache cannot help, unless a shared prefix is asked for.
"""

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atoll.traffic.request import Request

WORDS = """
the of and to in is that for it as was with be by on not he this are or his from at which but have an had
they you were their one all we can her has there been if more when will would who so no out up into do any
your what its about than them these other time new some could now first my made over did down only way find
use may water long little very after words called just where most know get through back much before go good
write our used me man too day same right look think also around another came come work three word must
because does part even place well such here take why things help put years different away again off went old
number great tell men say small every found still between name should home big give air line set own under
read last never us left end along while might next sound below saw something thought both few those always
looked show large often together asked house world going want school important until form food keep children
feet land side without boy once animals life enough took four head above kind began almost live page got
earth need far hand high year mother light country father let night picture being study second soon story
since white ever paper hard near sentence better best across during today however sure knew try told young
sun thing whole hear example heard several change answer room sea against top turned learn point city play
toward five using himself usually money seen car morning
""".split()  # noqa: SIM905 - a page of words reads better than a list
_BLOB_WORDS = 200_000
_STRIDE = 61_803  # odd and no multiple of 5, so that its multiples reach every place of the blob


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What a request says."""

    text: bytes  # JSON text without the quotes around it
    before: bytes = b""  # messages before it as JSON objects, with a comma behind each
    message: bytes | None = None  # the whole message as a JSON object, where it is more than text
    fields: Mapping[str, Any] | None = None  # further fields of just this request
    prompt_tokens: int | None = None  # when it is not what the request asked for
    output_tokens: int | None = None  # likewise


class Prompts(Protocol):
    """Gives what a request says."""

    how: str  # how the token counts were made, for the report

    def make(self, request: Request) -> Made: ...


_ASIDE = 10**9 + 7  # no run has so many requests


class Aside:
    """Prompts for who asks beside the run: others than those that the run will send."""

    def __init__(self, prompts: Prompts) -> None:
        self.how = prompts.how
        self._prompts = prompts

    def make(self, request: Request) -> Made:
        return self._prompts.make(replace(request, number=request.number + _ASIDE))


@dataclass(frozen=True, slots=True)
class _Blob:
    """One long text and where each of its words begins."""

    text: bytes
    starts: "array[int]"

    def slice(self, first: int, count: int) -> bytes:
        return self.text[self.starts[first] : self.starts[first + count] - 1]


class SyntheticPrompts:
    """Random words, as many as tokens are wanted; the same seed gives the same prompts."""

    def __init__(
        self, *, seed: int, words: Sequence[str] = WORDS, overhead: int = 0, tokens_per_word: float = 1.0, how: str = ""
    ) -> None:
        """Make the text.

        Args:
            seed: of the generator.
            words: each one token with a blank before it, and nothing that JSON would escape.
            overhead: tokens that the chat template adds to every prompt; so many fewer are sent.
            tokens_per_word: 1 for words of one token; else as calibrated.
            how: how the counts were made, for the report.
        """
        rng = np.random.default_rng([seed, 4])
        self._blob = _blob(words, rng.integers(len(words), size=_BLOB_WORDS))
        self._lap_words = [word.encode() for word in words]
        self._overhead = overhead
        self._tokens_per_word = tokens_per_word
        self.how = how or "one common English word a token; the model's tokenizer was not at hand"

    def make(self, request: Request) -> Made:
        """The shared words first, then words from a place that only this request has."""
        overhead = 0 if request.history_tokens else self._overhead
        wanted = self._words(request.prompt_tokens - request.history_tokens - overhead)
        shared = min(self._words(request.shared_prefix_tokens), wanted) if self._shares(request) else 0
        head = self._piece(request.prefix * 7919, shared) if shared else b""
        own = self._own(request.number, wanted - shared) if wanted > shared else b""
        return Made(text=head + b" " + own if head and own else head or own)

    def _words(self, tokens: int) -> int:
        return max(1, round(tokens / self._tokens_per_word))

    def _shares(self, request: Request) -> bool:
        """The first turn of a session carries the shared prefix; the later ones have it in their history."""
        return request.shared_prefix_tokens > 0 and request.history_tokens == 0

    def _own(self, number: int, count: int) -> bytes:
        """Words that no other request begins with.

        Multiples of an odd number reach every place once; who comes after all places are taken also gets words in
        front that count the laps.
        """
        lap, _ = divmod(number, _BLOB_WORDS)
        front: list[bytes] = []
        while lap and len(front) < count:
            lap, word = divmod(lap, len(self._lap_words))
            front.append(self._lap_words[word])
        place = 104_729 + number * _STRIDE
        if len(front) == count:
            return b" ".join(front)
        return b" ".join([*front, self._piece(place, count - len(front))])

    def _piece(self, place: int, count: int) -> bytes:
        """Words from a place in the blob, going round at its end."""
        place %= _BLOB_WORDS
        if place + count <= _BLOB_WORDS:
            return self._blob.slice(place, count)
        pieces = [self._blob.slice(place, _BLOB_WORDS - place)]
        left = count - (_BLOB_WORDS - place)
        while left > 0:
            pieces.append(self._blob.slice(0, min(left, _BLOB_WORDS)))
            left -= _BLOB_WORDS
        return b" ".join(pieces)


def _blob(words: Sequence[str], chosen: NDArray[np.int64]) -> _Blob:
    lengths = np.array([len(word.encode()) + 1 for word in words], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths[chosen])])
    text = (" ".join([words[number] for number in chosen.tolist()]) + " ").encode()
    return _Blob(text, array("q", starts.astype(np.int64).tobytes()))


def json_text(text: str) -> bytes:
    """A string as JSON writes it, without the quotes around it."""
    return json.dumps(text, ensure_ascii=False).encode()[1:-1]
