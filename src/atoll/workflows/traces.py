"""The trace that a workload takes its requests from, read from where the workload says it is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atoll.outside.files import read_text
from atoll.traffic.record import RecordTable
from atoll.traffic.trace import TraceRow, parse_trace
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
    return tuple(
        TraceRow(due_s=row.due_s - passed, prompt_tokens=row.prompt_tokens, output_tokens=row.output_tokens)
        for row in trace[sent:]
    )
