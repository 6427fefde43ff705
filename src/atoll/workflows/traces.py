"""The trace that a workload takes its requests from, read from where the workload says it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from atoll.outside.files import read_text
from atoll.traffic.own import own_traffic
from atoll.traffic.record import RecordTable
from atoll.traffic.trace import TraceRow, parse_trace, trace_text
from atoll.traffic.workload import Arrivals, Workload

Trace = tuple[TraceRow, ...]


def trace_beside(folder: Path, workload: Workload) -> Trace:
    """Rows of the workload's trace, its path taken from this folder; none where the workload names no trace.

    Raises:
        InputError: there is no such file.
        BadTraffic: it is no trace.
    """
    if workload.trace is None:
        return ()
    path = folder / workload.trace
    return parse_trace(read_text(path), origin=str(path))


def rest_of_trace(trace: Trace, workload: Workload, done: Sequence[RecordTable]) -> Trace:
    """The rows that earlier pieces of a run have not sent yet, due from the moment at which the last piece ended."""
    sent = sum(len(table) for table in done)
    if workload.arrivals is not Arrivals.TRACE or not sent:
        return trace
    passed = sum(float(np.nanmax(table.due_s)) for table in done if len(table))
    return tuple(replace(row, due_s=row.due_s - passed) for row in trace[sent:])


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceFile:
    """A trace as it is kept, and what is to be known of it."""

    rows: Trace
    source: str | None  # whose log or export it was; None: it was a trace already
    note: str | None  # what was estimated, and how

    @property
    def text(self) -> str:
        return trace_text(self.rows)


def trace_of_log(path: Path) -> TraceFile:
    """A trace of one's own traffic, without a word of what was said.

    Raises:
        InputError: there is no such file.
        BadTraffic: it is neither a log or export that is known, nor a trace.
    """
    text = read_text(path)
    rows = parse_trace(text, origin=str(path))
    own = own_traffic(text)
    return TraceFile(rows=rows, source=own.source if own else None, note=own.note if own else None)
