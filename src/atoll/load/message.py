"""A Request as the bytes of an HTTP message."""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import atoll
from atoll.errors import InputError
from atoll.load.prompts import Made
from atoll.load.target import Endpoint, RequestOptions, Target
from atoll.traffic.request import Request

_REQUEST_ID = "X-Request-Id"
_QUERY_WORDS = 16  # of a prompt, where documents are held against a query


class MessageWriter:
    """Writes requests of one run. What is the same in all of them is made once."""

    def __init__(
        self, target: Target, endpoint: Endpoint, options: RequestOptions, model: str, *, ids: str | None = None
    ) -> None:
        """Make what is the same.

        Args:
            target: where the requests go.
            endpoint: what is asked for.
            options: how.
            model: whom, where the options do not name several.
            ids: what the requests' ids begin with; None: none are sent.
        """
        self._endpoint = endpoint
        self._options = options
        self._ids = ids
        streamed = options.stream and endpoint.generates
        self._head = head_lines("POST", target.path, target, options, streamed=streamed).encode()
        names = {model, *(share.name for share in options.models)}
        self._plain = {name: _fields(options, name, endpoint) for name in names}
        self._fields = {name: _inside(fields) for name, fields in self._plain.items()}
        self._model = model
        self._images = b"".join(
            b'{"type":"image_url","image_url":{"url":"%s"}},' % _text(url) for url in options.images
        )
        self._max = self._field("max_output_tokens" if endpoint is Endpoint.RESPONSES else options.length_field)
        exact = options.exact_output and endpoint in {Endpoint.CHAT, Endpoint.COMPLETIONS}
        self._min = self._field("min_tokens") if exact else b""
        self._on = b',"ignore_eos":true' if exact and "ignore_eos" not in options.omit else b""

    def _field(self, name: str) -> bytes:
        return b"" if name in self._options.omit else b',"%s":%%d' % name.encode()

    @property
    def is_exact(self) -> bool:
        """Whether answers are made to have just the wanted length."""
        return bool(self._max and (self._min or self._on))

    def write(self, request: Request, made: Made, earlier: bytes = b"", *, model: str | None = None) -> bytes:
        """The whole message.

        Args:
            request: its number of output tokens counts.
            made: what it says.
            earlier: what `remember` gave for the session so far.
            model: whom, where there are several.
        """
        name = self._model if model is None else model
        fields = self._fields[name]
        if made.fields:
            own = {key: value for key, value in made.fields.items() if key not in self._options.omit}
            fields = _inside({key: value for key, value in self._plain[name].items() if key not in own} | own)
        body = b"{%s,%s%s}" % (fields, self._said(made, earlier), self._lengths(request.output_tokens))
        return b"%s%sContent-Length: %d\r\n\r\n%s" % (self._head, self._own_lines(request), len(body), body)

    def _said(self, made: Made, earlier: bytes) -> bytes:
        """The field that has what is asked."""
        if self._endpoint.takes_messages:
            name = b"input" if self._endpoint is Endpoint.RESPONSES else b"messages"
            return b'"%s":[%s%s]' % (name, earlier + made.before, self._message(made))
        if self._endpoint is Endpoint.COMPLETIONS:
            return b'"prompt":"%s%s"' % (earlier, made.text)
        if self._endpoint is Endpoint.EMBEDDINGS:
            return b'"input":"%s"' % made.text
        return self._query(made)

    def _message(self, made: Made) -> bytes:
        if made.message is not None:
            return made.message
        if self._images:
            return b'{"role":"user","content":[%s{"type":"text","text":"%s"}]}' % (self._images, made.text)
        return b'{"role":"user","content":"%s"}' % made.text

    def _query(self, made: Made) -> bytes:
        """A query, the prompt's first words, and documents, the rest in equal pieces."""
        query, documents = (b"query", b"documents") if self._endpoint is Endpoint.RERANK else (b"text_1", b"text_2")
        if made.fields and documents.decode() in made.fields:  # the prompt is the query
            return b'"%s":"%s"' % (query, made.text)
        words = made.text.split(b" ")
        asked, rest = words[:_QUERY_WORDS], words[_QUERY_WORDS:] or words
        size = -(-len(rest) // self._options.documents)
        pieces = [b" ".join(rest[at : at + size]) for at in range(0, len(rest), size)]
        return b'"%s":"%s","%s":["%s"]' % (query, b" ".join(asked), documents, b'","'.join(pieces))

    def _lengths(self, tokens: int) -> bytes:
        if not self._endpoint.generates:
            return b""
        longest = self._max % tokens if self._max else b""
        return longest + (self._min % tokens if self._min else b"") + self._on

    def _own_lines(self, request: Request) -> bytes:
        """What names the request and its session to whoever passes them on."""
        lines = "" if self._ids is None else f"{_REQUEST_ID}: {self._ids}{request.number}\r\n"
        if self._options.session_header is not None:
            session = request.user if request.session is None else request.session
            lines += f"{self._options.session_header}: s{session}\r\n"
        return lines.encode()

    def remember(self, earlier: bytes, made: Made, answer: bytes) -> bytes:
        """The session so far with one more exchange; the answer as JSON text."""
        if self._endpoint.takes_messages:
            said = (earlier, made.before, self._message(made), answer)
            return b'%s%s%s,{"role":"assistant","content":"%s"},' % said
        return earlier + made.text + answer


def _fields(options: RequestOptions, model: str, endpoint: Endpoint) -> dict[str, Any]:
    """The JSON fields that every request to this model has."""
    fields: dict[str, Any] = {"model": model}
    if endpoint.generates:
        fields["stream"] = options.stream
        if options.stream and options.usage and endpoint is not Endpoint.RESPONSES:
            fields["stream_options"] = {"include_usage": True}
        if options.temperature is not None:
            fields["temperature"] = options.temperature
    fields |= options.extra_body
    return {name: value for name, value in fields.items() if name not in options.omit}


def _inside(fields: Mapping[str, Any]) -> bytes:
    """As JSON, without the braces."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()[1:-1]


def _text(words: str) -> bytes:
    return json.dumps(words, ensure_ascii=False).encode()[1:-1]


def head_lines(method: str, path: str, target: Target, options: RequestOptions, *, streamed: bool | None = None) -> str:
    """Request line and headers, but for the length of the body."""
    streamed = options.stream and method == "POST" if streamed is None else streamed
    headers: dict[str, str] = {
        "Host": target.authority,
        "User-Agent": f"atoll/{atoll.__version__}",
        "Accept": "text/event-stream" if streamed else "application/json",
    }
    if method == "POST":
        headers["Content-Type"] = "application/json"
    if not target.tls:
        headers |= proxy_headers(options)
    if target.basic is not None:
        headers["Authorization"] = "Basic " + b64encode(target.basic.encode()).decode()
    elif options.api_key:
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
