"""What each path answers. The routes are those of vLLM 0.32 with the flags that it has by default."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from atoll.emulate.ask import Call
from atoll.emulate.body import (
    BatchBody,
    ChatBody,
    CompletionBody,
    ResponsesBody,
    parse_json,
    read_body,
    read_fields,
)
from atoll.emulate.compose import compose_batch, compose_chat, compose_completion
from atoll.emulate.messages import CountBody, MessagesBody, as_chat
from atoll.emulate.messages_wire import MessagesWire
from atoll.emulate.metrics import show_metrics
from atoll.emulate.pooling import PoolingForm, cohere_embed, embeddings, rerank, score
from atoll.emulate.refusal import Refusal, not_found, wrong_method
from atoll.emulate.reply import Form
from atoll.emulate.responses import no_such_response, order
from atoll.emulate.responses_wire import ResponsesWire
from atoll.emulate.site import Site
from atoll.emulate.tokenizing import detokenize, tokenize, tokenizer_info
from atoll.emulate.wire import ChoicesForm, Envelope


@dataclass(slots=True)
class Received:
    """A request as far as it has come in."""

    url: bytes = b""
    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    head_size: int = 0
    http_1_1: bool = True
    keep_alive: bool = True

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class Exchange(Protocol):
    """The connection, as a route sees it: one answer is given, at once or by the engine."""

    @property
    def site(self) -> Site: ...
    def answer(self, status: int, body: bytes, content_type: str | None = None) -> None: ...
    def generate(self, form: Form, *, stream: bool) -> None: ...


Serve = Callable[[Exchange, Received], None]


def find_route(site: Site, received: Received) -> Serve:
    """Who serves this path and method.

    Raises:
        Refusal: 404, 405, or what vLLM has and the emulated engine has not.
    """
    path = received.path
    table = _SHARED | (_GENERATE if site.served.kind == "generate" else _POOLING)
    methods = table.get(path)
    if methods is None and site.served.kind == "generate" and path.startswith("/v1/responses/"):
        methods = {"POST": _no_response} if path.endswith("/cancel") else {"GET": _no_response}
    if methods is None:
        if path in _SCALE_OUT and received.method == "POST":
            words = "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."
            raise Refusal(403, words, "PermissionDeniedError")
        if path in _NOT_EMULATED and site.served.kind == "generate":
            raise Refusal(501, f"The emulated engine does not serve {path}.", "NotImplementedError")
        raise not_found()
    serve = methods.get(received.method)
    if serve is None:
        raise wrong_method(", ".join(sorted(methods)))
    return serve


def knows_path(site: Site, path: str) -> bool:
    return path in _SHARED or path in (_GENERATE if site.served.kind == "generate" else _POOLING)


def _compact(plain: Any) -> bytes:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _json(exchange: Exchange, plain: Any) -> None:
    exchange.answer(200, _compact(plain), "application/json")


def _json_body(received: Received) -> bytes:
    if received.headers.get("content-type", "").lower().split(";")[0].strip() != "application/json":
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise Refusal(400, message, "Bad Request")
    return received.body


def _id_of(received: Received, fields: Any = None) -> str:
    asked = getattr(fields, "request_id", None)
    return received.headers.get("x-request-id") or (asked if isinstance(asked, str) else None) or secrets.token_hex(8)


# What says how the server is


def _health(exchange: Exchange, _: Received) -> None:
    exchange.answer(200, b"")


def _version(exchange: Exchange, _: Received) -> None:
    _json(exchange, {"version": exchange.site.version})


def _load(exchange: Exchange, _: Received) -> None:
    _json(exchange, {"server_load": exchange.site.load})


def _models(exchange: Exchange, _: Received) -> None:
    site = exchange.site
    cards = [
        {
            "id": name,
            "object": "model",
            "created": site.started,
            "owned_by": "vllm",
            "root": site.served.root,
            "parent": None,
            "max_model_len": site.served.max_model_len,
            "permission": [_permission(site.started)],
        }
        for name in site.served.names
    ]
    cards += [
        {
            "id": name,
            "object": "model",
            "created": site.started,
            "owned_by": "vllm",
            "root": path,
            "parent": site.served.model,
            "max_model_len": None,
            "permission": [_permission(site.started)],
        }
        for name, path in site.served.adapters
    ]
    _json(exchange, {"object": "list", "data": cards})


def _permission(created: int) -> dict[str, Any]:
    allowed = {"create_engine": False, "sampling": True, "logprobs": True, "search_indices": False, "view": True}
    return {
        "id": f"modelperm-{secrets.token_hex(8)}",
        "object": "model_permission",
        "created": created,
        **{f"allow_{what}": answer for what, answer in allowed.items()},
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }


def _metrics(exchange: Exchange, _: Received) -> None:
    site = exchange.site
    text = show_metrics(site.engine.meters, site.engine.gauges(), site.engine.facts(), model=site.served.model)
    exchange.answer(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")


def _tokenize(exchange: Exchange, received: Received) -> None:
    _json(exchange, tokenize(_json_body(received), exchange.site.desk))


def _detokenize(exchange: Exchange, received: Received) -> None:
    _json(exchange, detokenize(_json_body(received), exchange.site.desk))


def _tokenizer_info(exchange: Exchange, _: Received) -> None:
    """What vLLM shows with --enable-tokenizer-info-endpoint; without it there is no such route."""
    served = exchange.site.served
    if not served.tokenizer_info:
        raise not_found()
    _json(exchange, tokenizer_info(served))


# What generates


def _chat(exchange: Exchange, received: Received) -> None:
    fields = read_body(ChatBody, _json_body(received))
    _choices(exchange, received, compose_chat(fields, exchange.site.desk), fields)


def _completion(exchange: Exchange, received: Received) -> None:
    fields = read_body(CompletionBody, _json_body(received))
    _choices(exchange, received, compose_completion(fields, exchange.site.desk), fields)


def _batch(exchange: Exchange, received: Received) -> None:
    fields = read_body(BatchBody, _json_body(received))
    _choices(exchange, received, compose_batch(fields, exchange.site.desk), fields)


def _invocations(exchange: Exchange, received: Received) -> None:
    """SageMaker's one path for all: a chat where there are messages, else a completion."""
    plain = parse_json(_json_body(received))
    if isinstance(plain, dict) and "messages" in plain:
        chat = read_fields(ChatBody, plain)
        _choices(exchange, received, compose_chat(chat, exchange.site.desk), chat)
    else:
        fields = read_fields(CompletionBody, plain)
        _choices(exchange, received, compose_completion(fields, exchange.site.desk), fields)


