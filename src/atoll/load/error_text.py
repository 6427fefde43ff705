"""The sentence in a body that says why not, whatever shape the server, its framework or a proxy gives it."""

import json
import re
from typing import Any

_LONGEST = 500
# Where the words stand, the best first: vLLM and OpenAI, FastAPI, llama.cpp, problem details (RFC 9457), OAuth, SOAP.
_KEYS = ("message", "error", "detail", "errors", "msg", "error_message", "error_description", "reason", "description")
_LAST_KEYS = ("title", "fault", "faultstring", "error_msg", "statusText")
_HEADLINE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]+>")


def error_text(body: bytes | bytearray) -> str:
    """The sentence in the body of an error; "" for an empty one."""
    try:
        plain = json.loads(body)
    except ValueError:
        return _page_text(bytes(body))
    return error_sentence(plain)


def error_sentence(plain: Any) -> str:
    """`{"error": {"message"}}`, `{"error": "..."}`, `{"detail": [{"loc", "msg"}]}`, a list of them, or plain text."""
    return " ".join((_sentence(plain) or json.dumps(plain, ensure_ascii=False)).split())[:_LONGEST]


def _sentence(plain: Any) -> str:
    if isinstance(plain, str):
        return plain
    if isinstance(plain, list):
        return "; ".join(filter(None, (_sentence(item) for item in plain[:3])))
    if not isinstance(plain, dict):
        return ""
    if isinstance(plain.get("msg"), str) and isinstance(plain.get("loc"), list):  # FastAPI and pydantic
        return f"{plain['msg']}: {'.'.join(map(str, plain['loc']))}"
    found = next((words for key in (*_KEYS, *_LAST_KEYS) if (words := _sentence(plain.get(key)))), "")
    return found or (json.dumps(plain["error"], ensure_ascii=False) if plain.get("error") else "")


def _page_text(body: bytes) -> str:
    """The headline of a web page, as proxies send; of anything else its beginning."""
    text = body[:4000].decode("utf-8", errors="replace")
    headline = _HEADLINE.search(text)
    return show(_TAG.sub(" ", headline[2]).encode()) if headline else show(body) if body.strip() else ""


def show(body: bytes | bytearray) -> str:
    """The beginning of some bytes on one line."""
    text = " ".join(bytes(body[:400]).decode("utf-8", errors="replace").split())
    return text[:200] or "nothing"
