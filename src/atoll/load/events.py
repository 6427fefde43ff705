"""What an event or a whole answer says, once it is JSON: text, an end, an error. Pure functions."""

import json
from typing import Any

from atoll.load.error_text import error_sentence

# Any of these in an event with an empty content, and it is looked at closely.
_MORE_THAN_EMPTY = (b"reasoning", b'"finish_reason":"', b"tool_calls", b'"text"', b"refusal", b"error", b"usage")
_TEXT_KEYS = ("content", "reasoning_content", "reasoning", "text", "refusal")


def error_of(body: bytes | bytearray) -> str | None:
    """The sentence of an error that came with the status 200; None when the body is no error."""
    try:
        plain = json.loads(body)
    except ValueError:
        return None
    is_error = isinstance(plain, dict) and bool(plain.get("error") or plain.get("object") == "error")
    return error_sentence(plain) if is_error else None


def is_plainly_empty(payload: bytes) -> bool:
    """Whether an event with an empty content has nothing else that counts: one choice, no end, no usage, no error."""
    return (
        payload.startswith(b"{")
        and payload.endswith(b"}")
        and payload.count(b'"content"') == 1
        and not any(word in payload for word in _MORE_THAN_EMPTY)
    )


def carries_text(choice: dict[str, Any]) -> bool:
    """Whether a choice of a chunk has generated text: an answer, a thought, or a piece of a tool call."""
    delta = choice.get("delta")
    delta = delta if isinstance(delta, dict) else choice
    if any(isinstance(delta.get(key), str) and delta[key] for key in _TEXT_KEYS):
        return True
    calls = delta.get("tool_calls")
    return isinstance(calls, list) and any(_call_has_text(call) for call in calls)


def is_delta(plain: dict[str, Any]) -> bool:
    """Whether an event of /v1/responses brings text: an answer, a thought, a piece of a tool call."""
    return str(plain.get("type")).endswith(".delta") and isinstance(plain.get("delta"), str) and bool(plain["delta"])


def _call_has_text(call: object) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and bool(function.get("name") or function.get("arguments"))


def choices_of(plain: dict[str, Any]) -> list[dict[str, Any]]:
    choices = plain.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def whole_text(body: bytes) -> bytes:
    """The text of an answer that came at once, as JSON text."""
    choice = (choices_of(json.loads(body)) or [{}])[0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return json.dumps(text or "", ensure_ascii=False).encode()[1:-1]
