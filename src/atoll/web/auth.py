"""The door before every route: who comes in, from where, with how much."""

import re
from collections import deque
from collections.abc import Callable
from urllib.parse import parse_qsl, quote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atoll.web.tokens import Role, Token, Tokens

COOKIE_AGE_S = 7 * 24 * 3600
MOST_BODY_BYTES = 8 << 20  # of a request
FORM_BYTES = 1 << 16  # what a form says around a file
MOST_IMPORT_BYTES = 64 << 20
LARGER_BODIES = {"/runs/import": MOST_IMPORT_BYTES + FORM_BYTES}
WRONG_TOKENS, WRONG_WINDOW_S = 20, 60.0  # so many wrong tokens a minute from one address, then 429
MOST_ADDRESSES = 4096  # that are remembered for it
LONGEST_BODY_NUMBER = 12  # digits of a Content-Length
# Two of one of these are two opinions of who is meant: what stands before us may have held the other one for true.
ONLY_ONCE = frozenset({b"host", b"origin", b"authorization", b"content-length", b"cookie"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = ("/health", "/static/")
# Questions that are too long for an address: they are POSTed and change nothing, so that a viewer may ask them.
QUESTIONS = frozenset({"/boxes/inspect", "/studies/check", "/doctor/check", "/runs/compare"})

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
        " connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # `no-referrer` would make a form's Origin `null`
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """The door before every route, as plain ASGI.

    In this order: a header twice is answered with 400, a Host that we were not started for with 421, a body over the
    limit with 413, an address with too many wrong tokens with 429 (unless by a token that came in from there before),
    nobody's token with 401, a change from another origin with 403, a viewer's change with 403. `?token=`
    on a page becomes an HttpOnly cookie by a redirect to the same page without it. `scope["state"]["token"]` is then
    the Token. Every answer carries the headers above.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: Tokens,
        hosts: frozenset[str],
        cookie: str,
        refuse: Callable[[int, str, Scope], tuple[bytes, bytes]],
        now: Callable[[], float],
        secure: bool = False,
        most_bytes: int = MOST_BODY_BYTES,
    ) -> None:
        """`hosts`: names that are ours, in lower case, `*.lan` for all below one.

        `refuse` makes (content type, body) of (status, sentence, scope).
        """
        self._app, self._tokens, self._hosts, self._cookie = app, tokens, hosts, cookie
        self._refuse, self._now, self._secure, self._most_of_all = refuse, now, secure, most_bytes
        self._wrong: dict[str, deque[float]] = {}
        self._known: set[tuple[str, str]] = set()  # addresses with the tokens that came in from there

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._tokens.stale:
            await run_in_threadpool(self._tokens.refresh)
        wrong = self._objection(scope, headers)
        if wrong is not None:
            await self._answer(scope, send, *wrong)
            return
        cookie = self._cookie_to_set(scope, headers)
        if cookie is not None:
            await self._redirect(scope, send, cookie)
            return
        await self._pass(scope, receive, send)

    def _objection(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        names = [name for name, _ in scope["headers"] if name in ONLY_ONCE]
        if len(names) != len(set(names)):
            return 400, "The request carries a header twice of which there can be one."
        if not self._is_ours(headers.get("host", "").lower()):
            return 421, "This server was not started for that host name; give it with --host-name."
        length = headers.get("content-length") or "0"
        if not _is_number(length) or int(length) > self._most(scope):
            return 413, _too_large(self._most(scope))
        if scope["path"].startswith(OPEN_PATHS):
            return None
        secret, by_header = self._secret(scope, headers)
        token, wrong = self._come_in(secret, (scope.get("client") or ("?", 0))[0])
        if token is None:
            return wrong
        scope.setdefault("state", {})["token"] = token
        return None if scope["method"] in SAFE_METHODS else _why_not_change(scope, headers, token, by_header)

    def _most(self, scope: Scope) -> int:
        """Bytes of a body that are taken at that address."""
        return LARGER_BODIES.get(scope["path"], self._most_of_all)

    def _is_ours(self, host: str) -> bool:
        """By its name; the port is what the browser found us at, through a published port or a tunnel."""
        name = re.sub(r":\d{0,5}$", "", host)
        above = f"*.{name.partition('.')[2]}"
        return name in self._hosts or ("." in name and above in self._hosts)

    def _come_in(self, secret: str, where: str) -> tuple[Token | None, tuple[int, str]]:
        """The token of a secret from an address, or the answer that there is none."""
        token = self._tokens.check(secret) if secret else None
        if self._too_many(where) and (token is None or (where, token.id) not in self._known):
            return None, (429, "Too many wrong tokens came from this address; wait a minute.")
        if token is None and secret:
            _forget_oldest(self._wrong)
            self._wrong.setdefault(where, deque(maxlen=WRONG_TOKENS)).append(self._now())
        if token is not None and len(self._known) < MOST_ADDRESSES:
            self._known.add((where, token.id))
        return token, (401, "Open the link that `atoll serve` printed: it carries the token.")

    def _too_many(self, where: str) -> bool:
        times = self._wrong.get(where)
        return times is not None and len(times) == WRONG_TOKENS and self._now() - times[0] < WRONG_WINDOW_S

    def _secret(self, scope: Scope, headers: dict[str, str]) -> tuple[str, bool]:
        """The secret that came, and whether it came as a header, which no other site can make a browser send."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return given.strip(), True
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if scope["method"] == "GET" and "token" in query:
            return query["token"], False
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return next((value.strip('"') for name, _, value in pairs if name == self._cookie), ""), False

    def _cookie_to_set(self, scope: Scope, headers: dict[str, str]) -> str | None:
        """The secret of the address, where that is what was let in."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if "token" not in query or scope["method"] != "GET" or scope["path"].startswith(OPEN_PATHS):
            return None
        secret, by_header = self._secret(scope, headers)
        return None if by_header else secret

    async def _redirect(self, scope: Scope, send: Send, secret: str) -> None:
        rest = [(name, value) for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name != "token"]
        path = quote("/" + scope["path"].lstrip("/\\"))  # `//elsewhere` would lead away
        target = path + (f"?{urlencode(rest)}" if rest else "")
        cookie = f"{self._cookie}={secret}; HttpOnly; Max-Age={COOKIE_AGE_S}; Path=/; SameSite=Strict"
        headers = [
            (b"location", target.encode("latin-1", "replace")),
            (b"set-cookie", (cookie + ("; Secure" if self._secure else "")).encode("latin-1", "replace")),
            (b"cache-control", b"no-store"),
            *((name.encode(), value.encode()) for name, value in HEADERS.items()),
        ]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Scope, send: Send, status: int, sentence: str) -> None:
        kind, body = self._refuse(status, sentence, scope)
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in HEADERS.items()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken, over, started = 0, False, False
        static, most = scope["path"].startswith("/static/"), self._most(scope)

        async def counted() -> Message:
            nonlocal taken, over
            message = await receive()
            taken += len(message.get("body", b""))
            over = over or taken > most
            return {"type": "http.disconnect"} if over else message

        async def dressed(message: Message) -> None:
            nonlocal started
            if over and not started:
                return  # what the application says of a body that broke off
            if message["type"] == "http.response.start":
                started = True
                known = {name.lower() for name, _ in message.get("headers", [])}
                more = HEADERS if static else HEADERS | {"cache-control": "no-store"}
                extra = [(n.encode(), v.encode()) for n, v in more.items() if n.encode() not in known]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        try:
            await self._app(scope, counted, dressed)
        except ClientDisconnect:
            if not over:
                raise
        if over and not started:
            await self._answer(scope, send, 413, _too_large(most))


def _too_large(most: int) -> str:
    return f"The request is larger than the {most >> 20} MiB that are taken here."


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= LONGEST_BODY_NUMBER


def _forget_oldest(wrong: dict[str, deque[float]]) -> None:
    while len(wrong) >= MOST_ADDRESSES:
        del wrong[next(iter(wrong))]


def _why_not_change(scope: Scope, headers: dict[str, str], token: Token, by_header: bool) -> tuple[int, str] | None:  # noqa: FBT001
    if not by_header and headers.get("origin", "") != f"{scope['scheme']}://{headers['host']}":
        return 403, "Changes are taken from this server's own pages only."
    if token.role is Role.VIEWER and scope["path"] not in QUESTIONS:
        return 403, "This token may look and not change anything; an operator's may."
    return None
