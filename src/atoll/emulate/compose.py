"""A body -> Call: what is generated, checked in the order and in the words of vLLM 0.32."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from atoll.emulate.answer import Answer, start_of
from atoll.emulate.ask import Ask, Call, Served, Shown
from atoll.emulate.body import BatchBody, ChatBody, CompletionBody
from atoll.emulate.constraint import constraint_of
from atoll.emulate.draw import NO_WISHES, WISHES, Wishes, wishes_of
from atoll.emulate.prompts import Desk, Prompt, chat_prompt, longest_asked, of_ids, prompts_of, truncated
from atoll.emulate.refusal import Refusal, bad, queue_full, refused
from atoll.emulate.sampling import check_sampling, check_vocabulary

MOST_LISTED = 500_000  # probabilities that one answer may show


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
    check_vocabulary(
        fields,
        logprobs=shown.logprobs,
        prompt_logprobs=shown.prompt_logprobs,
        vocabulary=size,
        most=desk.served.max_logprobs,
    )
    if -1 in (shown.logprobs, shown.prompt_logprobs):
        _check_listed(shown, prompts, [limit for limit, _ in rooms], n=n, vocabulary=size)
    constraint = constraint_of(fields)
    ids = shown.token_ids or shown.prompt_logprobs is not None or echo
    asks: list[Ask] = []
    for prompt, (max_tokens, room) in zip(prompts, rooms, strict=True):
        prompt_ids = prompt.ids(desk.vocabulary) if ids else ()
        wishes = _wishes(fields, prompt, desk)
        for number in range(1 if fields.use_beam_search else n):
            maker = Answer(
                fields,
                desk,
                start=start_of(prompt.tokens, fields.seed, number),
                max_tokens=max_tokens,
                room=room,
                constraint=constraint,
                wishes=wishes,
                chat=chat,
            )
            if fields.use_beam_search:
                asks += maker.beams(prompt.tokens, prompt_ids, index=len(asks), n=n)
            else:
                asks.append(maker.ask(prompt.tokens, prompt_ids, index=len(asks), n=n))
    return tuple(asks)


def _check_listed(
    shown: Shown, prompts: Sequence[Prompt], limits: Sequence[int | None], *, n: int, vocabulary: int
) -> None:
    """All of a vocabulary may be asked for, of a few tokens."""
    listed = 0
    for prompt, limit in zip(prompts, limits, strict=True):
        for asked, places in ((shown.prompt_logprobs, len(prompt.tokens)), (shown.logprobs, n * (limit or 1))):
            listed += (vocabulary if asked == -1 else 0) * places
    if listed > MOST_LISTED:
        words = f"The emulated engine lists at most {MOST_LISTED:,} probabilities an answer; these would be {listed:,}."
        raise Refusal(400, words, param="logprobs")


def _wishes(fields: Any, prompt: Prompt, desk: Desk) -> Wishes:
    """What the request says of single tokens; vLLM's beam search draws without any of it."""
    if fields.use_beam_search or not fields.model_fields_set & WISHES:
        return NO_WISHES
    repeats = fields.repetition_penalty not in (None, 1.0)
    return wishes_of(fields, prompt.ids(desk.vocabulary) if repeats else (), desk.vocabulary)
