"""Chat through the door: a model picked, an answer streamed and stopped, its figures below it; conversations kept."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from anyio import CancelScope
from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from atoll.documents import Document
from atoll.errors import AtollError, InputError
from atoll.load.target import EMULATED_HEADER
from atoll.outside.http import get_json, post_stream
from atoll.store.catalog import Paper
from atoll.web.doors import Door, doors_of, key_of
from atoll.web.site import Site

KIND = "conversation"
MOST_WORDS = 100_000  # characters of one message
LISTED = 50
KEEP_S = 1.0  # an answer that comes is kept so often
LOOK_S = 3.0  # how long a door may take to name its models
REPLICA_HEADER = "x-atoll-replica"


class Message(Document):
    """One turn. Of an answer also what it cost; seconds as they were seen here, through the door."""

    role: str
    text: str
    ttft_s: float | None = None
    output_tokens: int | None = None
    tokens_per_s: float | None = None
    replica: str | None = None
    emulated: bool = False  # the engine says so: its words mean nothing, and its pace is a model's
    stopped: bool = False  # by the reader, in the middle
    failure: str | None = None  # why it broke off


class Conversation(Document):
    """What was said, in order."""

    title: str
    door: str
    model: str
    system: str = ""
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    messages: tuple[Message, ...] = ()


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()

    def said(key: str, text: Annotated[str, Form()]) -> Conversation:
        """The conversation with one more message, kept; refused before a stream begins."""
        if not text.strip() or len(text) > MOST_WORDS:
            raise InputError(f"A message has 1 to {MOST_WORDS:,} characters.")
        before = _load(site, key)
        asked = before.replace(
            title=before.title or text.strip().splitlines()[0][:80],
            messages=(*before.messages, Message(role="user", text=text)),
        )
        _keep(site, key, asked)
        return asked

    @routes.get("/chat")
    async def chat(request: Request, find: str = "", door: str = "") -> HTMLResponse:
        """`door` is the deployment that is chosen when the page opens."""
        return await _show(site, request, None, None, find=find, door=door)

    @routes.get("/chat/{key}")
    async def conversation(request: Request, key: str, find: str = "") -> HTMLResponse:
        return await _show(site, request, key, _load(site, key), find=find)

    @routes.get("/chat/{key}/export")
    def export(key: str) -> Response:
        headers = {"content-disposition": f"attachment; filename=conversation-{key}.json"}
        return JSONResponse(_load(site, key).to_plain(), headers=headers)

    @routes.post("/chat/begin")
    def begin(
        request: Request,
        door: Annotated[str, Form()],
        model: Annotated[str, Form()],
        system: Annotated[str, Form()] = "",
        temperature: Annotated[str, Form()] = "",
        max_tokens: Annotated[str, Form()] = "",
    ) -> Response:
        """A conversation that is still empty."""
        _door(site, door)
        plain = {"temperature": temperature or None, "max_tokens": max_tokens or None, "system": system}
        made = Conversation.from_plain(plain | {"title": "", "door": door, "model": model}, origin="the form")
        key = secrets.token_hex(6)
        site.note(request, f"begin conversation {key} with {model}")
        _keep(site, key, made)
        return RedirectResponse(f"/chat/{key}", status_code=303)

    @routes.post("/chat/{key}/say", response_class=EventSourceResponse)
    async def say(key: str, asked: Annotated[Conversation, Depends(said)]) -> AsyncIterator[ServerSentEvent]:
        """Events `delta` as it comes, then one `answer` with its figures; what came is kept, however it ends."""
        answer, kept_at = _Answer(site), site.clock.now()

        async def keep() -> Message:
            """In a thread: a database may take its time, and the other pages go on meanwhile."""
            message = answer.message()
            with CancelScope(shield=True):
                await run_in_threadpool(_keep, site, key, asked.replace(messages=(*asked.messages, message)))
            return message

        try:
            async for delta in answer.stream(_door(site, asked.door), asked):
                yield ServerSentEvent(event="delta", data=delta)
                if site.clock.now() - kept_at >= KEEP_S:  # a server that is killed loses no more than that
                    kept_at = site.clock.now()
                    await keep()
        except AtollError as error:
            answer.failure = answer.failure or str(error)
        finally:  # also when the reader has gone: what was said until then is theirs
            message = await keep()
        yield ServerSentEvent(event="answer", data=message.to_plain())

    @routes.post("/chat/{key}/delete")
    def delete(request: Request, key: str) -> Response:
        site.note(request, f"delete conversation {key}")
        site.catalog.discard(KIND, key)
        return RedirectResponse("/chat", status_code=303)

    return routes


class _Answer:
    """One answer while it comes."""

    def __init__(self, site: Site) -> None:
        self._now = site.clock.now
        self._parts: list[str] = []
        self._first: float | None = None
        self._last = self._sent = site.clock.now()
        self._tokens: int | None = None
        self._replica: str | None = None
        self._emulated = False
        self._over = self._finished = False
        self.failure: str | None = None

    async def stream(self, door: Door, conversation: Conversation) -> AsyncIterator[str]:
        key = door.key or key_of(None)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._sent = self._now()
        async for answered, line in post_stream(
            f"{door.url}/chat/completions", _body(conversation), headers=headers, certificate=door.certificate
        ):
            self._replica = answered.get(REPLICA_HEADER)
            self._emulated = EMULATED_HEADER.lower() in answered
            text = self._read(line)
            if text:
                self._last = self._now()
                self._first = self._last if self._first is None else self._first
                self._parts.append(text)
                yield text
        self._over = True
        if not self._finished and self.failure is None:  # under HTTP/1.0 an engine that dies looks like one that ends
            self.failure = "The answer broke off: the engine ended the stream without finishing it."

    def _read(self, line: str) -> str:
        """The text of one line of the stream."""
        if not line.startswith("data:") or line.strip() == "data: [DONE]":
            self._finished = self._finished or line.startswith("data:")
            return ""
        try:
            chunk = json.loads(line[5:])
        except ValueError:
            return ""
        if not isinstance(chunk, dict):
            return ""
        if isinstance(chunk.get("error"), dict):
            self.failure = str(chunk["error"].get("message"))
        usage = chunk.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            self._tokens = usage["completion_tokens"]
        choices = chunk.get("choices") or [{}]
        return str((choices[0].get("delta") or {}).get("content") or "")

    def message(self) -> Message:
        """TTFT as PRODUCT defines it; tokens/s is of the stretch from the first token to the last."""
        took_s = None if self._first is None else self._last - self._first
        rate = (self._tokens - 1) / took_s if self._tokens and self._tokens > 1 and took_s else None
        return Message(
            role="assistant",
            text="".join(self._parts),
            ttft_s=None if self._first is None else self._first - self._sent,
            output_tokens=self._tokens,
            tokens_per_s=rate,
            replica=self._replica,
            emulated=self._emulated,
            stopped=not self._over and self.failure is None,
            failure=self.failure,
        )


def _body(conversation: Conversation) -> dict[str, Any]:
    said = [{"role": "system", "content": conversation.system}] if conversation.system else []
    said += [{"role": one.role, "content": one.text} for one in conversation.messages if one.text]
    body: dict[str, Any] = {
        "model": conversation.model,
        "messages": said,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if conversation.temperature is not None:
        body["temperature"] = conversation.temperature
    if conversation.max_tokens is not None:
        body["max_tokens"] = conversation.max_tokens
    return body


async def _show(
    site: Site, request: Request, key: str | None, found: Conversation | None, *, find: str, door: str = ""
) -> HTMLResponse:
    doors = sorted(doors_of(site), key=lambda one: one.name != door)
    return site.show(
        request,
        "chat.html",
        page="chat",
        key=key,
        conversation=found,
        find=find,
        kept=[
            (paper.key, paper.content.get("title") or "…")
            for paper in site.catalog.papers(KIND, words=find, limit=LISTED)
        ],
        doors=await _answering(doors) if found is None else [],
        silent=door if found is None else "",
    )


async def _answering(doors: Sequence[Door]) -> list[tuple[Door, tuple[str, ...]]]:
    """Each with what it serves, all asked at once."""
    return list(zip(doors, await asyncio.gather(*map(_models, doors)), strict=True))


async def _models(door: Door) -> tuple[str, ...]:
    """What the door serves; nothing where it does not answer."""
    key = door.key or key_of(None)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = await get_json(f"{door.url}/models", timeout_s=LOOK_S, headers=headers, certificate=door.certificate)
        return tuple(str(one["id"]) for one in answer["data"])
    except (AtollError, LookupError, TypeError):
        return ()


def _door(site: Site, name: str) -> Door:
    for door in doors_of(site):
        if door.name == name:
            return door
    raise InputError("The deployment of this conversation is no longer there; begin another one.")


def _load(site: Site, key: str) -> Conversation:
    return Conversation.from_plain(site.catalog.paper(KIND, key).content, origin="conversation")


def _keep(site: Site, key: str, conversation: Conversation) -> None:
    words = " ".join([conversation.title, *(message.text for message in conversation.messages)])
    content = conversation.to_plain()
    site.catalog.keep(Paper(kind=KIND, key=key, changed_at=site.clock.wall(), words=words, content=content))
