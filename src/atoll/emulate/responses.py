"""/v1/responses: a body of OpenAI's newer API -> the chat that answers it (vllm/entrypoints/openai/responses, 0.32).

As under a vLLM without VLLM_ENABLE_RESPONSES_API_STORE, nothing is kept: an answer cannot be asked for again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atoll.emulate.ask import Call
from atoll.emulate.body import ConvertedChat, Function, JsonSchema, NamedTool, ResponseFormat, ResponsesBody, Tool
from atoll.emulate.compose import compose_chat
from atoll.emulate.prompts import Desk
from atoll.emulate.refusal import Refusal, bad, refused

LOGPROBS = "message.output_text.logprobs"
_FORMATS = {"text", "json_object", "json_schema"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ordered:
    """A request to /v1/responses, read: what it generates, and what its answer says again."""

    call: Call
    messages: bool = False  # whether the document shows what went in and came out
    repeated: dict[str, Any]  # fields of the answer that were known from the start


def no_such_response(name: str) -> Refusal:
    message = f"Response with id '{name}' not found."
    return Refusal(404, message, "invalid_request_error", "response_id")


def order(fields: ResponsesBody, desk: Desk) -> Ordered:
    """What /v1/responses is asked for.

    Raises:
        Refusal: with vLLM's status and words, or what is not emulated.
    """
    desk.check_model(fields.model)
    if fields.background:
        words = "This vLLM engine does not support `store=True` and therefore does not support the background mode."
        more = (
            "To enable these features, set the environment variable `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching"
        )
        raise Refusal(400, f"{words} {more} the vLLM server.", "invalid_request_error", "background")
    if fields.previous_response_id is not None:
        raise no_such_response(fields.previous_response_id)
    chat = _chat(fields)
    prompted = compose_chat(chat, desk)
    ask = prompted.asks[0]
    if ask.prompt_tokens >= desk.served.max_model_len:
        words = f"The engine prompt length {ask.prompt_tokens} exceeds the max_model_len {desk.served.max_model_len}."
        raise Refusal(400, f"{words} Please reduce prompt.", "invalid_request_error", "input")
    model = desk.served.model_of(fields.model)
    repeated = _repeated(fields, ask.max_tokens, model)
    return Ordered(call=prompted, messages=fields.enable_response_messages, repeated=repeated)


def _chat(fields: ResponsesBody) -> ConvertedChat:
    """The same request as a chat."""
    tools = [_tool(tool) for tool in fields.tools]
    logprobs = LOGPROBS in (fields.include or ())
    given = {name: getattr(fields, name) for name in _SAME if name in type(fields).model_fields}
    return ConvertedChat.model_construct(
        **given,
        messages=messages_of(fields.input, fields.instructions),
        tools=tools or None,
        tool_choice=_choice(fields, tools),
        response_format=_format(fields),
        max_output_tokens=fields.max_output_tokens,
        logprobs=logprobs,
        top_logprobs=fields.top_logprobs if logprobs else 0,
        reasoning_effort=(fields.reasoning or {}).get("effort"),
        chat_template_kwargs=(fields.model_extra or {}).get("chat_template_kwargs"),
        include_reasoning=(fields.model_extra or {}).get("include_reasoning", True),
        return_token_ids=fields.enable_response_messages,
        truncate_prompt_tokens=-1 if fields.truncation == "auto" else None,
    )


_SAME = [
    "model",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "stop",
    "stop_token_ids",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "ignore_eos",
    "include_stop_str_in_output",
    "structured_outputs",
    "parallel_tool_calls",
]


def messages_of(given: str | Sequence[dict[str, Any]], instructions: str | None = None) -> list[dict[str, Any]]:
    """The input as messages of a chat.

    Raises:
        Refusal: an item that is not emulated.
    """
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for item in given:
        kind = item.get("type", "message")
        if kind == "message":
            messages.append({"role": item.get("role"), "content": item.get("content")})
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            messages.append({"role": "assistant", "tool_calls": [{"id": item.get("call_id"), "function": function}]})
        elif kind == "function_call_output":
            output = item.get("output")
            content = output if isinstance(output, str | list) else json.dumps(output)
            messages.append({"role": "tool", "content": content, "tool_call_id": item.get("call_id")})
        elif kind != "reasoning":
            raise Refusal(400, f"The emulated engine does not read input items of type {kind!r}.", param="input")
    return messages


def _tool(tool: dict[str, Any]) -> Tool:
    if tool.get("type") != "function":
        words = f"The emulated engine calls functions only; it has no tool of type {tool.get('type')!r}."
        raise Refusal(400, words, param="tools")
    if not isinstance(tool.get("name"), str):
        raise Refusal(400, "A tool of type 'function' needs a `name`.", param="tools")
    function = Function(name=tool["name"], description=tool.get("description"), parameters=tool.get("parameters"))
    return Tool(function=function)


def _choice(fields: ResponsesBody, tools: list[Tool]) -> Any:
    choice = fields.tool_choice
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise bad("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
        return choice if tools else "none"
    if choice.get("type") == "function":
        if not any(tool.function.name == choice.get("name") for tool in tools):
            raise bad("Tool choice 'function' not found in 'tools' parameter.", "tool_choice")
        return NamedTool.model_validate({"function": {"name": choice["name"]}})
    if choice.get("type") == "allowed_tools":
        return choice.get("mode", "auto")
    words = f"The emulated engine has no tool of type {choice.get('type')!r} to choose."
    raise Refusal(400, words, param="tool_choice")


def _format(fields: ResponsesBody) -> ResponseFormat | None:
    asked = (fields.text or {}).get("format")
    if asked is None:
        return None
    if fields.structured_outputs is not None:
        raise bad("Cannot specify both structured_outputs and text.format", "structured_outputs")
    if not isinstance(asked, dict) or asked.get("type") not in _FORMATS:
        raise refused("`text.format` is an object whose type is text, json_object or json_schema.")
    if asked["type"] != "json_schema":
        return ResponseFormat(type=asked["type"])
    schema = JsonSchema.model_validate({"name": str(asked.get("name", "")), "schema": asked.get("schema")})
    return ResponseFormat(type="json_schema", json_schema=schema)


def _repeated(fields: ResponsesBody, max_tokens: int, model: str) -> dict[str, Any]:
    """The settings that the answer names, in its order; `output`, `status` and `usage` are filled in later."""
    choice = fields.tool_choice if fields.tools else "none"
    logprobs = LOGPROBS in (fields.include or ())
    return {
        "incomplete_details": None,
        "instructions": fields.instructions,
        "metadata": fields.metadata,
        "model": model,
        "object": "response",
        "output": [],
        "parallel_tool_calls": True if fields.parallel_tool_calls is None else fields.parallel_tool_calls,
        "temperature": 1.0 if fields.temperature is None else fields.temperature,
        "tool_choice": choice if isinstance(choice, str) else {"name": choice.get("name"), "type": choice.get("type")},
        "tools": [_TOOL_FIELDS | _known(tool) for tool in fields.tools],
        "top_p": 1.0 if fields.top_p is None else fields.top_p,
        "background": False,
        "max_output_tokens": max_tokens,
        "max_tool_calls": fields.max_tool_calls,
        "previous_response_id": None,
        "prompt": None,
        "reasoning": fields.reasoning,
        "service_tier": fields.service_tier,
        "status": "in_progress",
        "text": _shown_text(fields.text),
        "top_logprobs": fields.top_logprobs if logprobs else None,
        "truncation": fields.truncation or "disabled",
        "usage": None,
        "user": fields.user,
        "presence_penalty": fields.presence_penalty or 0.0,
        "frequency_penalty": fields.frequency_penalty or 0.0,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


_TOOL_FIELDS: dict[str, Any] = {"name": None, "parameters": None, "strict": None, "type": "function"}
_TOOL_FIELDS |= dict.fromkeys(("allowed_callers", "async", "defer_loading", "description", "output_schema"))


def _known(tool: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tool.items() if name in _TOOL_FIELDS}


def _shown_text(text: dict[str, Any] | None) -> dict[str, Any] | None:
    if text is None:
        return None
    asked = text.get("format")
    shown = asked
    if isinstance(asked, dict) and asked.get("type") == "json_schema":
        shown = {name: asked.get(name) for name in ("name", "schema", "type", "description", "strict")}
    return {"format": shown, "verbosity": text.get("verbosity")}
