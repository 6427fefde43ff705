"""A request's body -> Ask: what is to be generated, checked in the order and in the words of vLLM 0.32."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atoll.emulate.refusal import Refusal, bad, unknown_model
from atoll.emulate.words import RING, answer_text, split_prompt

_BRANCHES = frozenset({"str", "int", "float", "bool", "list", "dict", "none", "nullable", "union", "chain"})


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow")
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class _Body(BaseModel):
    """The fields that both routes know. Types and bounds are vLLM's (entrypoints/openai/*/protocol.py, 0.32.0)."""

    model_config = ConfigDict(extra="allow")
    model: str | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = []
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    include_stop_str_in_output: bool = False


class _ChatBody(_Body):
    messages: list[dict[str, Any]]
    logprobs: bool | None = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1


class _CompletionBody(_Body):
    prompt: list[Annotated[int, Field(ge=0)]] | list[list[Annotated[int, Field(ge=0)]]] | str | list[str] | None = None
    logprobs: int | None = None
    max_tokens: int | None = 16
    n: int = 1
    echo: bool | None = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What this engine serves and how long its answers may be."""

    model: str
    root: str  # where the model was loaded from
    max_model_len: int
    answer_tokens: int = 256  # mean length of an answer for which the request names no limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What is to be generated. The answer is known from the start: its place in the ring of words and its length."""

    chat: bool
    prompt: Sequence[object]  # one item a token
    start: int  # place in the ring of words
    output_tokens: int
    finish_reason: str  # length or stop
    stop_reason: str | None = None  # the stop string that ended it
    text: str | None = None  # the answer's text where stop strings were given: their hits are cut off
    hold_back: int = 0  # letters kept back while a stop string may be under way
    max_tokens: int  # as asked for, for the metrics
    stream: bool
    include_usage: bool
    continuous_usage: bool

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)

    @property
    def ends_silently(self) -> bool:
        """Whether the last token is the end-of-sequence token, which has no text."""
        return self.finish_reason == "stop" and self.stop_reason is None


