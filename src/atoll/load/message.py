"""A Request as the bytes of an HTTP message."""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import atoll
from atoll.errors import InputError
from atoll.load.target import Endpoint, RequestOptions, Target
from atoll.traffic.request import Request


class MessageWriter:
    """Writes requests of one run. What is the same in all of them is made once."""

    def __init__(self, target: Target, endpoint: Endpoint, options: RequestOptions, model: str) -> None:
        self._chat = endpoint is Endpoint.CHAT
        self._exact = options.exact_output
        self._head = (head_lines("POST", target.path, target, options) + "Content-Length: ").encode()
        self._fields = _fields(options, model)

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


def _fields(options: RequestOptions, model: str) -> bytes:
    """The JSON fields that every request has, without the braces."""
    fields: dict[str, Any] = {"model": model, "stream": options.stream}
    if options.stream:
        fields["stream_options"] = {"include_usage": True}
    if options.temperature is not None:
        fields["temperature"] = options.temperature
    fields |= options.extra_body
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()[1:-1]


def head_lines(method: str, path: str, target: Target, options: RequestOptions) -> str:
    """Request line and headers, up to the length of the body."""
    accept = "text/event-stream" if options.stream and method == "POST" else "application/json"
    headers: dict[str, str] = {
        "Host": target.authority,
        "User-Agent": f"atoll/{atoll.__version__}",
        "Accept": accept,
    }
    if method == "POST":
        headers["Content-Type"] = "application/json"
    if not target.tls:
        headers |= proxy_headers(options)
    if options.api_key:
        headers["Authorization"] = f"Bearer {options.api_key}"
    headers = _with_own(headers, options.headers)
    line = f"{method} {request_target(path, target, options)} HTTP/1.1\r\n"
    return line + "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def request_target(path: str, target: Target, options: RequestOptions) -> str:
    """What the request line names: a path; for a proxy that passes plain HTTP on, the whole URL (RFC 9112, 3.2.2)."""
    return f"{target.origin}{path}" if options.proxy is not None and not target.tls else path


def proxy_headers(options: RequestOptions) -> dict[str, str]:
    """What a proxy wants to hear: the name and password of its URL, when there are any."""
    parts = urlsplit(_with_scheme(options.proxy or ""))
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + b64encode(pair.encode()).decode()}


def proxy_address(options: RequestOptions) -> tuple[str, int] | None:
    """Host and port of the proxy; None without one. Raises InputError when it is no HTTP proxy."""
    if options.proxy is None:
        return None
    parts = urlsplit(_with_scheme(options.proxy))
    if parts.scheme != "http" or not parts.hostname:
        raise InputError(f"{options.proxy!r} is no HTTP proxy. Write it like http://proxy:3128.")
    return parts.hostname, parts.port or 3128


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _with_own(headers: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The user's headers win, however they are capitalised."""
    given = {name.lower() for name in own}
    return {name: value for name, value in headers.items() if name.lower() not in given} | dict(own)
