"""/v1/embeddings, /score and /rerank of models that give no text (vllm/entrypoints/pooling, 0.32).

Every input is one prefill for the engine. Vectors are made of the hashes of the words, so texts that share words are
near each other; a score is how near, between 0 and 1.
"""

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, RootModel

from atoll.emulate.ask import Ask, Call
from atoll.emulate.body import Shape, TokenIds, read_body
from atoll.emulate.prompts import Desk, chat_prompt, text_parts
from atoll.emulate.refusal import Refusal, bad, refused
from atoll.emulate.wire import compact
from atoll.emulate.words import split_prompt


class EmbeddingText(Shape):
    model: str | None = None
    input: TokenIds | list[TokenIds] | str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class EmbeddingChat(Shape):
    model: str | None = None
    messages: list[dict[str, Any]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class _Embedding(RootModel[EmbeddingText | EmbeddingChat]):
    pass


Text = str | dict[str, Any]


class _Rerank(Shape):
    model: str | None = None
    query: Text
    documents: list[Text] | Text
    top_n: int = Field(default=0, ge=0)


class _Score(Shape):
    model: str | None = None
    first: Any = None
    second: Any = None


@dataclass(slots=True)
class _Bare:
    """A choice without a stream."""

    ask: Ask
    plain: bool = False
    head: bytes = b""
    tail: bytes = b""

    def opening(self) -> bytes:
        return b""

    def delta(self, first: int, stop: int) -> bytes:  # noqa: ARG002
        return b""

    def last(self, first: int, stop: int) -> bytes:  # noqa: ARG002
        return b""


class PoolingForm:
    """One document when all inputs are through."""

    def __init__(self, call: Call, document: dict[str, Any]) -> None:
        self.wires: Sequence[_Bare] = [_Bare(ask) for ask in call.asks]
        self._document = document

    def ending(self, *, tokens: int, cached: int) -> bytes:  # noqa: ARG002
        return b""

    def body(self, *, tokens: int, cached: int) -> bytes:  # noqa: ARG002
        return compact(self._document).encode(errors="replace")


def embeddings(body: bytes, desk: Desk, *, request_id: str, created: int) -> PoolingForm:
    """A vector for each input.

    Raises:
        Refusal: with vLLM's status and words.
    """
    fields = read_body(_Embedding, body).root
    desk.check_model(fields.model)
    if fields.dimensions is not None:
        words = f'Model "{desk.served.model}" does not support matryoshka representation, changing output dimensions'
        raise refused(f"{words} will lead to poor results.")
    if isinstance(fields, EmbeddingChat):
        inputs: list[Sequence[object]] = [chat_prompt(fields.messages, None, desk.served).tokens]
    else:
        inputs = _inputs(fields.input)
    call = _call(inputs, desk)
    data = [
        {
            "index": index,
            "object": "embedding",
            "embedding": _encoded(vector(one, desk.served.hidden_size), fields.encoding_format),
        }
        for index, one in enumerate(inputs)
    ]
    head = {"id": f"embd-{request_id}", "object": "list", "created": created, "model": desk.served.model}
    return PoolingForm(call, head | {"data": data, "usage": _usage(call)})


class _CohereEmbed(Shape):
    model: str | None = None
    input_type: str | None = None
    texts: list[str] | None = None
    images: list[str] | None = None
    inputs: list[dict[str, Any]] | None = None
    output_dimension: int | None = None
    embedding_types: list[Literal["float", "binary", "ubinary", "base64"]] | None = None
    truncate: Literal["NONE", "START", "END"] = "END"


def cohere_embed(body: bytes, desk: Desk, *, request_id: str, created: int) -> PoolingForm:  # noqa: ARG001
    """/v2/embed: vectors of texts in the shape of Cohere's API.

    Raises:
        Refusal: with vLLM's status and words, or what is not emulated.
    """
    fields = read_body(_CohereEmbed, body)
    desk.check_model(fields.model)
    given = [one for one in (fields.texts, fields.images, fields.inputs) if one is not None]
    if len(given) != 1 or not given[0]:
        raise refused("Exactly one of texts, images, or inputs must be provided, and it must be non-empty")
    if fields.texts is None:
        raise refused(f"{desk.served.model} is not a multimodal model")
    if fields.input_type is not None:
        words = f"Unsupported input_type {fields.input_type!r}. This model does not define any input_type task"
        raise refused(f"{words} instructions.")
    kinds = fields.embedding_types or ["float"]
    if set(kinds) & {"binary", "ubinary"}:
        raise Refusal(400, "The emulated engine gives float and base64 embeddings only.", param="embedding_types")
    inputs = [split_prompt(text) or [""] for text in fields.texts]
    call = _call(inputs, desk)
    size = fields.output_dimension or desk.served.hidden_size
    if size != desk.served.hidden_size:
        words = f'Model "{desk.served.model}" does not support matryoshka representation, changing output dimensions'
        raise refused(f"{words} will lead to poor results.")
    vectors = [vector(one, size) for one in inputs]
    shown: dict[str, Any] = {}
    for kind in dict.fromkeys(kinds):
        shown[kind] = [_encoded(one, kind) for one in vectors]
    meta = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": call.prompt_tokens, "image_tokens": 0}}
    head = {"id": f"embd-{request_id}", "embeddings": shown, "texts": fields.texts, "meta": meta}
    return PoolingForm(call, head | {"response_type": "embeddings_by_type"})


def rerank(body: bytes, desk: Desk, *, request_id: str, created: int) -> PoolingForm:  # noqa: ARG001
    """Documents by how well they fit a query, best first.

    Raises:
        Refusal: with vLLM's status and words.
    """
    fields = read_body(_Rerank, body)
    desk.check_model(fields.model)
    documents = fields.documents if isinstance(fields.documents, list) else [fields.documents]
    query = _text(fields.query, desk)
    texts = [_text(document, desk) for document in documents]
    call = _call([[*split_prompt(query), *split_prompt(text)] for text in texts], desk)
    results = [
        {"index": index, "document": {"text": text, "multi_modal": None}, "relevance_score": _near(query, text)}
        for index, text in enumerate(texts)
    ]
    results.sort(key=lambda result: -result["relevance_score"])  # type: ignore[operator]
    usage = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens}
    head = {"id": f"rerank-{request_id}", "model": desk.served.model, "usage": usage}
    return PoolingForm(call, head | {"results": results[: fields.top_n or None]})