def parse_ask(body: bytes, *, chat: bool, served: Served) -> Ask:
    """Read and check one request.

    Raises:
        Refusal: with vLLM's status and words.
    """
    fields = _check(_ChatBody if chat else _CompletionBody, _parse_json(body))
    if fields.stream_options is not None and not fields.stream:
        raise bad("Stream options can only be defined when `stream=True`.", "stream_options")
    if not chat and (fields.prompt is None or len(fields.prompt) == 0):
        raise bad("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if fields.model and fields.model != served.model:
        raise unknown_model(fields.model, served.model)
    _refuse_what_is_not_emulated(fields)
    prompt = _chat_tokens(fields.messages) if chat else _completion_tokens(fields.prompt)
    by_text = chat or not (isinstance(fields.prompt, list) and not isinstance(fields.prompt[0], str))
    max_tokens = _longest_answer(fields, prompt_tokens=len(prompt), by_text=by_text, served=served)
    _check_sampling(fields, max_tokens)
    return _make_ask(fields, chat=chat, prompt=prompt, max_tokens=max_tokens, served=served)


def _parse_json(body: bytes) -> object:
    if not body:
        missing = {"type": "missing", "loc": "body", "msg": "Field required", "input": "None"}
        raise Refusal(400, f"1 validation error:\n  {missing}", "Bad Request", "body")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits, 100,000 brackets
        place = getattr(error, "pos", 0)
        words = getattr(error, "msg", "invalid text")
        detail = {
            "type": "json_invalid",
            "loc": f"body.{place}",
            "msg": "JSON decode error",
            "input": "<dict of 0 items>",
            "ctx": {"error": words},
        }
        raise Refusal(400, f"1 validation error:\n  {detail}", "Bad Request", f"body.{place}") from None


def _check(shape: type[_Body], plain: object) -> Any:
    try:
        return shape.model_validate(plain, from_attributes=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = "\n".join(f"  {_describe(problem)}" for problem in problems[:10])
        count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''}"
        raise Refusal(400, f"{count}:\n{lines}", "Bad Request", _place(problems[0]["loc"])) from None


def _describe(problem: Any) -> dict[str, Any]:
    """One pydantic problem in the short form that vLLM's validation handler writes."""
    kept = {
        "type": problem["type"],
        "loc": _place(problem["loc"]),
        "msg": problem["msg"],
        "input": _shorten(problem["input"]),
    }
    if "ctx" in problem:
        kept["ctx"] = problem["ctx"]
    return kept


def _place(loc: Sequence[int | str]) -> str:
    parts = [str(part) for part in loc if str(part).lower() not in _BRANCHES and not set(str(part)) & set("[](){}")]
    return ".".join(("body", *parts))


def _shorten(value: object) -> str:
    """Any value as a short text; that of numbers, too, as vLLM 0.32 does."""
    if isinstance(value, list | tuple | dict):
        return f"<{type(value).__name__} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "...[truncated]"


def _refuse_what_is_not_emulated(fields: Any) -> None:
    """What vLLM can do and this engine cannot: it says so instead of answering something else."""
    if fields.n not in {1, None}:
        raise Refusal(400, f"The emulated engine gives one answer a request, so n={fields.n} is not served.", param="n")
    if fields.logprobs not in {None, False}:
        raise Refusal(400, "The emulated engine has no probabilities, so logprobs are not served.", param="logprobs")
    if getattr(fields, "echo", False):
        raise Refusal(400, "The emulated engine does not echo prompts.", param="echo")


def _chat_tokens(messages: list[dict[str, Any]]) -> list[str]:
    pieces: list[str] = []
    for message in messages:
        if "role" not in message:
            raise Refusal(400, "Each message needs a `role`.", param="messages")
        content = message.get("content")
        for text in [content] if isinstance(content, str) else _text_parts(content):
            pieces.extend(split_prompt(text))
    return pieces or [""]


def _text_parts(content: object) -> list[str]:
    if content is None:
        return []
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise Refusal(400, "A message's `content` is text or a list of parts.", param="messages")
    if any(part.get("type") != "text" for part in content):
        raise Refusal(400, "The emulated engine reads text only; it is not a multimodal model.", param="messages")
    return [str(part.get("text", "")) for part in content]


def _completion_tokens(prompt: Any) -> Sequence[object]:
    if isinstance(prompt, str):
        return split_prompt(prompt) or [""]
    if not prompt:  # a list of one empty list of tokens
        raise Refusal(400, "The prompt holds no token.", param="prompt")
    if isinstance(prompt[0], int):
        return list(prompt)
    if len(prompt) > 1:
        raise Refusal(400, f"The emulated engine takes one prompt a request, not {len(prompt)}.", param="prompt")
    return _completion_tokens(prompt[0])


def _longest_answer(fields: Any, *, prompt_tokens: int, by_text: bool, served: Served) -> int | None:
    """The request's own limit, cut to what the context leaves; None when it has none.

    A text is tokenised only as far as needed to see that it is too long, hence the "at least" (`by_text`).

    vLLM 0.32 refuses a limit above max_model_len, and otherwise cuts it silently (renderers/params.py,
    entrypoints/serve/utils/api_utils.py: get_max_tokens).
    """
    name = "max_completion_tokens" if getattr(fields, "max_completion_tokens", None) is not None else "max_tokens"
    asked: int | None = getattr(fields, name)
    limit = served.max_model_len
    if asked is not None and asked > limit:
        words = f"{name}={asked} cannot be greater than max_model_len={limit}. Please request fewer output tokens."
        raise bad(words, name, asked)
    if prompt_tokens > limit:
        qualifier, counted = ("at least ", limit + 1) if by_text else ("", prompt_tokens)
        raise bad(
            f"This model's maximum context length is {limit} tokens. However, your prompt contains {qualifier}{counted}"
            " input tokens, which exceeds this limit even without any output tokens."
            " Please reduce the length of the input prompt.",
            "input_tokens",
            counted,
        )
    room = limit - prompt_tokens
    if asked is None:
        return None if room else 0
    return min(asked, room)


def _check_sampling(fields: Any, max_tokens: int | None) -> None:
    """The bounds of vLLM's SamplingParams._verify_args, for the fields that we read."""
    for name, low, high in (("presence_penalty", -2.0, 2.0), ("frequency_penalty", -2.0, 2.0)):
        value = getattr(fields, name)
        if value is not None and not low <= value <= high:
            raise Refusal(400, f"{name} must be in [-2, 2], got {value}.")
    temperature, top_p = fields.temperature, fields.top_p
    if temperature is not None and temperature < 0:
        raise bad(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if temperature is not None and temperature > 2:
        raise bad(f"temperature must be in [0, 2], got {temperature}.", "temperature", temperature)
    if top_p is not None and not 0 < top_p <= 1:
        raise bad(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if max_tokens is not None and max_tokens < 1:
        raise bad(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if fields.min_tokens < 0:
        raise Refusal(400, f"min_tokens must be greater than or equal to 0, got {fields.min_tokens}.")
    if max_tokens is not None and fields.min_tokens > max_tokens:
        raise Refusal(
            400, f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {fields.min_tokens}."
        )
    if "" in _stops(fields):
        raise Refusal(400, "stop cannot contain an empty string.")


def _stops(fields: Any) -> list[str]:
    stop = fields.stop
    return [stop] if isinstance(stop, str) else list(stop or [])


def _make_ask(fields: Any, *, chat: bool, prompt: Sequence[object], max_tokens: int | None, served: Served) -> Ask:
    start = _start(prompt, fields.seed)
    room = served.max_model_len - len(prompt)
    tokens, reason = _length(fields, start=start, max_tokens=max_tokens, room=room, served=served)
    text, stop_reason = None, None
    stops = _stops(fields)
    if stops:
        text, tokens, stop_reason = _cut_at_stop(fields, stops, start=start, tokens=tokens, reason=reason)
    options = fields.stream_options
    usage = bool(options and options.include_usage)
    return Ask(
        chat=chat,
        prompt=prompt,
        start=start,
        output_tokens=tokens,
        finish_reason="stop" if stop_reason is not None else reason,
        stop_reason=stop_reason,
        text=text,
        hold_back=max(map(len, stops)) - 1 if stops and not fields.include_stop_str_in_output else 0,
        max_tokens=max_tokens if max_tokens is not None else room,
        stream=bool(fields.stream),
        include_usage=usage,
        continuous_usage=usage and bool(options.continuous_usage_stats),
    )


def _start(prompt: Sequence[object], seed: int | None) -> int:
    """Where the answer begins in the ring of words: the same for the same prompt and seed, in every process."""
    return zlib.crc32(repr((seed, list(prompt[-64:]))).encode()) % RING


def _length(fields: Any, *, start: int, max_tokens: int | None, room: int, served: Served) -> tuple[int, str]:
    """Tokens of the answer and why it ends.

    With a limit the answer is that long, so that a load test gets what it asked for; without one it ends by itself
    after half to one and a half times the mean length, depending on the prompt.
    """
    if max_tokens is not None:
        return max_tokens, "length"
    if fields.ignore_eos:
        return room, "length"
    own = round(served.answer_tokens * (0.5 + start / RING))
    own = max(own, fields.min_tokens + 1, 1)
    return (own, "stop") if own <= room else (room, "length")


def _cut_at_stop(fields: Any, stops: list[str], *, start: int, tokens: int, reason: str) -> tuple[str, int, str | None]:
    """Text, length and stop string of an answer that ends at the first of the stop strings, if one comes up.

    As vLLM checks after every token, the answer ends with the token that completes a stop string; a hit before
    `min_tokens` does not count.
    """
    words = tokens - 1 if reason == "stop" else tokens
    text = answer_text(start, words)
    best: tuple[int, int, str] | None = None
    for stop in stops:
        place = text.find(stop, max(0, 5 * fields.min_tokens - len(stop) + 1))
        if place >= 0:
            found = (-(-(place + len(stop)) // 5), place, stop)  # 5 letters a token
            best = found if best is None else min(best, found)
    if best is None:
        return text, tokens, None
    ended_at, place, stop = best
    return text[: place + len(stop) if fields.include_stop_str_in_output else place], ended_at, stop
