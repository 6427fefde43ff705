"""Token counts of an answer: the engine's usage, and what is taken where it has none or one that cannot be."""

from dataclasses import dataclass
from typing import Any

from atoll.traffic.request import Request

_MOST_TOKENS = 10**9  # of one answer; above it a server's figure is none
ODD_USAGE = "odd_usage"


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one answer."""

    prompt: int
    output: int
    cached: int
    from_chunks: bool  # the output was counted from chunks
    odd: str | None  # what the usage said that cannot be, such as `completion_tokens -3`


def count_tokens(usage: dict[str, Any] | None, request: Request, chunks: int, *, generates: bool = True) -> Counts:
    """What the usage says, in OpenAI's words or those of its responses; else the chunks, and the length asked for."""
    said = usage or {}
    prompt, odd_prompt = _count(said, "prompt_tokens", "input_tokens")
    output, odd_output = _count(said, "completion_tokens", "output_tokens")
    if output == 0 and chunks > 0:
        output, odd_output = None, f"completion_tokens 0 of {chunks} pieces of text"
    details = said.get("prompt_tokens_details") or said.get("input_tokens_details")
    cached, odd_cached = _count(details if isinstance(details, dict) else {}, "cached_tokens")
    if cached is not None and prompt is not None and cached > prompt:
        cached, odd_cached = None, f"cached_tokens {cached} of {prompt} prompt tokens"
    return Counts(
        prompt=request.prompt_tokens if prompt is None else prompt,
        output=chunks if output is None else output,
        cached=cached or 0,
        from_chunks=output is None and generates,
        odd=odd_output or odd_prompt or odd_cached,
    )


def _count(said: dict[str, Any], *names: str) -> tuple[int | None, str | None]:
    """A number of tokens as a server says it, None for what cannot be one; and what it said then."""
    name = next((name for name in names if said.get(name) is not None), None)
    if name is None:
        return None, None
    value = said[name]
    if type(value) is int and 0 <= value <= _MOST_TOKENS:
        return value, None
    return None, f"{name} {str(value)[:30]}"
