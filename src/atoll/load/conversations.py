"""What a file or folder of prompts holds: ShareGPT JSON, JSON lines, CSV, Parquet, text files -> Conversations.

Known are the names that data sets and other load generators use: ShareGPT, Alpaca, OpenAI's batches, and the data sets
of vLLM, AIPerf and GuideLLM.
"""

import base64
import csv
import io
import json
import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atoll.errors import BadTraffic, InputError
from atoll.outside.files import read_bytes, read_text

_TEXTS = (
    *("prompt", "text", "question", "instruction", "input", "content", "query", "text_input", "inputs"),
    *("problem", "user_prompt", "sentence"),
)
_CHATS = ("messages", "conversations", "conversation", "turns", "chat", "dialog")
# How long the answer was, or is to be; then the answer itself, where it is text.
_LENGTHS = (
    *("output_tokens", "max_tokens", "output_len", "completion_tokens", "output_length", "output_tokens_count"),
    *("max_completion_tokens", "max_output_tokens", "max_new_tokens", "output_token_count", "num_output_tokens"),
    *("generated_tokens", "response_tokens", "expected_output_len", "expected_output_length", "response_length"),
    *("completion_length", "osl"),
)
_ANSWERS = ("output", "response", "answer", "completion", "output_text", "chosen", "target", "reference")
_IMAGES = ("image", "images", "image_url", "image_urls", "image_path")
# Fields of a request that a row may bring along: OpenAI's and vLLM's.
_FIELDS = frozenset(
    (
        *(
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "functions",
            "function_call",
            "response_format",
            "temperature",
        ),
        *("top_p", "top_k", "min_p", "stop", "stop_token_ids", "seed", "logprobs", "top_logprobs", "logit_bias"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "reasoning_effort", "chat_template_kwargs"),
        *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "modalities"),
        *("mm_processor_kwargs", "priority", "cache_salt", "documents", "text_2", "suffix"),
    )
)
_USERS, _MODELS = frozenset({"user", "human"}), frozenset({"assistant", "gpt", "model", "chatgpt", "bot"})
_READ = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One thing that a user says, and how long the answer was, when the file knows."""

    text: str
    before: tuple[Mapping[str, Any], ...] = ()  # messages before it, as they are sent
    message: Mapping[str, Any] | None = None  # the message itself, where it is more than the text
    fields: Mapping[str, Any] | None = None  # further fields of the request
    output_tokens: int | None = None
    answer: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """What a user says turn by turn, and all at once where the file has it as one request."""

    turns: tuple[Said, ...]
    whole: Said | None = None  # up to the last message that is not the model's; None: the first turn


def read_conversations(path: Path) -> list[Conversation]:
    """Everything that a file or folder holds.

    Raises:
        InputError: it cannot be read.
        BadTraffic: it is none of the forms, or holds no prompt.
    """
    files = sorted(file for file in path.rglob("*") if file.suffix in _READ) if path.is_dir() else [path]
    found = [one for file in files for one in _read(file) if one.turns and (one.turns[0].text.strip() or one.whole)]
    if not found:
        raise BadTraffic(
            f"{path} holds no prompts. Give ShareGPT JSON, JSON lines with `messages` or `prompt`, a CSV or a Parquet"
            " file with a `prompt` column, or a folder of .txt files."
        )
    return found


def _read(path: Path) -> Iterator[Conversation]:
    if path.suffix == ".txt":
        yield Conversation(turns=(Said(text=_text(path)),))
        return
    if path.suffix in {".csv", ".tsv"}:
        rows: Iterator[tuple[str, object]] = _csv_rows(path)
    elif path.suffix == ".parquet":
        from atoll.outside.parquet import read_rows

        rows = ((f"{path}: row {number}", row) for number, row in enumerate(read_rows(path), start=1))
    else:
        rows = _json_rows(_text(path), str(path))
    for place, row in rows:
        yield _conversation(row, place, path.parent)


def _text(path: Path) -> str:
    return read_text(path).removeprefix("\ufeff")  # a byte-order mark, as Windows writes


def _csv_rows(path: Path) -> Iterator[tuple[str, object]]:
    reader = csv.DictReader(io.StringIO(_text(path)), delimiter="\t" if path.suffix == ".tsv" else ",")
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    if not set(names) & {*_TEXTS, *_CHATS}:
        raise BadTraffic(f"{path}: no column {_TEXTS[0]} (or {', '.join(_TEXTS[1:])}).")
    for line, row in enumerate(reader, start=2):
        plain = {(name or "").strip().lower(): value for name, value in row.items()}
        yield (
            f"{path}: line {line}",
            {name: _unpacked(value) for name, value in plain.items() if value},
        )


def _unpacked(value: Any) -> Any:
    """A cell that holds JSON: messages, a list of images, tools."""
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _json_rows(text: str, origin: str) -> Iterator[tuple[str, object]]:
    """A JSON array (ShareGPT, Alpaca) or one JSON object a line."""
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except ValueError as error:
            raise BadTraffic(f"{origin}: this is not JSON: {error}.") from None
        yield from ((f"{origin}: item {number}", item) for number, item in enumerate(items))
        return
    for line, piece in enumerate(text.splitlines(), start=1):
        if piece.strip():
            try:
                item = json.loads(piece)
            except ValueError:
                raise BadTraffic(f"{origin}: line {line} is not JSON.") from None
            yield f"{origin}: line {line}", item


def _conversation(item: object, place: str, folder: Path) -> Conversation:
    """A row of any of the forms."""
    if isinstance(item, str):
        return Conversation(turns=(Said(text=item),))
    if isinstance(item, list):
        return _chat(item, Said(text=""), place, folder, is_whole=True)
    if not isinstance(item, dict):
        raise BadTraffic(f"{place}: a prompt is text, `messages` or `conversations`; this is {type(item).__name__}.")
    return _of_row(item["body"] if isinstance(item.get("body"), dict) else item, place, folder)  # OpenAI's batches


def _of_row(item: Mapping[str, Any], place: str, folder: Path) -> Conversation:
    if "texts" in item and "text" not in item and isinstance(item["texts"], list):  # AIPerf
        item = {**item, "text": "\n".join(map(_words_of, item["texts"]))}
    known = _known(item)
    for key in _CHATS:
        if isinstance(item.get(key), list):
            return _chat(item[key], known, place, folder, is_whole=key == "messages")
    words = _prompt_of(item)
    if words is None:
        raise BadTraffic(f"{place}: none of {', '.join((*_CHATS[:3], *_TEXTS))}.")
    said = replace(known, text=words)
    images = [url for key in _IMAGES if item.get(key) for url in _urls(item[key], place, folder)]
    if images:
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in images]
        said = replace(said, message={"role": "user", "content": [*parts, {"type": "text", "text": words}]})
    if isinstance(item.get("system"), str) and item["system"]:
        said = replace(said, before=({"role": "system", "content": item["system"]},))
    return Conversation(turns=(said,))


def _prompt_of(item: Mapping[str, Any]) -> str | None:
    """The text of a row; Alpaca's instruction with its input, where it has one."""
    key = next((name for name in _TEXTS if isinstance(item.get(name), str)), None)
    if key is None:
        return None
    words: str = item[key]
    more = item.get("input")
    return f"{words}\n\n{more}" if key == "instruction" and isinstance(more, str) and more else words


