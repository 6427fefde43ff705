"""Texts in, texts out, without a tokenizer.

A prompt counts one token for every word of up to 12 letters, every group of up to three digits and every other sign,
which is close to what byte-pair tokenizers do with English and exact for prompts made of plain words. An answer is made
of four-letter words, one token each with its leading blank, so every streamed chunk has the same length.
"""

import re
from collections.abc import Sequence
from functools import cache
from random import Random

_PIECE = re.compile(r"[A-Za-z]{1,12}|[0-9]{1,3}|[^\sA-Za-z0-9]")
_WITH_BLANKS = re.compile(r"\s*(?:[A-Za-z]{1,12}|[0-9]{1,3}|[^\sA-Za-z0-9])(?:\s+\Z)?")

_VOCABULARY = (  # noqa: SIM905 - a list of 180 lines is no easier to read
    "able also area away back base been best both call came case city come cost data date days deal does done door"
    " down each east even ever face fact fall feel feet file find fine fire firm five flow food form four free from"
    " full game gave gift girl give goal goes gold good gray grew grow half hall hand hang hard have head hear heat"
    " held help here high hill hold hole home hope hour huge idea into iron item join jump just keep kept kind king"
    " knew know lack lady lake land lane last late lead left less life lift like line list live load loan long look"
    " loss lost lots love luck made mail main make many mark mass meal mean meet mile milk mill mind mine miss mode"
    " moon more most move much must name near neck need news next nice nine none noon nose note okay once only onto"
    " open oral over pace pack page paid pair palm park part pass past path peak pick pink plan play plot plus poem"
    " poet pole pool port post pull pure push race rail rain rank rare rate read real rely rent rest rice rich ride"
    " ring rise risk road rock role roof room root rule safe sail salt same sand save seat seed seek seem sell send"
    " ship shop show side sign size skin snow soft soil"
).split()

RING = 4096  # tokens before the text repeats


@cache
def answer_ring() -> tuple[str, ...]:
    """The endless text, as a ring of RING tokens such as " road"."""
    dice = Random(4)  # noqa: S311 - any fixed order will do
    return tuple(" " + dice.choice(_VOCABULARY) for _ in range(RING))


@cache
def ring_pieces() -> tuple[str, ...]:
    """The ring's tokens as a prompt that holds them is cut, without their blanks."""
    return tuple(word.strip() for word in answer_ring())


def answer_text(start: int, tokens: int) -> str:
    """The text of `tokens` tokens from place `start` of the ring."""
    ring = answer_ring()
    return "".join(ring[(start + place) % RING] for place in range(tokens))


def split_prompt(text: str) -> list[str]:
    """The pieces of a prompt that count one token each."""
    return _PIECE.findall(text)


def pieces(text: str) -> list[str]:
    """The same pieces with the blanks before them, so that joined they are the text again; blanks alone are none."""
    return _WITH_BLANKS.findall(text) if not text.isspace() else []


def block_hashes(tokens: Sequence[object], block: int) -> list[int]:
    """One number for each whole block of tokens; equal numbers mean that all tokens up to there are equal.

    As vLLM does, a block's number covers the blocks before it.
    """
    chain = 0
    hashes = []
    for start in range(0, len(tokens) - block + 1, block):
        chain = hash((chain, *tokens[start : start + block]))
        hashes.append(chain)
    return hashes
