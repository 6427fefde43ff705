"""What vLLM 0.32 checks of a body before its types, in its order and words (entrypoints/openai/*/protocol.py).

Each function takes the JSON object as it came and raises the Refusal that vLLM answers with.
"""

from typing import Any

from atoll.emulate.refusal import Refusal, bad, refused

MOST_PROMPTS = 1024  # vLLM: VLLM_MAX_COMPLETION_PROMPTS
LONGEST_SALT = 128
_USAGE = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'


def check_chat(data: dict[str, Any]) -> None:
    if data.get("continue_final_message") and data.get("add_generation_prompt"):
        raise refused("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    _check_tools(data)
    _check_constraints(data, tools=True)
    _check_chat_logprobs(data)
    _check_stream_options(data)
    _check_format(data)
    _check_salt(data)


def check_completion(data: dict[str, Any]) -> None:
    prompt, embeds = data.get("prompt"), data.get("prompt_embeds")
    tokens = isinstance(prompt, list) and all(isinstance(item, int) for item in prompt)
    if isinstance(prompt, list) and not tokens and len(prompt) > MOST_PROMPTS:
        words = f"prompt list length {len(prompt)} exceeds the maximum allowed count of {MOST_PROMPTS}."
        raise bad(
            f"{words} To increase this limit, set the VLLM_MAX_COMPLETION_PROMPTS environment variable.", "prompt"
        )
    if (prompt is None or prompt == "") and (embeds is None or embeds == []):
        raise bad("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    _check_stream_options(data)
    _check_completion_logprobs(data)
    _check_constraints(data, tools=False)
    _check_format(data)
    _check_salt(data)


def check_batch(data: dict[str, Any]) -> None:
    """/v1/chat/completions/batch: the same fields for several conversations, with less that may be asked for."""
    if data.get("use_beam_search"):
        words = "Batch chat completions do not support beam search. Please set `use_beam_search` to False."
        raise bad(words, "use_beam_search")
    if data.get("logprob_token_ids") and not data.get("logprobs"):
        raise bad("when using `logprob_token_ids`, `logprobs` must be set to true.", "logprob_token_ids")
    _check_format(data)
    n = data.get("n", 1)
    if n is not None and n != 1:
        raise bad("Batch chat completions do not support `n > 1`. Please set `n` to 1.", "n", n)


def check_responses(data: dict[str, Any]) -> None:
    if data.get("prompt") is not None:
        raise bad("prompt template is not supported", "prompt")
    if data.get("background") and not data.get("store", True):
        raise bad("background can only be used when `store` is true", "background")
    if not data.get("tools") and data.get("tool_choice", "auto") == "auto":
        data["tool_choice"] = "none"
    _check_salt(data)


def _check_tools(data: dict[str, Any]) -> None:
    tools = data.get("tools")
    if tools == []:
        words = "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely."
        raise bad(words, "tools")
    choice = data.get("tool_choice")
    if choice in (None, "none"):
        return
    if tools is None:
        raise bad("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, dict):
        _check_named_tool(choice, tools)
    elif choice not in ("auto", "required"):
        words = 'Only named tools, "none", "auto" or "required" are supported.'
        raise bad(f"Invalid value for `tool_choice`: {choice}! {words}", "tool_choice")


def _check_named_tool(choice: dict[str, Any], tools: Any) -> None:
    function = choice.get("function")
    if not isinstance(function, dict):
        raise bad(f"Invalid value for `function`: `{function}` in `tool_choice`! {_USAGE}", "tool_choice.function")
    if "name" not in function:
        raise bad(f"Expected field `name` in `function` in `tool_choice`! {_USAGE}", "tool_choice.function.name")
    name = function["name"]
    if not isinstance(name, str) or not name:
        words = f"Invalid `name` in `function`: `{name}` in `tool_choice`! {_USAGE}"
        raise bad(words, "tool_choice.function.name")
    if not any(_name_of(tool) == name for tool in tools if isinstance(tools, list)):
        raise bad("The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice")


def _name_of(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _check_constraints(data: dict[str, Any], *, tools: bool) -> None:
    asked = data.get("structured_outputs")
    if not isinstance(asked, dict):
        return
    count = sum(asked.get(name) is not None for name in ("json", "regex", "choice"))
    if count > 1:
        words = "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
        raise refused(words) if tools else bad(words, "structured_outputs")
    if tools and count and data.get("tool_choice", "none") not in ("none", "auto", "required"):
        raise refused("You can only either use constraints for structured outputs or tools, not both.")


def _check_chat_logprobs(data: dict[str, Any]) -> None:
    _check_logprob_ids(data, "when using `logprob_token_ids`, `logprobs` must be set to true.", data.get("logprobs"))
    _check_whole(data, "prompt_logprobs", "top_logprobs")
    _check_prompt_logprobs(data)
    top = data.get("top_logprobs")
    if top is None:
        return
    if top < 0 and top != -1:
        raise bad("`top_logprobs` must be a positive value or -1.", "top_logprobs", top)
    if top != 0 and not data.get("logprobs"):
        raise bad("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")


def _check_completion_logprobs(data: dict[str, Any]) -> None:
    if data.get("use_beam_search") and data.get("echo") and data.get("logprobs") is not None:
        words = "`echo` with `logprobs` is not supported with beam search because beam search does not compute prompt"
        raise bad(f"{words} logprobs.", "echo")
    if data.get("logprob_token_ids") and data.get("echo") and data.get("max_tokens") == 0:
        words = "`logprob_token_ids` is not supported when `echo=True` and `max_tokens=0` because no output tokens are"
        raise bad(f"{words} generated.", "logprob_token_ids")
    asked = data.get("logprobs") is not None
    _check_logprob_ids(data, "when using `logprob_token_ids`, `logprobs` must be set.", asked)
    _check_whole(data, "prompt_logprobs", "logprobs")
    _check_prompt_logprobs(data)
    logprobs = data.get("logprobs")
    if logprobs is not None and logprobs < 0 and logprobs != -1:
        raise bad("`logprobs` must be a positive value or -1.", "logprobs", logprobs)


def _check_logprob_ids(data: dict[str, Any], words: str, asked: object) -> None:
    if not data.get("logprob_token_ids"):
        return
    if data.get("use_beam_search"):
        raise bad("`logprob_token_ids` is not supported with beam search.", "logprob_token_ids")
    if not asked:
        raise bad(words, "logprob_token_ids")


def _check_whole(data: dict[str, Any], *names: str) -> None:
    for name in names:
        value = data.get(name)
        if value is not None and not isinstance(value, int | float):
            raise bad(f"`{name}` must be an integer.", name, value)


def _check_prompt_logprobs(data: dict[str, Any]) -> None:
    asked = data.get("prompt_logprobs")
    if asked is None:
        return
    if data.get("stream") and (asked > 0 or asked == -1):
        raise bad("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    if asked < 0 and asked != -1:
        raise bad("`prompt_logprobs` must be a positive value or -1.", "prompt_logprobs", asked)


def _check_stream_options(data: dict[str, Any]) -> None:
    if data.get("stream_options") and not data.get("stream"):
        raise bad("Stream options can only be defined when `stream=True`.", "stream_options")


def _check_format(data: dict[str, Any]) -> None:
    asked = data.get("response_format")
    if not isinstance(asked, dict):
        return
    kind = asked.get("type")
    if kind == "json_schema" and asked.get("json_schema") is None:
        words = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
        raise bad(words, "response_format")
    if kind == "structural_tag":
        old = isinstance(asked.get("structures"), list) and isinstance(asked.get("triggers"), list)
        if not old and not isinstance(asked.get("format"), dict):
            raise bad("Invalid response_format structural_tag specification.", "response_format")
        raise Refusal(400, "The emulated engine does not follow structural tags.", param="response_format")


def _check_salt(data: dict[str, Any]) -> None:
    salt = data.get("cache_salt")
    if salt is None:
        return
    if not isinstance(salt, str) or not salt:
        raise bad("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")
    if len(salt) > LONGEST_SALT or set(salt) & set("@/\\\0"):
        words = "must be at most 128 characters and must not contain '@', '/', '\\\\', or NUL."
        raise bad(f"Parameter 'cache_salt' {words}", "cache_salt")
