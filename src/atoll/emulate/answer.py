"""How one sequence goes on and ends: its words, their number, and what stops it."""

import zlib
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from atoll.emulate.ask import Ask, Served, tokens_until
from atoll.emulate.body import ChatBody, ConvertedChat, NamedTool
from atoll.emulate.constraint import text_for
from atoll.emulate.draw import Drawing, Wishes, beams
from atoll.emulate.prompts import Desk
from atoll.emulate.refusal import Refusal
from atoll.emulate.sampling import stops_of
from atoll.emulate.tools import Offer, ToolCall, choose_call
from atoll.emulate.words import RING, answer_ring, answer_text, pieces

THOUGHT = 64  # tokens of reasoning, where it is asked for
ATTEMPTS = 32  # at a form without excluded words


def start_of(prompt: Sequence[object], seed: int | None, number: int = 0) -> int:
    """Where the answer begins in the ring of words: the same for the same prompt and seed, in every process."""
    first = zlib.crc32(repr((seed, list(prompt[-64:]))).encode(errors="replace")) % RING
    return (first + 997 * number) % RING


def is_to_think(fields: ChatBody, served: Served) -> bool:
    """Whether a chat asks for reasoning: by its effort, or as the templates of Qwen and DeepSeek are told."""
    settings = fields.chat_template_kwargs or {}
    for name in ("enable_thinking", "thinking"):
        if isinstance(settings.get(name), bool):
            return bool(settings[name])
    return served.reasons if fields.reasoning_effort is None else fields.reasoning_effort != "none"


class _Told(NamedTuple):
    """What an answer's tokens are and why they end; without words they are the ring's."""

    words: tuple[str, ...] | None
    tokens: int
    reason: str

    def listed(self, start: int) -> Sequence[str]:
        if self.words is not None:
            return self.words
        ring, count = answer_ring(), self.tokens - 1 if self.reason == "stop" else self.tokens
        return [ring[(start + place) % RING] for place in range(count)]


def _no_such_form() -> Refusal:
    words = "The emulated engine finds no answer of this form without what `logit_bias` or `bad_words` exclude."
    return Refusal(400, words, param="bad_words")


