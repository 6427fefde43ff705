"""Tokens drawn one by one, where a request says what it wants of them: bias, bans, penalties, allowed ids, beams.

The order of vLLM 0.32's sampler (vllm/v1/sample/sampler.py): allowed ids, bad words, bias, penalties, then the
likeliest token. What it chooses among is made up (emulate/probabilities.py): at each place of the answer the
ring's word is the likeliest, some of its neighbours come next, and every other token is as unlikely as the others.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from atoll.emulate.probabilities import candidates
from atoll.emulate.refusal import bad
from atoll.emulate.vocabulary import Vocabulary
from atoll.emulate.words import RING, answer_ring

LIFT = 8.0  # a logit is a log-probability and this, so that most are above zero as a model's are
UNLIKELY = -2.0  # the logit of a token that is none of a place's candidates
CHOICES = 8  # candidates of a place
MOST_WANTED = 64  # tokens with a rising bias that are candidates everywhere, the highest first
EXCLUDED = -100.0  # a bias that takes a token out, by OpenAI's definition
MOST_BAD_WORDS = 128  # vLLM: VLLM_MAX_NUM_BAD_WORDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What a request says of single tokens, by their ids."""

    bias: dict[int, float]
    bad: tuple[tuple[int, ...], ...]  # sequences that must not come up
    allowed: tuple[int, ...]  # none: all are
    presence: float
    frequency: float
    repetition: float
    prompt: frozenset[int]  # ids of the prompt, where repetition counts

    @property
    def none(self) -> bool:
        return not (self.bias or self.bad or self.allowed or self.penalised)

    @property
    def penalised(self) -> bool:
        return bool(self.presence or self.frequency) or self.repetition != 1.0

    def excludes(self, ids: Sequence[int]) -> bool:
        """Whether such an answer has a token or words that are excluded."""
        if any(self.bias.get(number, 0.0) <= EXCLUDED for number in ids):
            return True
        return any(_ends_with(ids[: end + 1], word) for word in self.bad for end in range(len(ids)))


# The fields that say them.
WISHES = frozenset(
    ("logit_bias", "bad_words", "allowed_token_ids", "presence_penalty", "frequency_penalty", "repetition_penalty")
)
NO_WISHES = Wishes(bias={}, bad=(), allowed=(), presence=0.0, frequency=0.0, repetition=1.0, prompt=frozenset())


def wishes_of(fields: Any, prompt: Sequence[int], vocabulary: Vocabulary) -> Wishes:
    """The wishes of a body whose bounds have been checked.

    Raises:
        Refusal: bad words that are none, or too many.
    """
    return Wishes(
        bias={int(key): min(100.0, max(-100.0, value)) for key, value in (fields.logit_bias or {}).items() if value},
        bad=_bad_words(getattr(fields, "bad_words", []), vocabulary),
        allowed=tuple(dict.fromkeys(getattr(fields, "allowed_token_ids", None) or ())),
        presence=fields.presence_penalty or 0.0,
        frequency=fields.frequency_penalty or 0.0,
        repetition=fields.repetition_penalty or 1.0,
        prompt=frozenset(prompt),
    )


def _bad_words(words: Sequence[str], vocabulary: Vocabulary) -> tuple[tuple[int, ...], ...]:
    """Each word as it begins a text and as it stands within one (vLLM: SamplingParams.update_from_tokenizer)."""
    found: list[tuple[int, ...]] = []
    for word in words:
        first = tuple(vocabulary.encode(word.lstrip()))
        if not first:
            raise bad("bad_words entries must tokenize to at least one token.", "bad_words", list(words))
        found.append(first)
        within = tuple(vocabulary.encode(f" {word.lstrip()}"))
        if within[0] != first[0] and len(within) == len(first):
            found.append(within)
        if len(found) > MOST_BAD_WORDS:
            many = f"Too many bad words after tokenization: {MOST_BAD_WORDS + 1}. The max number is {MOST_BAD_WORDS}."
            raise bad(many, "bad_words", list(words))
    return tuple(found)


