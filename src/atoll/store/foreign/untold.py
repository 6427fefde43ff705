"""Requests of which a file tells the first and the last token's time, but not those between."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from atoll.traffic.record import Record, RecordTable


def with_ends(rows: Sequence[tuple[Record, float | None, float | None]]) -> RecordTable:
    """A table with first and last token times and no token clock: TTFT, TPOT and E2E are there, ITL is not.

    Args:
        rows: each record without token times, its first and its last token's time; numbers are given anew, in the
            order of sending.
    """
    ordered = sorted(rows, key=lambda row: row[0].sent_s)
    table = RecordTable.from_records(replace(record, number=number) for number, (record, _, _) in enumerate(ordered))
    known = [[np.nan if value is None else value for value in (first, last)] for _, first, last in ordered]
    ends = np.array(known, dtype=np.float64).reshape(-1, 2)
    return replace(table, first_token_s=ends[:, 0], last_token_s=ends[:, 1])