def _known(item: Mapping[str, Any]) -> Said:
    """What a row says beside its text: how long the answer is, and fields of the request."""
    lengths = (_count(item[name]) for name in (*_LENGTHS, *_ANSWERS) if item.get(name) is not None)
    answers = (item[name] for name in _ANSWERS if isinstance(item.get(name), str) and item[name])
    fields = {name: item[name] for name in item if name in _FIELDS and item[name] is not None}
    for name in ("extra_body", "extra"):
        if isinstance(item.get(name), dict):
            fields |= item[name]
    return Said(
        text="",
        fields=fields or None,
        output_tokens=next(filter(None, lengths), None),
        answer=next(answers, None),
    )


def _count(value: object) -> int | None:
    try:
        number = int(float(str(value)))
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None


def _chat(items: Sequence[Any], known: Said, place: str, folder: Path, *, is_whole: bool) -> Conversation:
    """What users say, each with the file's system messages before the first and the file's answer behind it."""
    messages = [_message(item, place, folder) for item in items]
    messages = [message for message in messages if message]
    before: list[Mapping[str, Any]] = []
    turns: list[Said] = []
    for message in messages:
        if message["role"] == "user":
            turns.append(_said(message, tuple(before), known))
            before = []
        elif message["role"] in {"system", "developer"}:
            before.append(message)
        elif message["role"] == "assistant" and turns and turns[-1].answer is None:
            turns[-1] = replace(turns[-1], answer=_words_of(message.get("content")) or None)
    return Conversation(turns=tuple(turns), whole=_whole(messages, known) if is_whole else None)


