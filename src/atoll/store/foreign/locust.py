"""Locust's PREFIX_stats.csv (2.47): a row for each name and one for all, with response times in milliseconds.

A response time of Locust ends when its user's code says so, for a stream often at the headers; it is taken for E2E, and
tokens are unknown.
"""

import csv
import io

from atoll.analyse.summary import Distribution, RequestCounts
from atoll.documents import write_table
from atoll.errors import BadRun
from atoll.store.foreign.shape import Foreign, Kept, figures_only

_TOOL = "locust"
_PERCENTILES = {"p50": "50%", "p90": "90%", "p95": "95%", "p99": "99%", "max": "100%"}
_SHARES = ("50%", "66%", "75%", "80%", "90%", "95%", "98%", "99%", "99.9%", "99.99%", "100%")
_NOTES = (
    "figures only; a response time of Locust is taken for E2E: of a stream it may end with the headers",
    "tokens, TTFT, ITL and TPOT are not in this file",
)


def read(text: str, origin: str) -> tuple[Foreign, ...]:
    """The row of all requests; raises BadRun when this is something else."""
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    if not rows or not {"Name", "Request Count", "Failure Count", "50%", "Requests/s"} <= rows[0].keys():
        raise BadRun(f"{origin} is no _stats.csv of Locust.")
    row = next((row for row in rows if row["Name"] == "Aggregated"), rows[-1])
    sent, failed = int(row["Request Count"]), int(row["Failure Count"])
    known = {ours: float(row[theirs]) * 1e-3 for ours, theirs in _PERCENTILES.items() if _is_number(row.get(theirs))}
    if _is_number(row.get("Average Response Time")):
        known["mean"] = float(row["Average Response Time"]) * 1e-3
    rate = float(row["Requests/s"] or 0.0)
    summary = figures_only(
        counts=RequestCounts(sent=sent, ok=sent - failed, failed=failed, cancelled=0),
        duration_s=sent / rate if rate else 0.0,
        rates={"requests": rate},
        spreads={"e2e_s": Distribution(**known)},
    )
    return (Foreign(tool=_TOOL, model=None, summary=summary, notes=_NOTES),)


def _is_number(cell: str | None) -> bool:
    try:
        float(cell or "")
    except ValueError:
        return False
    return True


def write(run: Kept) -> str:
    """The row of all requests, with E2E as the response time; shares that are not known stand empty."""
    summary = run.summary
    e2e, counts = summary.e2e_s, summary.requests
    figures = ("Median Response Time", "Average Response Time", "Min Response Time", "Max Response Time")
    rates = ("Average Content Size", "Requests/s", "Failures/s")
    head = ["Type", "Name", "Request Count", "Failure Count", *figures, *rates, *_SHARES]
    shown = {"50%": e2e.p50, "90%": e2e.p90, "95%": e2e.p95, "99%": e2e.p99, "100%": e2e.max}
    failures = counts.failed / summary.duration_s if summary.duration_s else 0.0
    row = [_ms(e2e.p50), _ms(e2e.mean), "", _ms(e2e.max), 0.0, summary.requests_per_s, failures]
    failed = counts.failed + counts.cancelled
    return write_table([head, ["", "Aggregated", counts.sent, failed, *row, *(_ms(shown.get(n)) for n in _SHARES)]])


def _ms(seconds: float | None) -> float | str:
    return "" if seconds is None else seconds * 1e3
