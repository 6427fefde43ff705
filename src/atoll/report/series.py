"""Records -> the few hundred points that a chart can show, so that a chart of a million requests is as small."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.analyse.summary import latencies
from atoll.report.view import RunView
from atoll.traffic.record import Floats, Outcome, RecordTable

POINTS = 160  # of a scatter
STEPS = 48  # of a line over the run
_EXTREMES = 24  # the worst waits are always among the points


@dataclass(frozen=True, kw_only=True)
class TtftSeries:
    """TTFT over one run: some of the requests, and percentiles in a window that rolls over all of them."""

    sent_s: Floats  # of the shown points, shape (<= POINTS,)
    ttft_s: Floats
    middle_s: Floats  # middles of the windows, shape (<= STEPS,)
    p50_s: Floats
    p95_s: Floats
    failed_s: Floats  # when failed requests were sent, shape (<= POINTS,)


def waits_over_run(run: RunView) -> TtftSeries:
    """The window is a tenth of the run, so a percentile stands on a tenth of its requests."""
    assert run.table is not None
    ok = np.array([outcome == Outcome.OK for outcome in run.table.outcome], dtype=np.bool_)
    ttft = latencies(run.table).ttft_s
    known = ok & ~np.isnan(ttft)
    order = np.argsort(run.table.sent_s[known], kind="stable")
    sent, wait = run.table.sent_s[known][order], ttft[known][order]
    shown = _some(wait)
    middles, p50, p95 = _rolling(sent, wait)
    failed = run.table.sent_s[np.array([outcome == Outcome.FAILED for outcome in run.table.outcome], dtype=np.bool_)]
    return TtftSeries(
        sent_s=sent[shown],
        ttft_s=wait[shown],
        middle_s=middles,
        p50_s=p50,
        p95_s=p95,
        failed_s=failed[_evenly(len(failed), POINTS)],
    )


def _some(values: Floats) -> NDArray[np.int64]:
    """Places of the points to show: evenly over the run, and the worst ones."""
    if len(values) <= POINTS:
        return np.arange(len(values))
    worst = np.argpartition(values, -_EXTREMES)[-_EXTREMES:]
    return np.unique(np.concatenate([_evenly(len(values), POINTS - _EXTREMES), worst]))


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64) if count else np.empty(0, dtype=np.int64)


def _rolling(sent: Floats, values: Floats) -> tuple[Floats, Floats, Floats]:
    if len(sent) == 0:
        return np.empty(0), np.empty(0), np.empty(0)
    half = max((sent[-1] - sent[0]) / 20, 1e-9)
    middles = np.linspace(sent[0], sent[-1], STEPS)
    starts = np.searchsorted(sent, middles - half, side="left")
    stops = np.searchsorted(sent, middles + half, side="right")
    full = stops > starts
    pairs = [np.quantile(values[a:b], [0.5, 0.95]) for a, b in zip(starts[full], stops[full], strict=True)]
    table = np.array(pairs)
    return middles[full], table[:, 0], table[:, 1]


def quantiles(values: Floats, weights: NDArray[np.int64] | None = None, *, count: int = 64) -> tuple[Floats, Floats]:
    """(Values, shares): the distribution as points of its ECDF, denser towards the tail."""
    if len(values) == 0:
        return np.empty(0), np.empty(0)
    shares = np.concatenate([np.linspace(0.005, 0.90, count // 2), np.linspace(0.905, 0.999, count // 2)])
    if weights is None:
        return np.quantile(values, shares), shares
    order = np.argsort(values)
    upto = np.cumsum(weights[order])
    return values[order][np.searchsorted(upto, shares * upto[-1])], shares


def tokens_over_run(table: RecordTable) -> tuple[Floats, Floats]:
    """(Middles of the steps in seconds, tokens per second in each), all requests that produced any."""
    if len(table.token_clock) == 0:
        return np.empty(0), np.empty(0)
    cover = np.zeros(len(table.token_clock) + 1, dtype=np.int64)
    np.add.at(cover, table.span_start, 1)
    np.add.at(cover, table.span_stop, -1)
    counts = np.cumsum(cover)[:-1]
    end = max(float(table.token_clock.max()), 1e-9)
    tokens, edges = np.histogram(table.token_clock, bins=STEPS, range=(0.0, end), weights=counts)
    return (edges[:-1] + edges[1:]) / 2, tokens / np.diff(edges)


def in_flight(table: RecordTable) -> dict[str, tuple[Floats, Floats]]:
    """Replica -> (seconds, requests that were with it at that moment)."""
    replicas = np.array([replica if replica is not None else "" for replica in table.replica], dtype=object)
    ends = np.where(np.isnan(table.done_s), np.inf, table.done_s)
    finite = ends[np.isfinite(ends)]
    end = float(finite.max()) if len(finite) else float(table.sent_s.max(initial=0.0))
    moments = np.linspace(0.0, end, 2 * STEPS)
    shown = {}
    for name in sorted({str(replica) for replica in replicas if replica}, key=_by_number):
        rows = replicas == name
        begun = np.searchsorted(np.sort(table.sent_s[rows]), moments, side="right")
        ended = np.searchsorted(np.sort(ends[rows]), moments, side="right")
        shown[name] = (moments, (begun - ended).astype(np.float64))
    return shown


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), name) if name.isdigit() else (1 << 30, name)