def _whole(messages: list[dict[str, Any]], known: Said) -> Said | None:
    """All of it as one request: up to the last message that is not the model's, whose words are the answer."""
    last = max((at for at, message in enumerate(messages) if message["role"] != "assistant"), default=None)
    if last is None:
        return None
    said = _said(messages[last], tuple(messages[:last]), known)
    behind = messages[last + 1 :]
    return replace(said, answer=_words_of(behind[0].get("content")) or None) if behind else said


def _said(message: Mapping[str, Any], before: tuple[Mapping[str, Any], ...], known: Said) -> Said:
    content = message.get("content")
    is_plain = isinstance(content, str) and set(message) == {"role", "content"} and message["role"] == "user"
    return replace(known, text=_words_of(content), before=before, message=None if is_plain else message)


def _message(item: object, place: str, folder: Path) -> dict[str, Any]:
    """A message as OpenAI writes it; empty for what is none."""
    if isinstance(item, str):
        return {"role": "user", "content": item}
    if not isinstance(item, dict):
        return {}
    role = str(item.get("role") or item.get("from") or "user").lower()
    role = "user" if role in _USERS else "assistant" if role in _MODELS else role
    content = next((item[name] for name in ("content", "value", "text") if item.get(name) is not None), None)
    more = {name: item[name] for name in ("tool_calls", "tool_call_id", "name", "reasoning_content") if item.get(name)}
    if content is None and not more:
        return {}
    if isinstance(content, list):
        content = [_part(part, place, folder) for part in content]
    return {"role": role, "content": content, **more}


def _part(part: object, place: str, folder: Path) -> object:
    """A piece of a message; a picture that is a file beside the data becomes a data URL."""
    if not isinstance(part, dict):
        return {"type": "text", "text": str(part)}
    shown = part.get("image_url") or part.get("image")
    if part.get("type") not in {"image_url", "image"} or shown is None:
        return part
    url = shown.get("url") if isinstance(shown, dict) and "url" in shown else shown
    more = {name: value for name, value in shown.items() if name != "url"} if isinstance(shown, dict) else {}
    more = {name: value for name, value in more.items() if name not in {"bytes", "path"}}
    return {"type": "image_url", "image_url": {"url": _urls(url, place, folder)[0], **more}}


def _urls(value: object, place: str, folder: Path) -> list[str]:
    """URLs of pictures: given as such, as data, as bytes (Hugging Face), or as files beside the data."""
    if isinstance(value, list):
        return [url for one in value for url in _urls(one, place, folder)]
    if isinstance(value, dict):
        if value.get("bytes"):
            return [data_url(bytes(value["bytes"]), str(value.get("path") or "image.png"))]
        return _urls(value.get("url") or value.get("path"), place, folder)
    if not isinstance(value, str) or not value:
        raise BadTraffic(f"{place}: an image is a URL or a file; this is {type(value).__name__}.")
    try:
        return [image_url(value, folder)]
    except InputError as error:
        raise BadTraffic(f"{place}: its image cannot be sent: {error}") from None


def image_url(given: str, folder: Path) -> str:
    """A picture as a message shows it: http and data URLs as they are, a file as a data URL.

    Raises:
        InputError: the file is not there.
    """
    if given.startswith(("http://", "https://", "data:")):
        return given
    return data_url(read_bytes(folder / given.removeprefix("file://")), given)


def data_url(data: bytes, name: str) -> str:
    """Bytes as a data URL (RFC 2397), of the kind that the name's ending says."""
    kind = mimetypes.guess_type(name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _words_of(content: object) -> str:
    """The text of a message, whose content may be pieces."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return _words_of(content.get("text") or content.get("content") or content.get("contents"))
    return "\n".join(filter(None, map(_words_of, content))) if isinstance(content, list) else ""
