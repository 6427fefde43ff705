"""What is to be generated: an Ask for each sequence, a Call for the request that they belong to."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from atoll.emulate.tools import ToolCall
from atoll.emulate.words import RING, answer_ring, answer_text, ring_pieces

NAMED_BY = 2  # tokens of a tool's call after which its name is known
TOKEN_LETTERS = 5  # of a token of the ring: a blank and four letters


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What this engine serves and how long its answers may be."""

    names: tuple[str, ...]  # the first is the one that answers carry
    root: str  # where the model was loaded from
    max_model_len: int
    vocab_size: int = 32_000
    hidden_size: int = 1024  # of its vectors, where it gives those
    kind: str = "generate"  # or embed, or rank
    answer_tokens: int = 256  # mean length of an answer for which the request names no limit
    prompt_tokens_details: bool = False  # --enable-prompt-tokens-details
    request_id_headers: bool = False  # --enable-request-id-headers
    tokens_as_ids: bool = False  # --return-tokens-as-token-ids
    always_usage: bool = False  # --enable-force-include-usage
    max_logprobs: int = 20  # --max-logprobs; -1 is all of the vocabulary
    root_path: str = ""  # --root-path: paths may begin with it
    adapters: tuple[tuple[str, str], ...] = ()  # --lora-modules: the name and path of each
    tokenizer_info: bool = False  # --enable-tokenizer-info-endpoint
    block_tokens: int | None = 16  # of the prefix cache; None where there is none
    reasons: bool = False  # --reasoning-parser: a chat thinks unless it asks not to

    @property
    def model(self) -> str:
        return self.names[0]

    def model_of(self, asked: str | None) -> str:
        """What an answer calls its model: an adapter by its own name, the model by its first."""
        return asked if asked in dict(self.adapters) else self.names[0]

    def created(self, prompt_tokens: int, cached: int) -> int:
        """Tokens of a prompt that its whole blocks brought into the prefix cache (vLLM: PrefillStats.finalize)."""
        return max(0, prompt_tokens // self.block_tokens * self.block_tokens - cached) if self.block_tokens else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One sequence. Its answer is known from the start: `words`, or else the ring of words from `start` on.

    The last of `output_tokens` has no text where it is the end-of-sequence token or one that was asked to stop at.
    """

    prompt: Sequence[object]  # one item a token
    prompt_ids: tuple[int, ...] = ()  # where they are shown
    start: int  # place in the ring of words
    output_tokens: int
    finish_reason: str  # length or stop
    stop_reason: str | int | None = None  # the stop string or token id that ended it
    words: tuple[str, ...] | None = None  # the answer's tokens where they are not the ring's
    text: str | None = None  # the answer's text where it is not that of the ring's tokens one by one
    hold_back: int = 0  # letters kept back while a stop string may be under way
    thought: tuple[str, ...] = ()  # tokens of reasoning before the answer; they count among the answer's
    call: ToolCall | None = None  # the answer calls this tool; its first token stands for the name
    max_tokens: int  # as asked for, for the metrics
    index: int = 0  # of the choice
    n: int = 1  # sequences of the same prompt

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)

    @property
    def ends_silently(self) -> bool:
        """Whether the last token has no text."""
        return self.finish_reason == "stop" and not isinstance(self.stop_reason, str)

    def piece(self, place: int) -> str:
        """The text of one token of the answer, also of one that is not let out; none for the end of the sequence."""
        if place < len(self.thought):
            return self.thought[place]
        place -= len(self.thought)
        if self.words is None:
            last = self.output_tokens - len(self.thought) - 1
            ended = place == last and self.ends_silently and self.stop_reason is None
            return "" if ended else answer_ring()[(self.start + place) % RING]
        return self.words[place] if place < len(self.words) else ""

    def let_out(self, first: int, stop: int, *, final: bool = False) -> str:
        """The text that the tokens `first` ... `stop` - 1 let out.

        Without stop strings each token lets out its own text. With them, letters are held back until it is clear that
        no stop string is under way; `final` lets out the rest.
        """
        first, stop = self._behind_thought(first, stop)
        if self.text is None:
            words = stop - 1 if final and self.ends_silently else stop
            return answer_text(self.start + first, max(0, words - first))
        out_before = max(0, self._letters(first) - self.hold_back) if first else 0
        out_now = len(self.text) if final else max(0, self._letters(stop) - self.hold_back)
        return self.text[out_before:out_now]

    def arguments(self, first: int, stop: int) -> str:
        """What the tokens say of a tool call's arguments."""
        first, stop = self._behind_thought(first, stop)
        return "".join((self.words or ())[max(first, 1) : stop])

    def names_tool(self, first: int, stop: int) -> bool:
        """Whether the name of the called tool is complete with one of these tokens: with the second of the call."""
        first, stop = self._behind_thought(first, stop)
        return self.call is not None and first < NAMED_BY <= stop

    def reasoning(self, first: int, stop: int) -> str:
        """What the tokens say of the reasoning."""
        return "".join(self.thought[first:stop])

    def _behind_thought(self, first: int, stop: int) -> tuple[int, int]:
        before = len(self.thought)
        return max(0, first - before), max(0, stop - before)

    def _letters(self, tokens: int) -> int:
        return TOKEN_LETTERS * tokens if self.words is None else sum(map(len, self.words[:tokens]))

    def answer_pieces(self) -> list[str]:
        """All tokens' texts as a later prompt would bring them, for the prefix cache."""
        if self.words is None and not self.thought:
            ring = ring_pieces()
            return [ring[place & RING - 1] for place in range(self.start, self.start + self.output_tokens)]
        return [self.piece(place).strip() for place in range(self.output_tokens)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What an answer shows beside its text."""

    logprobs: int | None = None  # how many of the likeliest tokens a place; None: no probabilities
    logprob_ids: tuple[int, ...] = ()  # these instead of the likeliest
    prompt_logprobs: int | None = None
    token_ids: bool = False
    tokens_as_ids: bool = False  # a token is shown as "token_id:5"
    prompt_text: str | None = None
    reasoning: bool = True  # whether an answer's reasoning is shown

    @property
    def plain(self) -> bool:
        return self.logprobs is None and not self.token_ids


PLAIN = Shown()


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request: its sequences, prompt by prompt, and how it is answered."""

    chat: bool
    asks: tuple[Ask, ...]
    n: int = 1  # sequences a prompt
    stream: bool
    include_usage: bool
    continuous_usage: bool
    shown: Shown = PLAIN
    echo: tuple[str, ...] | None = None  # what comes before the answers, prompt by prompt
    echo_alone: bool = False  # the prompt, and nothing of the answer
    details: bool = True  # whether usage tells them, where the server does

    @property
    def prompt_tokens(self) -> int:
        return sum(ask.prompt_tokens for ask in self.asks[:: self.n])


def tokens_until(offset: int, words: Sequence[str] | None) -> int:
    """How many tokens it takes until so many letters are out."""
    if words is None:
        return -(-offset // TOKEN_LETTERS)
    ends = list(accumulate(map(len, words)))
    return bisect_right(ends, offset - 1) + 1
