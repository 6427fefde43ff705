"""What a request brings to the engine: its prompt as tokens, and what it is read against."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.emulate.ask import Served
from atoll.emulate.body import ChatBody, ConvertedChat
from atoll.emulate.refusal import Refusal, bad, refused, unknown_model
from atoll.emulate.vocabulary import Vocabulary
from atoll.emulate.words import split_prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """What requests are read against."""

    served: Served
    vocabulary: Vocabulary
    admits: Callable[[int], bool] = lambda _: True  # whether so many more sequences may come now

    def check_model(self, name: str | None) -> None:
        if name and name not in self.served.names and name not in dict(self.served.adapters):
            raise unknown_model(name, ", ".join(self.served.names))


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A prompt as tokens: pieces of its text, or ids."""

    tokens: Sequence[object]
    text: str | None = None  # None: it came as ids
    kept: int | None = None  # so many tokens are left of it, from the end or (below zero) from the start

    def ids(self, vocabulary: Vocabulary) -> tuple[int, ...]:
        ids = vocabulary.of_tokens(self.tokens, self.text) or [vocabulary.end]
        return tuple(ids if self.kept is None or self.text is None else cut(ids, self.kept))

    def words(self, vocabulary: Vocabulary) -> str:
        """Its text, to be echoed."""
        if self.text is not None and self.kept is None:
            return self.text
        return vocabulary.decode(self.ids(vocabulary))


def cut(tokens: Sequence[Any], kept: int) -> list[Any]:
    """The last `kept` tokens, or the first ones where it is below zero."""
    return list(tokens[-kept:] if kept > 0 else tokens[:-kept])


def longest_asked(fields: Any) -> tuple[str, int | None]:
    """The name and value of the request's own limit of the answer."""
    if isinstance(fields, ConvertedChat) and fields.max_output_tokens is not None:
        return "max_output_tokens", fields.max_output_tokens
    if isinstance(fields, ChatBody) and fields.max_completion_tokens is not None:
        return "max_completion_tokens", fields.max_completion_tokens
    return "max_tokens", fields.max_tokens


def chat_prompt(messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None, served: Served) -> Prompt:
    """The texts of the messages one after the other, behind the tools; there is no chat template."""
    if not messages:
        words = "Cannot apply chat template to an empty conversation. Provide at least one message."
        raise refused(words)
    texts = [json.dumps(tool.function.model_dump(exclude_none=True)) for tool in tools or ()]
    for message in messages:
        if not isinstance(message.get("role"), str):
            raise Refusal(400, "Each message needs a `role`.", param="messages")
        texts += text_parts(message.get("content"), served)
        for call in message.get("tool_calls") or ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                texts += [str(function.get("name", "")), str(function.get("arguments", ""))]
    return of_text("\n".join(texts))


def of_text(text: str) -> Prompt:
    return Prompt(tokens=split_prompt(text) or [""], text=text)


def text_parts(content: object, served: Served) -> list[str]:
    """The texts of a message's content.

    Raises:
        Refusal: it is neither text nor parts of text.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list) or not all(isinstance(part, dict | str) for part in content):
        raise Refusal(400, "A message's `content` is text or a list of parts.", param="messages")
    return [part if isinstance(part, str) else _text_part(part, served) for part in content]


def _text_part(part: dict[str, Any], served: Served) -> str:
    kind = part.get("type")
    if kind in _TEXTS:
        return str(part.get("text") or part.get("thinking") or part.get("refusal") or "")
    if kind in _MEDIA:
        raise refused(f"{served.model} is not a multimodal model")
    raise Refusal(400, f"The emulated engine does not know content of type {kind!r}.", param="messages")


_TEXTS = {"text", "input_text", "output_text", "refusal", "thinking"}
_MEDIA = {"image_url", "input_image", "image", "image_embeds", "audio_url", "input_audio", "video_url", "image_pil"}


def prompts_of(prompt: Any, vocabulary: Vocabulary) -> list[Prompt]:
    if isinstance(prompt, str):
        return [of_text(prompt)]
    if not prompt:
        raise refused("You must pass at least one prompt")
    if isinstance(prompt[0], int):
        return [of_ids(prompt, vocabulary)]
    return [of_text(one) if isinstance(one, str) else of_ids(one, vocabulary) for one in prompt]


def of_ids(ids: list[int], vocabulary: Vocabulary) -> Prompt:
    if not ids:
        raise refused("The decoder prompt cannot be empty")
    outside = next((number for number in ids if number >= vocabulary.size), None)
    if outside is not None:
        raise refused(f"Token id {outside} is out of vocabulary")
    return Prompt(tokens=list(ids))


def truncated(prompt: Prompt, fields: Any, served: Served) -> Prompt:
    """Cut to `truncate_prompt_tokens`: -1 is the context; the end is kept unless the side is "right"."""
    asked = fields.truncate_prompt_tokens
    if asked is None:
        return prompt
    limit = served.max_model_len
    if asked > limit:
        words = f"truncate_prompt_tokens={asked} cannot be greater than max_model_len = {limit}."
        raise bad(f"{words} Please request a smaller truncation size.", "truncate_prompt_tokens", asked)
    kept = limit - (longest_asked(fields)[1] or 0) if asked == -1 else asked
    if kept < 1 or len(prompt.tokens) <= kept:
        return prompt
    kept = -kept if fields.truncation_side == "right" else kept
    return Prompt(tokens=cut(prompt.tokens, kept), text=prompt.text, kept=kept)