def score(body: bytes, desk: Desk, *, request_id: str, created: int) -> PoolingForm:
    """A number for each pair of texts.

    Raises:
        Refusal: with vLLM's status and words.
    """
    fields = read_body(_Score, body)
    desk.check_model(fields.model)
    extra = fields.model_extra or {}
    names = next((pair for pair in _PAIRS if pair[0] in extra and pair[1] in extra), None)
    if names is None:
        raise bad("`text_1` and `text_2` must be provided.", "text_1")
    first, second = (_texts(extra[name], desk) for name in names)
    if len(first) > 1 and len(first) != len(second):
        raise refused("Input lengths must be either 1:1, 1:N or N:N")
    if not first or not second:
        raise refused("At least one text element must be given")
    pairs = list(zip(first * (len(second) if len(first) == 1 else 1), second, strict=True))
    call = _call([[*split_prompt(one), *split_prompt(other)] for one, other in pairs], desk)
    data = [{"index": index, "object": "score", "score": _near(*pair)} for index, pair in enumerate(pairs)]
    head = {"id": f"score-{request_id}", "object": "list", "created": created, "model": desk.served.model}
    return PoolingForm(call, head | {"data": data, "usage": _usage(call)})


_PAIRS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


def _inputs(given: Any) -> list[Sequence[object]]:
    if isinstance(given, str):
        return [split_prompt(given) or [""]]
    if not given:
        raise refused("You must pass at least one prompt")
    if isinstance(given[0], int):
        return [given]
    return [split_prompt(one) or [""] if isinstance(one, str) else one for one in given]


def _texts(given: Any, desk: Desk) -> list[str]:
    return [_text(one, desk) for one in (given if isinstance(given, list) else [given])]


def _text(given: Text, desk: Desk) -> str:
    if isinstance(given, str):
        return given
    if not isinstance(given, dict):
        raise refused("A text is a string, or content with parts of text.")
    content = given.get("content")
    return "\n".join(text_parts(content if content is not None else [given], desk.served))


def _call(inputs: Sequence[Sequence[object]], desk: Desk) -> Call:
    limit = desk.served.max_model_len
    for one in inputs:
        if len(one) > limit:
            words = f"This model's maximum context length is {limit} tokens. However, your prompt contains at least"
            more = f"{limit + 1} input tokens, which exceeds this limit. Please reduce the length of the input prompt."
            raise bad(f"{words} {more}", "input_tokens", limit + 1)
    if not desk.admits(len(inputs)):
        raise Refusal(503, "The engine is currently busy.", "Service Unavailable")
    asks = tuple(
        Ask(prompt=one or [""], start=0, output_tokens=1, finish_reason="stop", max_tokens=1, index=index)
        for index, one in enumerate(inputs)
    )
    return Call(chat=False, asks=asks, stream=False, include_usage=False, continuous_usage=False)


def _usage(call: Call) -> dict[str, Any]:
    total = call.prompt_tokens
    return {
        "prompt_tokens": total,
        "total_tokens": total,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def vector(words: Sequence[object], size: int) -> list[float]:
    """A vector of length 1: each word adds one in eight places of its own."""
    found = [0.0] * size
    for word in words:
        state = zlib.crc32(repr(word).lower().encode(errors="replace"))
        for _ in range(8):
            state = (1_103_515_245 * state + 12_345) % 2**31
            found[(state >> 8) % size] += 1.0 if state & 1 << 7 else -1.0
    length = math.sqrt(sum(value * value for value in found)) or 1.0
    return [value / length for value in found]


def _encoded(values: list[float], kind: str) -> list[float] | str:
    if kind == "base64":
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return [round(value, 8) for value in values]


def _near(one: str, other: str) -> float:
    """0 to 1: the angle between two texts' vectors."""
    first, second = (vector(split_prompt(text), 256) for text in (one, other))
    return round(0.5 + 0.5 * sum(a * b for a, b in zip(first, second, strict=True)), 6)
