"""The shape of the modules beside this one, and what they share."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from atoll.analyse.summary import Distribution, RequestCounts, Summary, summarise
from atoll.errors import BadRun
from atoll.traffic.record import Record, RecordTable


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """One run of another tool."""

    tool: str
    model: str | None
    summary: Summary
    table: RecordTable | None = None  # None: the file has figures only, no requests
    started_at: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A run of ours, to be written in another's words."""

    name: str
    model: str | None
    url: str | None
    started_at: float | None
    table: RecordTable
    summary: Summary
    users: int | None = None


Reader = Callable[[str, str], tuple[Foreign, ...]]
Writer = Callable[[Kept], str]


def json_object(text: str, origin: str, tool: str) -> dict[str, Any]:
    """A JSON object; raises BadRun."""
    try:
        plain = json.loads(text)
    except ValueError:
        raise BadRun(f"{origin} is no JSON, so no result of {tool}.") from None
    if not isinstance(plain, dict):
        raise BadRun(f"{origin} is no JSON object, so no result of {tool}.")
    return plain


def of_records(records: Iterable[Record], **more: Any) -> Foreign:
    """A run with requests; times are moved so that the first request is sent at 0."""
    table = moved(RecordTable.from_records(records))
    return Foreign(table=table, summary=summarise(table), **more)


LONGEST_RUN_S = 366 * 86400.0
MOST_TOKENS = 10**9  # of one request; the longest contexts are of ten million


def impossible(run: Foreign) -> str | None:
    """What in a run cannot have been measured, with the number of the request; None when all can."""
    table = run.table
    if table is None:
        return _impossible_figures(run.summary)
    times = {
        "sent": table.sent_s,
        "first byte": table.first_byte_s,
        "first token": table.first_token_s,
        "last token": table.last_token_s,
        "end": table.done_s,
    }
    for name, values in times.items():
        wrong = np.isinf(values) | (np.abs(values) > LONGEST_RUN_S)
        if name != "first byte":
            wrong |= values < table.sent_s - 1e-6
        if wrong.any():
            return f"request {int(np.argmax(wrong))} has the time {values[int(np.argmax(wrong))]:g} s for its {name}"
    if np.isnan(table.sent_s).any():
        return f"request {int(np.argmax(np.isnan(table.sent_s)))} was never sent"
    late = table.first_token_s > np.maximum(table.last_token_s, table.done_s) + 1e-3
    if late.any():
        return f"the first token of request {int(np.argmax(late))} comes after its end"
    for name, counts in (("prompt", table.prompt_tokens), ("output", table.output_tokens)):
        wrong = (counts < 0) | (counts > MOST_TOKENS)
        if wrong.any():
            return f"request {int(np.argmax(wrong))} has {int(counts[int(np.argmax(wrong))])} {name} tokens"
    return None


def _impossible_figures(summary: Summary) -> str | None:
    spreads = {name: getattr(summary, name) for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s")}
    figures = {
        f"{name}.{part}": value
        for name, spread in spreads.items()
        for part, value in spread
        if isinstance(value, float)
    }
    figures |= {
        name: getattr(summary, name)
        for name in ("duration_s", "output_tokens_per_s", "total_tokens_per_s", "requests_per_s")
    }
    for name, value in figures.items():
        if not 0 <= value <= 1e12:
            return f"{name} is {value:g}"
    counts = summary.requests
    if min(counts.sent, counts.ok, counts.failed, counts.cancelled) < 0:
        return "a number of requests is below 0"
    return None


def moved(table: RecordTable) -> RecordTable:
    """The same with the first request sent at 0."""
    from dataclasses import replace

    if len(table) == 0:
        return table
    start = float(np.min(table.sent_s))
    names = ("due_s", "sent_s", "first_byte_s", "first_token_s", "last_token_s", "done_s", "token_clock")
    return replace(table, **{name: getattr(table, name) - start for name in names})


def spread_of(values: Mapping[str, Any], names: Mapping[str, str], *, scale: float = 1e-3) -> Distribution:
    """A Distribution from a tool's own figures: our name -> its name; figures that it does not have are None."""
    found = {ours: values.get(theirs) for ours, theirs in names.items()}
    return Distribution(**{name: value * scale for name, value in found.items() if isinstance(value, int | float)})


def figures_only(
    *, counts: RequestCounts, duration_s: float, rates: Mapping[str, float], spreads: Mapping[str, Distribution]
) -> Summary:
    """A Summary of a file without requests."""
    empty = Distribution()
    return Summary(
        requests=counts,
        duration_s=duration_s,
        ttft_s=spreads.get("ttft_s", empty),
        itl_s=spreads.get("itl_s", empty),
        tpot_s=spreads.get("tpot_s", empty),
        e2e_s=spreads.get("e2e_s", empty),
        output_tokens_per_s=rates.get("output", 0.0),
        total_tokens_per_s=rates.get("total", 0.0),
        requests_per_s=rates.get("requests", 0.0),
    )


def milliseconds(distribution: Distribution, names: Mapping[str, str]) -> dict[str, float | None]:
    """A tool's figures from a Distribution: our name -> its name."""
    return {theirs: _scaled(getattr(distribution, ours)) for ours, theirs in names.items()}


def _scaled(value: float | None) -> float | None:
    return None if value is None else value * 1e3


def finite(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)
