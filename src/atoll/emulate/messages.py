"""/v1/messages: a body of Anthropic's API -> the chat that answers it (vllm/entrypoints/anthropic, 0.32)."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from atoll.emulate.body import ConvertedChat, Function, JsonSchema, NamedTool, ResponseFormat, Tool
from atoll.emulate.refusal import Refusal


class Block(BaseModel):
    """A part of a message."""

    type: str
    text: str | None = None
    id: str | None = None
    tool_use_id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    content: str | list[dict[str, Any]] | None = None


class Message(BaseModel):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class OfferedTool(BaseModel):
    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class Choice(BaseModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class OutputFormat(BaseModel):
    plain: dict[str, Any] | None = Field(default=None, alias="schema")
    type: Literal["json_schema"] = "json_schema"


class OutputConfig(BaseModel):
    effort: str | None = None
    format: OutputFormat | None = None


class CountBody(BaseModel):
    """/v1/messages/count_tokens."""

    model: str
    messages: list[Message]
    system: str | list[Block] | None = None
    tools: list[OfferedTool] | None = None
    tool_choice: Choice | None = None
    output_config: OutputConfig | None = None
    thinking: dict[str, Any] | None = None


class MessagesBody(CountBody):
    """/v1/messages. The limit of tokens is one that an answer need not reach, since every request must name one."""

    max_tokens: Annotated[int, Field(gt=0)]
    stop_sequences: Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


def as_chat(fields: CountBody) -> ConvertedChat:
    """The same request as a chat.

    Raises:
        Refusal: what is not emulated, such as images.
    """
    asked = fields.output_config.format if fields.output_config is not None else None
    schema = None
    if asked is not None and asked.plain is not None:
        inner = JsonSchema.model_validate({"name": "output", "schema": asked.plain})
        schema = ResponseFormat(type="json_schema", json_schema=inner)
    tools = [
        Tool(function=Function(name=tool.name, description=tool.description, parameters=tool.input_schema))
        for tool in fields.tools or ()
    ]
    return ConvertedChat.model_construct(
        model=fields.model,
        messages=_messages(fields),
        tools=tools or None,
        tool_choice=_choice(fields, tools),
        response_format=schema,
        answer_ends=True,
        chat_template_kwargs={"enable_thinking": True} if _is_to_think(fields) else None,
        **_sampling(fields),
    )


def _is_to_think(fields: CountBody) -> bool:
    return fields.thinking is not None and fields.thinking.get("type") in {"enabled", "adaptive"}


def _sampling(fields: CountBody) -> dict[str, Any]:
    if not isinstance(fields, MessagesBody):
        return {}
    kept = {name: getattr(fields, name) for name in ("max_tokens", "stream", "temperature", "top_k", "top_p")}
    return kept | {"stop": fields.stop_sequences}


def _choice(fields: CountBody, tools: list[Tool]) -> Any:
    choice = fields.tool_choice
    if choice is None or not tools:
        return "auto" if tools else None
    if choice.type == "tool":
        if not choice.name:
            raise Refusal(400, "tool_choice.name is required when type is 'tool'")
        return NamedTool.model_validate({"function": {"name": choice.name}})
    return {"auto": "auto", "any": "required", "none": "none"}[choice.type]


def _messages(fields: CountBody) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if fields.system:
        messages.append({"role": "system", "content": _plain(fields.system)})
    for message in fields.messages:
        if isinstance(message.content, str):
            messages.append({"role": message.role, "content": message.content})
            continue
        parts: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        for block in message.content:
            if block.type == "tool_result":
                messages.append({"role": "tool", "content": _result(block), "tool_call_id": block.tool_use_id})
            elif block.type == "tool_use":
                function = {"name": block.name, "arguments": json.dumps(block.input or {})}
                calls.append({"id": block.id, "type": "function", "function": function})
            elif block.type not in _SKIPPED:
                parts.append({"type": block.type, "text": block.text or ""})
        if parts or calls:
            said: dict[str, Any] = {"role": message.role, "content": parts}
            messages.append(said | ({"tool_calls": calls} if calls else {}))
    return messages


_SKIPPED = {"thinking", "redacted_thinking", "tool_reference"}


def _plain(system: str | list[Block]) -> str:
    return system if isinstance(system, str) else "\n".join(block.text or "" for block in system)


def _result(block: Block) -> str:
    if block.content is None or isinstance(block.content, str):
        return block.content or ""
    return "\n".join(str(part.get("text", "")) for part in block.content if part.get("type") == "text")
