"""CSV, one row a request, and Prometheus text: for spreadsheets and for whatever scrapes."""

import csv
import io
from typing import Any

from atoll.analyse.summary import summarise
from atoll.documents import read_cell, write_table
from atoll.errors import BadRun
from atoll.store.foreign.shape import Foreign, Kept, finite
from atoll.store.foreign.untold import with_ends
from atoll.traffic.record import Outcome, Record

_COLUMNS = (
    "number",
    "user",
    "turn",
    "due_s",
    "sent_s",
    "first_byte_s",
    "first_token_s",
    "last_token_s",
    "done_s",
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
    "outcome",
    "status",
    "error",
    "detail",
    "replica",
)
_FLOATS = ("due_s", "sent_s", "first_byte_s", "first_token_s", "last_token_s", "done_s")
_QUANTILES = {"p50": "0.5", "p90": "0.9", "p95": "0.95", "p99": "0.99"}


def write_csv(run: Kept) -> str:
    """Every request; the times of single tokens, which a spreadsheet has no place for, are left out."""
    rows = ([_cell(getattr(run.table, name)[row], name) for name in _COLUMNS] for row in range(len(run.table)))
    return write_table([_COLUMNS, *rows])


def _cell(value: Any, name: str) -> Any:
    if name in _FLOATS:
        known = finite(value)
        return "" if known is None else f"{known:.9f}"
    return "" if value is None else value


def read_csv(text: str, origin: str) -> tuple[Foreign, ...]:
    """What `write_csv` wrote; raises BadRun when this is something else."""
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != _COLUMNS:
        raise BadRun(f"{origin} is no CSV export of atoll.")
    try:
        table = with_ends([_row(row) for row in reader])
    except (ValueError, TypeError) as error:
        raise BadRun(f"{origin}: a row of this CSV cannot be read: {error}.") from None
    return (Foreign(tool="csv", model=None, table=table, summary=summarise(table), notes=("no ITL in this file",)),)


def _row(row: dict[str, str]) -> tuple[Record, float | None, float | None]:
    times = {name: float(row[name]) if row[name] else None for name in _FLOATS}
    record = Record(
        number=int(row["number"]),
        user=int(row["user"]),
        turn=int(row["turn"]),
        due_s=times["due_s"],
        sent_s=times["sent_s"] or 0.0,
        first_byte_s=times["first_byte_s"],
        done_s=times["done_s"],
        prompt_tokens=int(row["prompt_tokens"]),
        output_tokens=int(row["output_tokens"]),
        cached_tokens=int(row["cached_tokens"]),
        outcome=Outcome(row["outcome"]),
        status=int(row["status"]) or None,
        error=read_cell(row["error"]) or None,
        detail=read_cell(row["detail"]) or None,
        replica=read_cell(row["replica"]) or None,
    )
    return record, times["first_token_s"], times["last_token_s"]


def write_prometheus(run: Kept) -> str:
    """The summary in the text exposition format, for a pushgateway or a textfile collector."""
    summary, label = run.summary, f'run="{_escaped(run.name)}"'
    counts = {outcome: getattr(summary.requests, outcome) for outcome in ("ok", "failed", "cancelled")}
    lines = [
        "# TYPE atoll_requests gauge",
        *(f'atoll_requests{{{label},outcome="{name}"}} {count}' for name, count in counts.items()),
        "# TYPE atoll_failures gauge",
        *(f'atoll_failures{{{label},class="{_escaped(name)}"}} {n}' for name, n in sorted(summary.errors.items())),
    ]
    for measure in ("ttft_s", "itl_s", "tpot_s", "e2e_s"):
        lines.extend(_quantiles(measure, getattr(summary, measure), label))
    for name in ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "duration_s"):
        metric = f"atoll_{name.removesuffix('_per_s').removesuffix('_s')}" + (
            "_per_second" if name.endswith("_per_s") else "_seconds"
        )
        lines += [f"# TYPE {metric} gauge", f"{metric}{{{label}}} {getattr(summary, name)!r}"]
    return "\n".join(lines) + "\n"


def _quantiles(measure: str, values: Any, label: str) -> list[str]:
    metric = f"atoll_{measure.removesuffix('_s')}_seconds"
    lines = [f"# TYPE {metric} gauge"]
    for name, quantile in _QUANTILES.items():
        value = getattr(values, name)
        if value is not None:
            lines.append(f'{metric}{{{label},quantile="{quantile}"}} {value!r}')
    if values.mean is not None:
        lines += [f"# TYPE {metric}_mean gauge", f"{metric}_mean{{{label}}} {values.mean!r}"]
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
