"""One's own traffic: the log of the door, vLLM's log, exports of LiteLLM and Open WebUI -> rows of a trace.

Times, lengths and which requests belong together are taken, and no word of anybody's prompt: texts are counted at most.
Sessions are numbered by their first request. What a source does not hold is estimated, and `note` says how.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_LETTERS_A_TOKEN = 4  # of English; other scripts have fewer
# Bytes of a streamed chunk of vLLM 0.33 with one token, chunk framing included, and of what else an answer has: its
# head, the role chunk, the usage and [DONE]; a request's headers and JSON beside its text.
_CHUNK_BYTES, _ANSWER_BYTES, _REQUEST_BYTES = 247, 900, 700
_WHOLE_ANSWER_BYTES = 600  # of an answer at once, beside its text
_STREAMED = 0.5  # an answer whose headers came before this share of its time was streamed
_VLLM_LINE = re.compile(
    r"(?:(\d\d-\d\d \d\d:\d\d:\d\d)|(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?)).*?"
    r"(Received request|Request|Generated response) ([\w-]+)(?: \((?:streaming delta|streaming complete)\))?"
    r"(?: details)?:"
)
_IDS = re.compile(r"(prompt_token_ids|output_token_ids): \[([\d, ]*)")
_MAX_TOKENS = re.compile(r"max_tokens=(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnRow:
    """One request as it was sent; `at_s` on the source's own clock."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    session: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnTraffic:
    """What a source told."""

    source: str
    rows: tuple[OwnRow, ...]
    note: str | None = None  # what was estimated, and how


def own_traffic(text: str) -> OwnTraffic | None:
    """The requests that a log or an export tells of; None when it is none of those that are known."""
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped.startswith("["):
        return _of_items(_array(stripped))
    if stripped.startswith("{"):
        return _of_items(_page(stripped) or _lines(stripped))
    return _of_vllm(stripped) if _VLLM_LINE.search(stripped) else None


def _array(text: str) -> list[Any]:
    try:
        items = json.loads(text)
    except ValueError:
        return []
    return items if isinstance(items, list) else []


def _page(text: str) -> list[Any]:
    """The rows of a page of LiteLLM's /spend/logs/v2."""
    try:
        page = json.loads(text)
    except ValueError:
        return []
    rows = page.get("data") if isinstance(page, dict) else None
    return rows if isinstance(rows, list) else []


def _lines(text: str) -> list[Any]:
    items = []
    for line in text.splitlines():
        try:
            items.append(json.loads(line))
        except ValueError:  # the last line of a log that grows
            continue
    return items


def _of_items(items: list[Any]) -> OwnTraffic | None:
    known = [item for item in items if isinstance(item, dict)]
    first = known[0] if known else {}
    if {"t", "path", "seconds", "in", "out"} <= first.keys():
        return _of_door(known)
    if "startTime" in first and {"prompt_tokens", "completion_tokens"} <= first.keys():
        return OwnTraffic(source="LiteLLM", rows=tuple(_of_spend(known)))
    if "startTime" in first and {"spend", "models"} <= first.keys():
        words = "these are sums of days; ask for /spend/logs with summarize=false, or for /spend/logs/v2"
        return OwnTraffic(source="LiteLLM", rows=(), note=words)
    if isinstance(first.get("chat"), dict):
        return _of_chats(known)
    if {"asctime", "message"} <= first.keys():  # vLLM's log as JSON lines
        text = "\n".join(f"{item.get('asctime')} {item.get('message')}" for item in known)
        return _of_vllm(text) if _VLLM_LINE.search(text) else None
    return None


def _of_door(items: list[dict[str, Any]]) -> OwnTraffic:
    """Lines of the access log of render/nginx.py: their time is that of the end, and lengths are bytes."""
    rows = []
    for item in items:
        if not str(item.get("path", "")).endswith(("/completions", "/responses", "/messages")):
            continue
        if int(item.get("status") or 0) != 200:
            continue
        seconds, sent, got = float(item["seconds"]), int(item["in"]), int(item["out"])
        first = _number(str(item.get("first_byte_s") or "").rpartition(",")[2])
        is_streamed = first is not None and first < _STREAMED * seconds
        other, each = (_ANSWER_BYTES, _CHUNK_BYTES) if is_streamed else (_WHOLE_ANSWER_BYTES, _LETTERS_A_TOKEN)
        rows.append(
            OwnRow(
                at_s=_moment(item["t"]) - seconds,
                prompt_tokens=max(1, round((sent - _REQUEST_BYTES) / _LETTERS_A_TOKEN)),
                output_tokens=max(1, round((got - other) / each)),
                session=item.get("session") or None,
            )
        )
    note = (
        f"lengths are estimated from bytes: {_LETTERS_A_TOKEN} a token of a prompt, {_CHUNK_BYTES} a token of an answer"
        " that is streamed"
    )
    return OwnTraffic(source="the door's log", rows=tuple(rows), note=note)


def _of_spend(items: Iterable[Mapping[str, Any]]) -> Iterator[OwnRow]:
    """Rows of LiteLLM_SpendLogs, as its API and its database give them; what its own cache answered saw no engine."""
    for item in items:
        if str(item.get("cache_hit")).lower() == "true":
            continue
        prompt, output = int(item.get("prompt_tokens") or 0), int(item.get("completion_tokens") or 0)
        if prompt > 0 and output > 0:
            session = item.get("session_id") or item.get("end_user") or None
            yield OwnRow(
                at_s=_moment(item["startTime"]),
                prompt_tokens=prompt,
                output_tokens=output,
                session=None if session is None else str(session),
            )


