"""Text of a trace -> its rows.

Three forms are read. CSV with a header, where a column for each of due time, prompt tokens and output tokens is found
by its usual names: `timestamp,prompt_tokens,output_tokens`, the Azure LLM inference traces
(`TIMESTAMP,ContextTokens,GeneratedTokens`) and BurstGPT (`Timestamp,Model,Request tokens,Response tokens,...`); a
`session` column may say what belongs together. JSON lines with `timestamp` (milliseconds), `input_length`,
`output_length`, as in the Mooncake traces, or with those names. Logs and exports of one's own traffic: traffic/own.py.
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from atoll.errors import BadTraffic
from atoll.traffic.own import OwnTraffic, own_traffic

_DUE = ("due_s", "arrived_at", "timestamp", "time", "arrival_time", "start_time")
_SESSION = ("session", "session_id", "conversation_id", "chat_id")
_PROMPT = ("prompt_tokens", "context_tokens", "request_tokens", "input_length", "input_tokens", "num_prefill_tokens")
_OUTPUT = (
    "output_tokens",
    "generated_tokens",
    "response_tokens",
    "output_length",
    "num_decode_tokens",
    "completion_tokens",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceRow:
    """One request of a trace; `due_s` counts from the trace's first request."""

    due_s: float
    prompt_tokens: int
    output_tokens: int
    session: int | None = None  # rows of one session have one number


def parse_trace(text: str, *, origin: str) -> tuple[TraceRow, ...]:
    """Rows of a trace, in order of their due times.

    Rows without a single output token (failed requests of BurstGPT) are left out.

    Args:
        text: CSV with a header, JSON lines, or one's own log or export.
        origin: the file's name, for the error sentence.

    Raises:
        BadTraffic: a column is missing, a value cannot be read, or there is no row.
    """
    stripped = text.lstrip("\ufeff \t\r\n")
    listed, note = _rows(stripped, origin)
    rows = [row for row in listed if row.output_tokens > 0 and row.prompt_tokens > 0]
    if not rows:
        why = f" ({note})" if note else ""
        raise BadTraffic(f"{origin}: this trace holds no request with a prompt and an answer{why}.")
    rows.sort(key=lambda row: row.due_s)
    start = rows[0].due_s
    return tuple(replace(row, due_s=row.due_s - start) for row in rows)


def _rows(text: str, origin: str) -> tuple[Iterable[TraceRow], str | None]:
    """The rows, and what is to be known of them."""
    try:
        own = own_traffic(text)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise BadTraffic(f"{origin}: a request of this log cannot be read: {error}.") from None
    if own is not None:
        return _of_own(own), own.note
    return (_json_rows if text.startswith("{") else _csv_rows)(text, origin), None


def _of_own(own: OwnTraffic) -> Iterable[TraceRow]:
    """Sessions get numbers, in the order of their first request."""
    numbers: dict[str, int] = {}
    for row in sorted(own.rows, key=lambda row: row.at_s):
        session = None if row.session is None else numbers.setdefault(row.session, len(numbers))
        yield TraceRow(
            due_s=row.at_s, prompt_tokens=row.prompt_tokens, output_tokens=row.output_tokens, session=session
        )


def trace_text(rows: Iterable[TraceRow]) -> str:
    """CSV that `parse_trace` reads back; the session stands empty where there is none."""
    lines = (
        f"{row.due_s:.3f},{row.prompt_tokens},{row.output_tokens},{'' if row.session is None else row.session}"
        for row in rows
    )
    return "\n".join(["due_s,prompt_tokens,output_tokens,session", *lines]) + "\n"


def _csv_rows(text: str, origin: str) -> Iterable[TraceRow]:
    reader = csv.DictReader(text.splitlines())
    names = {_plain(name): name for name in reader.fieldnames or ()}
    columns = [_column(names, wanted, origin) for wanted in (_DUE, _PROMPT, _OUTPUT)]
    session = next((names[name] for name in _SESSION if name in names), None)
    numbers: dict[str, int] = {}
    for line, row in enumerate(reader, start=2):
        found = _row([row.get(column) for column in columns], f"{origin}: line {line}", due_unit_s=1.0)
        name = row.get(session) if session is not None else None
        yield replace(found, session=numbers.setdefault(name, len(numbers))) if name else found


def _json_rows(text: str, origin: str) -> Iterable[TraceRow]:
    for line, piece in enumerate(text.splitlines(), start=1):
        if not piece.strip():
            continue
        place = f"{origin}: line {line}"
        try:
            row: Mapping[str, object] = json.loads(piece)
        except ValueError:
            raise BadTraffic(f"{place}: this is not JSON.") from None
        names = {_plain(name): name for name in row}
        columns = [_column(names, wanted, place) for wanted in (_DUE, _PROMPT, _OUTPUT)]
        # Mooncake's traces count milliseconds: github.com/kvcache-ai/Mooncake, FAST25-release/traces.
        unit = 1e-3 if columns[0] == "timestamp" and "input_length" in row else 1.0
        yield _row([row[column] for column in columns], place, due_unit_s=unit)


def _plain(name: str) -> str:
    """`ContextTokens` and `Context tokens` are `context_tokens`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s-]+", "_", spaced).lower()


def _column(names: Mapping[str, str], wanted: tuple[str, ...], origin: str) -> str:
    for name in wanted:
        if name in names:
            return names[name]
    raise BadTraffic(f"{origin}: no column {wanted[0]} (or {', '.join(wanted[1:])}) among {', '.join(names.values())}.")


def _row(values: list[object], place: str, *, due_unit_s: float) -> TraceRow:
    due, prompt, output = values
    try:
        return TraceRow(
            due_s=_seconds(str(due)) * due_unit_s,
            prompt_tokens=int(float(str(prompt))),
            output_tokens=int(float(str(output))),
        )
    except (ValueError, OverflowError):
        raise BadTraffic(f"{place}: {due}, {prompt}, {output} is not a time and two token counts.") from None


def _seconds(text: str) -> float:
    """A number of seconds, or a date and time such as `2023-11-16 18:17:03.9799600`."""
    try:
        return float(text)
    except ValueError:
        # Python reads six decimals, the Azure traces have seven. Only differences matter, so any zone will do.
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