class Drawing:
    """One sequence under its wishes, from place `start` of the ring on."""

    def __init__(self, wishes: Wishes, vocabulary: Vocabulary, start: int) -> None:
        self._wishes = wishes
        self._vocabulary = vocabulary
        self._start = start
        self._ids: list[int] = []
        self._counts: Counter[int] = Counter()
        rising = sorted(
            (number for number, value in wishes.bias.items() if value > 0), key=lambda one: -wishes.bias[one]
        )
        self._wanted = rising[:MOST_WANTED]
        self._allowed = frozenset(wishes.allowed)
        self._others: list[int] | None = None  # found when they are needed
        self._last_words: dict[int, list[tuple[int, ...]]] = {}
        for word in wishes.bad:
            self._last_words.setdefault(word[-1], []).append(word)

    @property
    def may_end(self) -> bool:
        """Whether the end of the sequence is left among what may come."""
        end = self._vocabulary.end
        allowed = not self._allowed or end in self._allowed
        return allowed and self._wishes.bias.get(end, 0.0) > EXCLUDED

    def words(self, count: int, *, least: int, stops: bool) -> tuple[tuple[str, ...], bool]:
        """So many tokens at most, and whether the end came up, from the `least`th on; where it does not stop the answer
        it is a token without a text.
        """
        words: list[str] = []
        for place in range(count):
            number = self._best(place, ends=place >= least)
            if number == self._vocabulary.end and stops:
                return tuple(words), True
            self._ids.append(number)
            self._counts[number] += 1
            words.append(self._vocabulary.text_of(number))
        return tuple(words), False

    def _best(self, place: int, *, ends: bool) -> int:
        end = self._vocabulary.end
        logits = self._logits(place)
        if not ends:
            logits.pop(end, None)
        best, most = None, 0.0
        for number, logit in logits.items():
            if self._is_bad(number):
                continue
            adjusted = self._adjusted(number, logit)
            if best is None or adjusted > most:
                best, most = number, adjusted
        return self._any_other(place) if best is None or most < EXCLUDED / 2 else best

    def _logits(self, place: int) -> dict[int, float]:
        """What may come at a place, the likeliest first."""
        wishes = self._wishes
        if wishes.allowed:  # all as likely, in turn
            count = len(wishes.allowed)
            logits = {wishes.allowed[at % count]: UNLIKELY for at in range(place, place + min(count, CHOICES))}
            logits |= dict.fromkeys((number for number in self._wanted if number in self._allowed), UNLIKELY)
            return logits
        word = answer_ring()[(self._start + place) % RING]
        listed = candidates(self._vocabulary, self._vocabulary.id_of(word), place=place, count=CHOICES)
        logits = {one.number: one.logprob + LIFT for one in listed}
        for number in self._wanted:
            logits.setdefault(number, UNLIKELY)
        return logits

    def _adjusted(self, number: int, logit: float) -> float:
        wishes, times = self._wishes, self._counts[number]
        logit += wishes.bias.get(number, 0.0)
        if wishes.repetition != 1.0 and (times or number in wishes.prompt):
            logit = logit / wishes.repetition if logit > 0 else logit * wishes.repetition
        return logit - wishes.frequency * times - (wishes.presence if times else 0.0)

    def _is_bad(self, number: int) -> bool:
        return any(self._follows(word[:-1]) for word in self._last_words.get(number, ()))

    def _follows(self, before: tuple[int, ...]) -> bool:
        return _ends_with(self._ids, before)

    def _any_other(self, place: int) -> int:
        """All candidates are kept out: a word of the ring that is not, else any token, in turn."""
        if self._others is None:
            self._others = list(islice(self._kept_in(), CHOICES))
        others = self._others or [0]
        turns = (others[(place + turn) % len(others)] for turn in range(len(others)))
        return next((number for number in turns if not self._is_bad(number)), others[0])

    def _kept_in(self) -> Iterator[int]:
        """Tokens that neither a bias nor a single bad word excludes; none but allowed ones where some are."""
        wishes, single = self._wishes, {word[0] for word in self._wishes.bad if len(word) == 1}
        ring = dict.fromkeys(self._vocabulary.id_of(word) for word in answer_ring())
        numbers = wishes.allowed or (*ring, *range(self._vocabulary.end))
        for number in numbers:
            if number not in single and wishes.bias.get(number, 0.0) > EXCLUDED:
                yield number


def _ends_with(ids: Sequence[int], word: Sequence[int]) -> bool:
    return not word or (len(ids) >= len(word) and tuple(ids[-len(word) :]) == tuple(word))


def beams(words: Sequence[str], vocabulary: Vocabulary, *, count: int) -> list[tuple[str, ...]]:
    """`count` answers by falling sum of their log-probabilities: these words, and others that differ in one of them."""
    ids = [vocabulary.id_of(word) for word in words]
    if not ids:
        return [tuple(words)] * count
    found: list[tuple[float, tuple[str, ...]]] = [(0.0, tuple(words))]
    places = len(ids)
    for number in range(count - 1 + CHOICES):
        place, rank = number % places, 1 + number // places
        taken, *others = candidates(vocabulary, ids[place], place=place, count=rank + 2)
        other = others[min(rank, len(others)) - 1]
        (instead,) = candidates(vocabulary, other.number, place=place, count=1)
        changed = (*words[:place], other.text, *words[place + 1 :])
        found.append((instead.logprob - taken.logprob, changed))
    found.sort(key=lambda one: -one[0])
    return [beam for _, beam in found[:count]]
