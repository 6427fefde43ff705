"""The bodies of the generating routes: fields, types and bounds of vLLM 0.32 (entrypoints/openai/*/protocol.py).

Reading goes as there: what must be JSON, then the checks of emulate/body_checks.py, then the types, whose errors are
told as vLLM's validation handler tells them.
"""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from atoll.emulate.body_checks import check_batch, check_chat, check_completion, check_responses
from atoll.emulate.refusal import Refusal, bad

_BRANCHES = frozenset(
    [
        "str",
        "int",
        "float",
        "bool",
        "list",
        "dict",
        "none",
        "nullable",
        "union",
        "chain",
        "responseformat",
        "structuraltagresponseformat",
        "legacystructuraltagresponseformat",
        "namedtool",
        "tokenizetext",
        "tokenizechat",
    ]
)
MOST_PROBLEMS = 10  # of a body, that are told
LONGEST_INPUT = 200  # letters of a wrong value, that are shown

INT64 = Field(ge=-(2**63), le=2**63 - 1)
Stop = str | Annotated[list[str], Field(max_length=4)] | None  # vLLM: VLLM_MAX_STOP_STRINGS
TopLogprobs = Annotated[int, BeforeValidator(lambda value: 0 if value is None else value)]
TokenIds = list[Annotated[int, Field(ge=0)]]


def _thinking_budget(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        words = "`thinking_token_budget` must be a non-negative integer or -1 for unlimited."
        raise bad(words, "thinking_token_budget", value)
    return value


class Shape(BaseModel):
    """What OpenAI's API ignores, vLLM ignores too."""

    model_config = ConfigDict(extra="allow")


class StreamOptions(Shape):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class JsonSchema(Shape):
    name: str
    plain: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Shape):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuralTagResponseFormat(Shape):
    type: Literal["structural_tag"]
    format: Any


class LegacyStructuralTagResponseFormat(Shape):
    type: Literal["structural_tag"]
    structures: list[Any]
    triggers: list[str]


class StructuredOutputs(BaseModel):
    """The one constraint of these that is given."""

    model_config = ConfigDict(extra="ignore")
    json_plain: str | dict[str, Any] | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None
    structural_tag: str | None = None


class Function(Shape):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Shape):
    type: Literal["function"] = "function"
    function: Function


class _Name(Shape):
    name: str


class NamedTool(Shape):
    function: _Name
    type: Literal["function"] = "function"


class Sampling(Shape):
    """The fields of every generating route that say how tokens are drawn and where the answer ends."""

    model: str | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: Annotated[int, INT64] | None = None
    stop: Stop = None
    stop_token_ids: list[int] | None = None
    stream: bool | None = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    structured_outputs: StructuredOutputs | None = None
    priority: Annotated[int, INT64] = 0
    request_id: str | None = None


class Generation(Sampling):
    """What chat and completions share beyond that."""

    stream_options: StreamOptions | None = None
    min_tokens: int = 0
    use_beam_search: bool = False
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=2**63 - 1)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] = Field(default_factory=list)
    response_format: ResponseFormat | StructuralTagResponseFormat | LegacyStructuralTagResponseFormat | None = None
    thinking_token_budget: Annotated[int | None, BeforeValidator(_thinking_budget)] = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    stream_interval: Annotated[int, Field(ge=1)] | None = None


class ChatBody(Generation):
    messages: list[dict[str, Any]]
    logprobs: bool | None = False
    top_logprobs: TopLogprobs = 0
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = True
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    include_reasoning: bool = True
    echo: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    media_io_kwargs: dict[str, dict[str, Any]] | None = None
    return_prompt_text: bool | None = None
    kv_transfer_params: dict[str, Any] | None = None  # of which only the ids of a prompt are read
    documents: list[dict[str, str]] | None = None


class ConvertedChat(ChatBody):
    """A request of another API as a chat."""

    max_output_tokens: int | None = None
    answer_ends: bool = False  # the limit of tokens is one that the answer need not reach


class CompletionBody(Generation):
    prompt: TokenIds | list[TokenIds] | str | list[str] | None = None
    prompt_embeds: str | list[str] | None = None
    logprobs: int | None = None
    max_tokens: int | None = 16
    n: int = 1
    echo: bool | None = False
    suffix: str | None = None


class BatchBody(ChatBody):
    messages: Annotated[  # type: ignore[assignment]
        list[Annotated[list[dict[str, Any]], Field(min_length=1)]], Field(min_length=1)
    ]
    tool_choice: Literal["none"] | None = "none"


class ResponsesBody(Sampling):
    """/v1/responses. Parts of `input` are read by emulate/responses.py."""

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    background: bool | None = False
    include: list[str] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = True
    previous_response_id: str | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] = "auto"
    store: bool | None = True
    enable_response_messages: bool = False
    text: dict[str, Any] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] = "auto"
    tools: list[dict[str, Any]] = []
    top_logprobs: TopLogprobs = 0
    truncation: Literal["auto", "disabled"] | None = "disabled"
    user: str | None = None
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None


_CHECKS: dict[type[BaseModel], Callable[[dict[str, Any]], None]] = {
    ChatBody: check_chat,
    CompletionBody: check_completion,
    BatchBody: check_batch,
    ResponsesBody: check_responses,
}
Read = TypeVar("Read", bound=BaseModel)


def read_body(shape: type[Read], body: bytes) -> Read:
    """The body as a value.

    Raises:
        Refusal: with vLLM's status and words.
    """
    return read_fields(shape, parse_json(body))


def read_fields(shape: type[Read], plain: object) -> Read:
    """The same for what is JSON already."""
    if isinstance(plain, dict) and shape in _CHECKS:
        _CHECKS[shape](plain)
    try:
        return shape.model_validate(plain, from_attributes=True)
    except ValidationError as error:
        raise _as_vllm_tells(error) from None


def parse_json(body: bytes) -> object:
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


def _as_vllm_tells(error: ValidationError) -> Refusal:
    problems = error.errors(include_url=False)
    lines = "\n".join(f"  {_describe(problem)}" for problem in problems[:MOST_PROBLEMS])
    word = "errors" if len(problems) > 1 else "error"
    rest = f"\n  ...and {len(problems) - MOST_PROBLEMS} more {word}" if len(problems) > MOST_PROBLEMS else ""
    message = f"{len(problems)} validation {word}:\n{lines}{rest}"
    return Refusal(400, message, "Bad Request", _place(problems[0]["loc"]))


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
    return text if len(text) <= LONGEST_INPUT else text[:LONGEST_INPUT] + "...[truncated]"
