"""A body -> Call: what is generated, checked in the order and in the words of vLLM 0.32."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from atoll.emulate.ask import Ask, Call, Served, Shown, tokens_until
from atoll.emulate.body import BatchBody, ChatBody, CompletionBody, ConvertedChat, NamedTool
from atoll.emulate.constraint import constraint_of, text_for
from atoll.emulate.prompts import Desk, Prompt, chat_prompt, longest_asked, of_ids, prompts_of, truncated
from atoll.emulate.refusal import Refusal, bad, queue_full, refused
from atoll.emulate.sampling import check_sampling, check_vocabulary, stops_of
from atoll.emulate.tools import Offer, ToolCall, choose_call
from atoll.emulate.words import RING, answer_ring, answer_text, pieces

THOUGHT = 64  # tokens of reasoning, where it is asked for


def compose_chat(fields: ChatBody, desk: Desk) -> Call:
    """A chat's answer.

    Raises:
        Refusal: with vLLM's status and words.
    """
    desk.check_model(fields.model)
    n = fields.n if fields.n is not None else 1
    if not desk.admits(n):
        raise queue_full()
    if fields.chat_template is not None:
        words = "Chat template is passed with request, but --trust-request-chat-template is not set. Refused request"
        raise refused(f"{words} with untrusted chat template.")
    _refuse_media_settings(fields)
    forwarded = (fields.kv_transfer_params or {}).get("prompt_token_ids")
    if isinstance(forwarded, list) and all(isinstance(number, int) for number in forwarded):
        prompt = of_ids(forwarded, desk.vocabulary)
    else:
        prompt = chat_prompt(fields.messages, fields.tools, desk.served)
    prompt = truncated(prompt, fields, desk.served)
    logprobs = fields.top_logprobs if fields.logprobs else None
    echoed = _last_words(fields) if fields.echo else None
    prompt_logprobs = fields.prompt_logprobs
    if prompt_logprobs is None and fields.echo:
        prompt_logprobs = fields.top_logprobs
    shown = _shown(fields, desk.served, logprobs, prompt_logprobs, prompt.text if fields.return_prompt_text else None)
    asks = _asks(fields, [prompt], desk, n=n, shown=shown, chat=True)
    return _call(fields, desk.served, asks, n=n, chat=True, shown=shown, echo=None if echoed is None else (echoed,))


def compose_batch(fields: BatchBody, desk: Desk) -> Call:
    """One answer for each of several chats.

    Raises:
        Refusal: with vLLM's status and words.
    """
    desk.check_model(fields.model)
    if fields.stream or fields.tools:
        what = "stream" if fields.stream else "tools"
        raise Refusal(400, f"Batch chat completions do not support `{what}`.", param=what)
    if not desk.admits(len(fields.messages)):
        raise queue_full()
    shown = _shown(fields, desk.served, fields.top_logprobs if fields.logprobs else None, fields.prompt_logprobs)
    asks: list[Ask] = []
    for messages in fields.messages:
        one = fields.model_copy(update={"messages": messages})
        prompt = chat_prompt(messages, None, desk.served)
        asks += (replace(ask, index=len(asks)) for ask in _asks(one, [prompt], desk, n=1, shown=shown, chat=True))
    return _call(fields, desk.served, tuple(asks), n=1, chat=True, shown=shown, details=False)


def compose_completion(fields: CompletionBody, desk: Desk) -> Call:
    """The continuation of one or several texts.

    Raises:
        Refusal: with vLLM's status and words.
    """
    desk.check_model(fields.model)
    if fields.stream and fields.use_beam_search:
        raise refused("Streaming is not currently supported with beam search")
    if fields.prompt_embeds:
        raise Refusal(400, "The emulated engine reads text and token ids, no embeddings.", param="prompt_embeds")
    if fields.suffix is not None:
        raise Refusal(400, "suffix is only supported for models with FIM completion rendering", param="suffix")
    prompts = [truncated(prompt, fields, desk.served) for prompt in prompts_of(fields.prompt, desk.vocabulary)]
    if not desk.admits(fields.n * len(prompts)):
        raise queue_full()
    alone = bool(fields.echo) and fields.max_tokens == 0
    prompt_logprobs = fields.logprobs if fields.prompt_logprobs is None and fields.echo else fields.prompt_logprobs
    shown = _shown(fields, desk.served, fields.logprobs, prompt_logprobs)
    if alone:
        fields = fields.model_copy(update={"max_tokens": 1})
    asks = _asks(fields, prompts, desk, n=fields.n, shown=shown, chat=False, echo=bool(fields.echo))
    echo = None
    if fields.echo:
        echo = tuple("" if shown.token_ids else prompt.words(desk.vocabulary) for prompt in prompts)
    return _call(fields, desk.served, asks, n=fields.n, chat=False, shown=shown, echo=echo, echo_alone=alone)


def _refuse_media_settings(fields: Any) -> None:
    for name, what in (
        ("mm_processor_kwargs", "multimodal preprocessing"),
        ("media_io_kwargs", "multimodal media loading"),
    ):
        if getattr(fields, name, None):
            words = (
                f"Per-request {name} are disabled by default because they can change {what} resource usage. Start the"
            )
            raise bad(f"{words} server with --trust-request-mm-kwargs only when clients are trusted.", name)


def _last_words(fields: ChatBody) -> str:
    """What a chat with `echo` begins with: the last message, where the answer goes on with it."""
    last = fields.messages[-1] if fields.messages else {}
    role = "assistant" if fields.add_generation_prompt else last.get("role")
    if last.get("role") != role:
        return ""
    content = last.get("content") or ""
    return content if isinstance(content, str) else "\n".join(str(part.get("text", "")) for part in content)


def _shown(
    fields: Any, served: Served, logprobs: int | None, prompt_logprobs: int | None, prompt_text: str | None = None
) -> Shown:
    ids, as_ids = tuple(fields.logprob_token_ids or ()), fields.return_tokens_as_token_ids
    return Shown(
        logprobs=logprobs,
        logprob_ids=ids if logprobs is not None else (),
        prompt_logprobs=prompt_logprobs,
        token_ids=bool(fields.return_token_ids),
        tokens_as_ids=served.tokens_as_ids if as_ids is None else as_ids,
        prompt_text=prompt_text,
        reasoning=bool(getattr(fields, "include_reasoning", True)),
    )


def _call(fields: Any, served: Served, asks: tuple[Ask, ...], *, n: int, chat: bool, shown: Shown, **more: Any) -> Call:
    if fields.use_beam_search:  # beams are as many sequences, and their usage tells no details
        more |= {"details": False}
    options = fields.stream_options
    usage = served.always_usage or bool(options and options.include_usage)
    return Call(
        chat=chat,
        asks=asks,
        n=n,
        stream=bool(fields.stream),
        include_usage=usage,
        continuous_usage=served.always_usage or (usage and bool(options.continuous_usage_stats)),
        shown=shown,
        **more,
    )


def _room(fields: Any, prompt: Prompt, served: Served) -> tuple[int | None, int]:
    """The request's own limit, cut to what the context leaves (None when it has none), and what that is.

    A text is tokenised only as far as needed to see that it is too long, hence the "at least".

    vLLM 0.32 refuses a limit above max_model_len, and otherwise cuts it silently (renderers/params.py,
    entrypoints/serve/utils/api_utils.py: get_max_tokens).
    """
    name, asked = longest_asked(fields)
    limit, prompt_tokens = served.max_model_len, len(prompt.tokens)
    if asked is not None and asked > limit:
        words = f"{name}={asked} cannot be greater than max_model_len={limit}. Please request fewer output tokens."
        raise bad(words, name, asked)
    if prompt_tokens > limit:
        qualifier, counted = ("at least ", limit + 1) if prompt.text is not None else ("", prompt_tokens)
        raise bad(
            f"This model's maximum context length is {limit} tokens. However, your prompt contains {qualifier}{counted}"
            " input tokens, which exceeds this limit even without any output tokens."
            " Please reduce the length of the input prompt.",
            "input_tokens",
            counted,
        )
    room = limit - prompt_tokens
    if asked is None:
        return (None if room else 0), room
    return min(asked, room), room


def _asks(
    fields: Any, prompts: Sequence[Prompt], desk: Desk, *, n: int, shown: Shown, chat: bool, echo: bool = False
) -> tuple[Ask, ...]:
    rooms = [_room(fields, prompt, desk.served) for prompt in prompts]
    size = desk.vocabulary.size
    for max_tokens, _ in rooms:
        check_sampling(fields, max_tokens=max_tokens, n=n, logprobs=shown.logprobs)
    check_vocabulary(fields, logprobs=shown.logprobs, prompt_logprobs=shown.prompt_logprobs, vocabulary=size)
    constraint = constraint_of(fields)
    ids = shown.token_ids or shown.prompt_logprobs is not None or echo
    asks: list[Ask] = []
    for prompt, (max_tokens, room) in zip(prompts, rooms, strict=True):
        prompt_ids = prompt.ids(desk.vocabulary) if ids else ()
        for number in range(n):
            start = start_of(prompt.tokens, fields.seed, number)
            maker = _Answer(
                fields, desk, start=start, max_tokens=max_tokens, room=room, constraint=constraint, chat=chat
            )
            asks.append(maker.ask(prompt.tokens, prompt_ids, index=len(asks), n=n))
    return tuple(asks)


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


class _Answer:
    """How one sequence goes on and ends."""

    def __init__(
        self,
        fields: Any,
        desk: Desk,
        *,
        start: int,
        max_tokens: int | None,
        room: int,
        constraint: dict[str, Any] | None,
        chat: bool,
    ) -> None:
        self._fields = fields
        self._desk = desk
        self._start = start
        self._max_tokens = max_tokens
        self._room = room
        self._constraint = constraint
        self._chat = chat

    def ask(self, prompt: Sequence[object], prompt_ids: tuple[int, ...], *, index: int, n: int) -> Ask:
        call = self._called() if self._chat else None
        thought = self._thought() if self._chat else ()
        self._room -= len(thought)
        if self._max_tokens is not None:
            self._max_tokens -= len(thought)
        words = self._words(call)
        tokens, reason = self._length(words)
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
    def _dice(self) -> Random:
        """The same answer for the same prompt and seed."""
        return Random(self._start)  # noqa: S311

    def _thought(self) -> tuple[str, ...]:
        """The reasoning of one who was asked to think: some words, at most half of the answer."""
        if not is_to_think(self._fields, self._desk.served):
            return ()
        limit = self._room if self._max_tokens is None else self._max_tokens
        ring = answer_ring()
        return tuple(ring[(self._start + RING // 2 + place) % RING] for place in range(min(THOUGHT, limit // 2)))

    def _called(self) -> ToolCall | None:
        fields = self._fields
        if not fields.tools:
            return None
        offers = [Offer(tool.function.name, tool.function.parameters) for tool in fields.tools or ()]
        choice = [fields.tool_choice.function.name] if isinstance(fields.tool_choice, NamedTool) else fields.tool_choice
        if choice in (None, "auto") and self._constraint is not None:
            return None
        return choose_call(offers, choice, messages=fields.messages, dice=self._dice, to_the_limit=fields.ignore_eos)

    def _words(self, call: ToolCall | None) -> tuple[str, ...] | None:
        """The tokens of an answer that is not the ring's."""
        if call is not None:
            return (f'{{"name": "{call.name}", "arguments": ', *(pieces(call.arguments) or [call.arguments]))
        if self._constraint is not None:
            text = text_for(self._constraint, self._dice)
            return tuple(pieces(text) or [text])
        allowed = getattr(self._fields, "allowed_token_ids", None)
        if allowed:
            count = self._length(None)[0]
            return tuple(self._desk.vocabulary.text_of(allowed[place % len(allowed)]) for place in range(count))
        return None

    def _length(self, words: tuple[str, ...] | None) -> tuple[int, str]:
        """Tokens of the answer and why it ends.

        With a limit the answer is that long, so that a load test gets what it asked for; without one it ends by itself
        after half to one and a half times the mean length, depending on the prompt. One that is made to measure ends
        when it is complete.
        """
        limit = self._max_tokens
        if words is not None and not getattr(self._fields, "allowed_token_ids", None):
            most = self._room if limit is None else limit
            return (len(words) + 1, "stop") if len(words) < most else (max(most, 1), "length")
        ends = isinstance(self._fields, ConvertedChat) and self._fields.answer_ends
        if limit is not None and not ends:
            return limit, "length"
        if self._fields.ignore_eos:
            return self._room, "length"
        own = round(self._desk.served.answer_tokens * (0.5 + self._start / RING))
        own = max(own, getattr(self._fields, "min_tokens", 0) + 1, 1)
        most = self._room if limit is None else limit
        return (own, "stop") if own <= most else (most, "length")

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