def _choices(exchange: Exchange, received: Received, call: Call, fields: Any) -> None:
    site = exchange.site
    envelope = Envelope(
        call,
        request_id=_id_of(received, fields),
        served=site.served,
        model=fields.model,
        created=int(site.clock.wall()),
        fingerprint=site.fingerprint,
        vocabulary=site.vocabulary,
        chunked=received.http_1_1,
    )
    exchange.generate(ChoicesForm(envelope), stream=call.stream)


@dataclass(frozen=True, slots=True)
class _Single:
    """The answer of an API that knows one choice."""

    wire: ResponsesWire | MessagesWire

    @property
    def wires(self) -> list[ResponsesWire | MessagesWire]:
        return [self.wire]

    def ending(self, *, tokens: int, cached: int) -> bytes:
        return self.wire.ending(tokens=tokens, cached=cached)

    def body(self, *, tokens: int, cached: int) -> bytes:
        return self.wire.body(tokens=tokens, cached=cached)


def _responses(exchange: Exchange, received: Received) -> None:
    site = exchange.site
    fields = read_body(ResponsesBody, _json_body(received))
    ordered = order(fields, site.desk)
    wire = ResponsesWire(
        ordered,
        request_id=_id_of(received, fields).removeprefix("resp_"),
        created=int(site.clock.wall()),
        served=site.served,
        vocabulary=site.vocabulary,
        chunked=received.http_1_1,
    )
    exchange.generate(_Single(wire), stream=ordered.call.stream)


def _no_response(_: Exchange, received: Received) -> None:
    raise no_such_response(received.path.removeprefix("/v1/responses/").removesuffix("/cancel"))


def _messages(exchange: Exchange, received: Received) -> None:
    site = exchange.site
    fields = read_body(MessagesBody, _json_body(received))
    try:
        call = compose_chat(as_chat(fields), site.desk)
    except Refusal as refusal:
        raise refusal.in_anthropics_shape() from None
    wire = MessagesWire(call, request_id=_id_of(received), served=site.served, chunked=received.http_1_1)
    exchange.generate(_Single(wire), stream=call.stream)


def _count_tokens(exchange: Exchange, received: Received) -> None:
    fields = read_body(CountBody, _json_body(received))
    try:
        call = compose_chat(as_chat(fields), exchange.site.desk)
    except Refusal as refusal:
        raise refusal.in_anthropics_shape() from None
    tokens = call.prompt_tokens
    _json(exchange, {"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}})


def _pooled(make: Callable[..., PoolingForm]) -> Serve:
    def serve(exchange: Exchange, received: Received) -> None:
        site = exchange.site
        created = int(site.clock.wall())
        form = make(_json_body(received), site.desk, request_id=_id_of(received), created=created)
        exchange.generate(form, stream=False)

    return serve


_SHARED: dict[str, dict[str, Serve]] = {
    "/health": {"GET": _health},
    "/ping": {"GET": _health, "POST": _health},
    "/version": {"GET": _version},
    "/load": {"GET": _load},
    "/metrics": {"GET": _metrics},
    "/v1/models": {"GET": _models},
    "/tokenize": {"POST": _tokenize},
    "/detokenize": {"POST": _detokenize},
    "/tokenizer_info": {"GET": _tokenizer_info},
}
_GENERATE: dict[str, dict[str, Serve]] = {
    "/v1/chat/completions": {"POST": _chat},
    "/v1/chat/completions/batch": {"POST": _batch},
    "/v1/completions": {"POST": _completion},
    "/v1/responses": {"POST": _responses},
    "/v1/messages": {"POST": _messages},
    "/v1/messages/count_tokens": {"POST": _count_tokens},
    "/invocations": {"POST": _invocations},
}
_POOLING: dict[str, dict[str, Serve]] = {
    "/v1/embeddings": {"POST": _pooled(embeddings)},
    "/v2/embed": {"POST": _pooled(cohere_embed)},
    "/rerank": {"POST": _pooled(rerank)},
    "/v1/rerank": {"POST": _pooled(rerank)},
    "/v2/rerank": {"POST": _pooled(rerank)},
    "/score": {"POST": _pooled(score)},
    "/v1/score": {"POST": _pooled(score)},
}
_SCALE_OUT = {
    *(f"/v1/{what}/render" for what in ("chat/completions", "completions", "messages", "responses")),
    *(f"/v1/{what}/derender" for what in ("chat/completions", "completions")),
    "/inference/v1/generate",
}
# What a plain `vllm serve` of a generating model also has.
_NOT_EMULATED = {
    "/generative_scoring",
    "/v1/systemone",
    "/kv_event_sources",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/docs",
    "/redoc",
    "/openapi.json",
}