class Answer:
    """One sequence of one prompt, or as many beams."""

    def __init__(
        self,
        fields: Any,
        desk: Desk,
        *,
        start: int,
        max_tokens: int | None,
        room: int,
        constraint: dict[str, Any] | None,
        wishes: Wishes,
        chat: bool,
    ) -> None:
        self._fields = fields
        self._desk = desk
        self._start = start
        self._max_tokens = max_tokens
        self._room = room
        self._constraint = constraint
        self._wishes = wishes
        self._chat = chat

    def ask(self, prompt: Sequence[object], prompt_ids: tuple[int, ...], *, index: int, n: int) -> Ask:
        """The sequence as the engine gets it."""
        call, thought = self._begin()
        return self._ask(self._told(call), call, thought, prompt, prompt_ids, index=index, n=n)

    def beams(self, prompt: Sequence[object], prompt_ids: tuple[int, ...], *, index: int, n: int) -> list[Ask]:
        """`n` answers by falling probability."""
        call, thought = self._begin()
        told = self._told(call)
        listed = told.listed(self._start)
        if call is None and self._constraint is None:
            ranked = beams(listed, self._desk.vocabulary, count=n)
        else:
            ranked = [tuple(listed)] * n
        many = [_Told(words, told.tokens, told.reason) for words in ranked]
        return [
            self._ask(one, call, thought, prompt, prompt_ids, index=index + place, n=n)
            for place, one in enumerate(many)
        ]

    def _begin(self) -> tuple[ToolCall | None, tuple[str, ...]]:
        """The tool that is called and the reasoning before the answer, which takes its part of the room."""
        call = self._called() if self._chat else None
        thought = self._thought() if self._chat else ()
        self._room -= len(thought)
        if self._max_tokens is not None:
            self._max_tokens -= len(thought)
        return call, thought

    def _told(self, call: ToolCall | None) -> "_Told":
        words = self._measured_words(call)
        if words is not None:
            most = self._most
            return _Told(words, *((len(words) + 1, "stop") if len(words) < most else (max(most, 1), "length")))
        return _Told(None, *self._length()) if self._wishes.none else self._drawn()

    def _drawn(self) -> "_Told":
        """Token by token, by the request's wishes; the end of the sequence is one of the tokens."""
        tokens, reason = self._length()
        drawing = Drawing(self._wishes, self._desk.vocabulary, self._start)
        if reason == "stop" and not drawing.may_end:
            tokens, reason = max(self._most, 1), "length"
        least = getattr(self._fields, "min_tokens", 0)
        count = tokens - 1 if reason == "stop" else tokens
        words, ended = drawing.words(count, least=least, stops=not self._fields.ignore_eos)
        return _Told(words, len(words) + 1, "stop") if ended else _Told(words, tokens, reason)

    def _ask(
        self,
        told: "_Told",
        call: ToolCall | None,
        thought: tuple[str, ...],
        prompt: Sequence[object],
        prompt_ids: tuple[int, ...],
        *,
        index: int,
        n: int,
    ) -> Ask:
        words, tokens, reason = told.words, told.tokens, told.reason
        text = None if words is None else "".join(words[:tokens])
        stop: str | int | None = None
        stops = stops_of(self._fields) if call is None else []
        if stops:
            if text is None:
                text = answer_text(self._start, tokens - 1 if reason == "stop" else tokens)
            text, tokens, stop = self._cut_at_stop(text, stops, words=words, tokens=tokens)
        if stop is None and self._fields.stop_token_ids and call is None:
            text, tokens, stop = self._cut_at_token(text, words=words, tokens=tokens, reason=reason)
        include = self._fields.include_stop_str_in_output
        return Ask(
            prompt=prompt,
            prompt_ids=prompt_ids,
            start=self._start,
            thought=thought,
            output_tokens=len(thought) + tokens,
            finish_reason="stop" if stop is not None else reason,
            stop_reason=stop,
            words=words,
            text=text,
            hold_back=max(map(len, stops)) - 1 if stops and not include else 0,
            call=call,
            max_tokens=len(thought) + (self._max_tokens if self._max_tokens is not None else self._room),
            index=index,
            n=n,
        )

    @property
    def _most(self) -> int:
        return self._room if self._max_tokens is None else self._max_tokens

    def _dice(self, attempt: int = 0) -> Random:
        """The same answer for the same prompt and seed."""
        return Random(self._start + RING * attempt)  # noqa: S311

    def _thought(self) -> tuple[str, ...]:
        """The reasoning of one who was asked to think: some words, at most half of the answer."""
        if not is_to_think(self._fields, self._desk.served):
            return ()
        ring, budget = answer_ring(), self._fields.thinking_token_budget
        tokens = min(THOUGHT if budget in (None, -1) else budget, self._most // 2)
        return tuple(ring[(self._start + RING // 2 + place) % RING] for place in range(tokens))

    def _called(self) -> ToolCall | None:
        fields = self._fields
        if not fields.tools:
            return None
        offers = [Offer(tool.function.name, tool.function.parameters) for tool in fields.tools or ()]
        choice = [fields.tool_choice.function.name] if isinstance(fields.tool_choice, NamedTool) else fields.tool_choice
        if choice in (None, "auto") and self._constraint is not None:
            return None
        settings: dict[str, Any] = {"messages": fields.messages, "to_the_limit": fields.ignore_eos}
        for attempt in range(ATTEMPTS):
            call = choose_call(offers, choice, dice=self._dice(attempt), **settings)
            if call is None or not self._excluded(call.arguments):
                return call
        raise _no_such_form()

    def _measured_words(self, call: ToolCall | None) -> tuple[str, ...] | None:
        """The tokens of an answer that is made to measure and ends when it is complete."""
        if call is not None:
            return (f'{{"name": "{call.name}", "arguments": ', *(pieces(call.arguments) or [call.arguments]))
        if self._constraint is None:
            return None
        for attempt in range(ATTEMPTS):
            text = text_for(self._constraint, self._dice(attempt))
            if not self._excluded(text):
                return tuple(pieces(text) or [text])
        raise _no_such_form()

    def _excluded(self, text: str) -> bool:
        """Whether a form has words in it that the request excludes; penalties and other biases say nothing there."""
        wishes = self._wishes
        return bool(wishes.bad or wishes.bias) and wishes.excludes(self._desk.vocabulary.encode(text))

    def _length(self) -> tuple[int, str]:
        """Tokens of the answer and why it ends.

        With a limit the answer is that long, so that a load test gets what it asked for; without one it ends by itself
        after half to one and a half times the mean length, depending on the prompt.
        """
        limit = self._max_tokens
        ends = isinstance(self._fields, ConvertedChat) and self._fields.answer_ends
        if limit is not None and not ends:
            return limit, "length"
        if self._fields.ignore_eos:
            return self._room, "length"
        own = round(self._desk.served.answer_tokens * (0.5 + self._start / RING))
        own = max(own, getattr(self._fields, "min_tokens", 0) + 1, 1)
        return (own, "stop") if own <= self._most else (self._most, "length")

    def _cut_at_stop(
        self, text: str, stops: list[str], *, words: tuple[str, ...] | None, tokens: int
    ) -> tuple[str, int, str | None]:
        """Text, length and stop string of an answer that ends at the first of the stop strings, if one comes up.

        As vLLM checks after every token, the answer ends with the token that completes a stop string; a hit before
        `min_tokens` does not count.
        """
        least = getattr(self._fields, "min_tokens", 0)
        held = len("".join(words[:least])) if words is not None else 5 * least
        best: tuple[int, int, str] | None = None
        for stop in stops:
            place = text.find(stop, max(0, held - len(stop) + 1))
            if place >= 0:
                found = (tokens_until(place + len(stop), words), place, stop)
                best = found if best is None else min(best, found)
        if best is None:
            return text, tokens, None
        ended_at, place, stop = best
        shown = place + len(stop) if self._fields.include_stop_str_in_output else place
        return text[:shown], ended_at, stop

    def _cut_at_token(
        self, text: str | None, *, words: tuple[str, ...] | None, tokens: int, reason: str
    ) -> tuple[str | None, int, int | None]:
        """The same for the first token, from the `min_tokens`th on, whose id is one to stop at; it has no text then."""
        ids, ring = set(self._fields.stop_token_ids), answer_ring()
        last = tokens - 1 if reason == "stop" else tokens
        for place in range(max(0, getattr(self._fields, "min_tokens", 0) - 1), last):
            piece = ring[(self._start + place) % RING] if words is None else words[place]
            number = self._desk.vocabulary.id_of(piece)
            if number in ids:
                shown = place + 1 if self._fields.include_stop_str_in_output else place
                before = answer_text(self._start, shown) if words is None else "".join(words[:shown])
                return before if text is None else text[: len(before)], place + 1, number
        return text, tokens, None