def _of_chats(chats: Iterable[Mapping[str, Any]]) -> OwnTraffic:
    """Open WebUI's export of chats (0.12): an answer carries a usage where the engine gave one."""
    rows, estimated = [], 0
    for place, chat in enumerate(chats):
        for answer, before in _answers(chat["chat"]):
            usage = _usage_of(answer)
            prompt, output, said = usage.get("input_tokens"), usage.get("output_tokens"), _said(answer)
            moment = (before[-1] if before else answer).get("timestamp") or answer.get("timestamp")
            if moment is None or not (said or output):
                continue
            estimated += not (prompt and output)
            letters = sum(len(_said(message)) for message in before)
            rows.append(
                OwnRow(
                    at_s=_moment(moment),
                    prompt_tokens=max(1, int(prompt or letters // _LETTERS_A_TOKEN)),
                    output_tokens=max(1, int(output or len(said) // _LETTERS_A_TOKEN)),
                    session=str(chat.get("id") or place),
                )
            )
    note = f"{estimated} answers have no usage: {_LETTERS_A_TOKEN} letters a token are reckoned" if estimated else None
    return OwnTraffic(source="Open WebUI", rows=tuple(rows), note=note)


def _answers(told: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each answer of a chat and what was said before it, on its own branch where an answer was asked for again."""
    history = told.get("history")
    known = history.get("messages") if isinstance(history, dict) else None
    if not isinstance(known, dict):
        listed = [message for message in told.get("messages") or [] if isinstance(message, dict)]
        for place, message in enumerate(listed):
            if message.get("role") == "assistant":
                yield message, listed[:place]
        return
    for message in known.values():
        if isinstance(message, dict) and message.get("role") == "assistant":
            before: list[dict[str, Any]] = []
            parent = known.get(message.get("parentId"))
            while isinstance(parent, dict) and len(before) < len(known):
                before.append(parent)
                parent = known.get(parent.get("parentId"))
            yield message, before[::-1]


def _said(message: Mapping[str, Any]) -> str:
    """A message's text: its content, or that of the items of its output."""
    content = message.get("content")
    if isinstance(content, str) and content:
        return content
    output = message.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    parts = [part for item in items for part in item.get("content") or () if isinstance(part, dict)]
    return "".join(str(part["text"]) for part in parts if part.get("text") is not None)


def _usage_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """An answer's usage under one pair of names (Open WebUI: utils/response.py, normalize_usage)."""
    told = message.get("info")
    info: dict[str, Any] = told if isinstance(told, dict) else {}
    given = message.get("usage") or info.get("usage") or info
    usage: dict[str, Any] = given if isinstance(given, dict) else {}
    names = {
        "input_tokens": ("input_tokens", "prompt_tokens", "prompt_eval_count"),
        "output_tokens": ("output_tokens", "completion_tokens", "eval_count", "predicted_n"),
    }
    found = {name: next((usage[one] for one in others if usage.get(one)), None) for name, others in names.items()}
    if found["input_tokens"] is None and usage.get("prompt_n"):  # llama.cpp counts what it computed and what it had
        found["input_tokens"] = int(usage["prompt_n"]) + int(usage.get("cache_n") or 0)
    return found


def _of_vllm(text: str) -> OwnTraffic:
    """VLLM's own log (--enable-log-requests, and --enable-log-outputs for the answers' lengths).

    In 0.32 the ids stand in lines of level DEBUG, those of a streamed answer chunk by chunk; in early versions in the
    line that says that a request came.
    """
    asked: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        match = _VLLM_LINE.search(line)
        if match is None:
            continue
        ids = {name: len(numbers.split(",")) for name, numbers in _IDS.findall(line) if numbers.strip()}
        name, limit = match[4], _MAX_TOKENS.search(line)
        if match[3] != "Generated response":
            known = asked.setdefault(name, {"at_s": _moment(match[2] or f"2000-{match[1]}"), "prompt": 0, "out": 0})
            known["prompt"] = ids.get("prompt_token_ids", known["prompt"])
            known["limit"] = int(limit[1]) if limit else known.get("limit", 0)
        elif name in asked:
            asked[name]["out"] += ids.get("output_token_ids", 0)
    rows = tuple(
        OwnRow(at_s=one["at_s"], prompt_tokens=one["prompt"], output_tokens=one["out"] or one["limit"])
        for one in asked.values()
        if one["prompt"] > 0 and (one["out"] or one["limit"]) > 0
    )
    left, limits = len(asked) - len(rows), sum(not one["out"] for one in asked.values())
    said = [f"{left} requests without lengths are left out (VLLM_LOGGING_LEVEL=DEBUG tells them)"] if left else []
    said += (
        [f"{limits} answers have the length that was asked at most (--enable-log-outputs tells it)"] if limits else []
    )
    return OwnTraffic(source="vLLM's log", rows=rows, note="; ".join(said) or None)


def _moment(value: object) -> float:
    """Seconds on some clock: of a number (seconds, milliseconds or nanoseconds since 1970) or of a date and time."""
    number = _number(str(value))
    if number is not None:
        for scale in (1.0, 1e-3, 1e-6, 1e-9):
            if number * scale < 1e11:
                return number * scale
    moment = datetime.fromisoformat(re.sub(r"([.,]\d{6})\d+", r"\1", str(value)).replace(",", "."))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
