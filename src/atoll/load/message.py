"""A Request as the bytes of an HTTP message."""

import json
from collections.abc import Mapping
from typing import Any

import atoll
from atoll.load.target import Asking, Endpoint, Target
from atoll.traffic.request import Request


class MessageWriter:
    """Writes requests of one run. What is the same in all of them is made once."""

    def __init__(self, target: Target, endpoint: Endpoint, asking: Asking, model: str) -> None:
        self._chat = endpoint is Endpoint.CHAT
        self._exact = asking.exact_output
        self._head = (head_lines("POST", target.path, target, asking) + "Content-Length: ").encode()
        self._fields = _fields(asking, model)

    def write(self, request: Request, text: bytes, earlier: bytes = b"") -> bytes:
        """The whole message.

        Args:
            request: its number of output tokens counts.
            text: what the user says, as JSON text without quotes.
            earlier: what `remember` gave for the session so far, or messages as JSON objects with a comma behind each.
        """
        if self._chat:
            said = b'"messages":[%s{"role":"user","content":"%s"}]' % (earlier, text)
        else:
            said = b'"prompt":"%s%s"' % (earlier, text)
        tokens = request.output_tokens
        exact = b',"min_tokens":%d,"ignore_eos":true' % tokens if self._exact else b""
        body = b'{%s,%s,"max_tokens":%d%s}' % (self._fields, said, tokens, exact)
        return b"%s%d\r\n\r\n%s" % (self._head, len(body), body)

    def before(self, messages: bytes) -> bytes:
        """Messages that a file has before the first one; a completions endpoint has no place for them."""
        return messages if self._chat else b""

    def remember(self, earlier: bytes, text: bytes, answer: bytes) -> bytes:
        """The session so far with one more exchange; all three as JSON text."""
        if self._chat:
            exchange = b'{"role":"user","content":"%s"},{"role":"assistant","content":"%s"},'
            return earlier + exchange % (text, answer)
        return earlier + text + answer


def _fields(asking: Asking, model: str) -> bytes:
    """The JSON fields that every request has, without the braces."""
    fields: dict[str, Any] = {"model": model, "stream": asking.stream}
    if asking.stream:
        fields["stream_options"] = {"include_usage": True}
    if asking.temperature is not None:
        fields["temperature"] = asking.temperature
    fields |= asking.extra_body
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()[1:-1]


def head_lines(method: str, path: str, target: Target, asking: Asking) -> str:
    """Request line and headers, up to the length of the body."""
    accept = "text/event-stream" if asking.stream and method == "POST" else "application/json"
    headers: dict[str, str] = {
        "Host": target.authority,
        "User-Agent": f"atoll/{atoll.__version__}",
        "Accept": accept,
    }
    if method == "POST":
        headers["Content-Type"] = "application/json"
    if asking.api_key:
        headers["Authorization"] = f"Bearer {asking.api_key}"
    headers = _with_own(headers, asking.headers)
    return f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _with_own(headers: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The user's headers win, however they are capitalised."""
    given = {name.lower() for name in own}
    return {name: value for name, value in headers.items() if name.lower() not in given} | dict(own)
