"""What the records say: percentiles, throughput, goodput.

What each measure means:

- TTFT: sent (open loop: due) to the first chunk that carries generated text.
- ITL: gaps between chunks that carry text.
- TPOT: (last token - first token) / (output tokens - 1), for answers of at least two tokens.
- E2E: sent (open loop: due) to the last token.

Percentiles are over requests that succeeded and were sent in the measured window. Failed and cancelled ones are counted
and shown, never dropped: sent = ok + failed + cancelled.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from atoll.documents import Document
from atoll.traffic.record import Floats, Ints, Outcome, RecordTable
from atoll.traffic.slo import SLO

Mask = NDArray[np.bool_]
_QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


class Distribution(Document):
    """Seconds. None where nothing was measured."""

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class RequestCounts(Document):
    """sent = ok + failed + cancelled, always."""

    sent: int
    ok: int
    failed: int
    cancelled: int


class ReplicaSummary(Document):
    """The part that one replica served."""

    replica: str
    requests: RequestCounts
    output_tokens_per_s: float
    ttft_s: Distribution
    e2e_s: Distribution


class Goodput(Document):
    """Requests that kept within every target, out of all that were sent."""

    slo_ttft_s: float | None = None
    slo_tpot_s: float | None = None
    good: int
    share: float  # of the sent ones; a failed or cancelled request is not good
    requests_per_s: float


class Summary(Document):
    """A run in numbers, over the measured window (after warm-up). Percentiles are of requests that succeeded."""

    requests: RequestCounts
    duration_s: float  # from the window's start to the end of the last answer that counts
    ttft_s: Distribution
    itl_s: Distribution
    tpot_s: Distribution
    e2e_s: Distribution
    output_tokens_per_s: float  # output tokens of the ok requests / duration_s
    total_tokens_per_s: float  # with their prompts
    requests_per_s: float
    steady_output_tokens_per_s: float | None = None  # tokens that arrived while requests were still being sent
    errors: dict[str, int] = Field(default_factory=dict)
    counted_from_chunks: int = 0  # requests whose engine gave no usage
    cached_tokens: int = 0  # prompt tokens that came from prefix caches
    goodput: Goodput | None = None
    per_replica: tuple[ReplicaSummary, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Latencies:
    """Per-request measures of a table, one entry a row, NaN where there is none."""

    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats


def latencies(table: RecordTable) -> Latencies:
    """TTFT, TPOT and E2E of every row, whatever became of it."""
    start = np.where(np.isnan(table.due_s), table.sent_s, table.due_s)
    # A whole answer at once (no streaming) has no first token of its own: only E2E is known.
    streamed = table.output_tokens > 1
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = (table.last_token_s - table.first_token_s) / (table.output_tokens - 1)
    return Latencies(
        ttft_s=table.first_token_s - start,
        tpot_s=np.where(streamed, tpot, np.nan),
        e2e_s=np.where(np.isnan(table.last_token_s), table.done_s, table.last_token_s) - start,
    )


def measured_rows(table: RecordTable, *, warmup_s: float = 0.0) -> Mask:
    """Rows that were sent in the measured window."""
    return np.asarray(table.sent_s >= warmup_s)


def summarise(
    table: RecordTable, *, warmup_s: float = 0.0, slo: SLO | None = None, rows: Mask | None = None
) -> Summary:
    """A run in numbers.

    Args:
        table: the run's records.
        warmup_s: requests sent earlier are left out.
        slo: latency targets, for goodput.
        rows: the measured rows, instead of those after the warm-up; shape (len(table),).
    """
    chosen = measured_rows(table, warmup_s=warmup_s) if rows is None else rows
    outcome = np.array(table.outcome, dtype=object)
    ok = chosen & (outcome == Outcome.OK)
    measures = latencies(table)
    start_s, end_s = _window(table, chosen)
    duration = max(0.0, end_s - start_s)
    output = int(table.output_tokens[ok].sum())
    counted = int(table.counted_from_chunks[ok].sum())
    return Summary(
        requests=_count(outcome, chosen),
        duration_s=duration,
        ttft_s=distribution(measures.ttft_s[ok]),
        itl_s=weighted_distribution(*table.gaps(ok)),
        tpot_s=distribution(measures.tpot_s[ok]),
        e2e_s=distribution(measures.e2e_s[ok]),
        output_tokens_per_s=_rate(output, duration),
        total_tokens_per_s=_rate(output + int(table.prompt_tokens[ok].sum()), duration),
        requests_per_s=_rate(int(ok.sum()), duration),
        steady_output_tokens_per_s=_steady_rate(table, ok, start_s),
        errors=_errors(table, chosen),
        counted_from_chunks=counted,
        cached_tokens=int(table.cached_tokens[ok].sum()),
        goodput=_goodput(measures, ok, sent=int(chosen.sum()), duration=duration, slo=slo),
        per_replica=_per_replica(table, chosen, outcome, measures, duration),
    )


def distribution(values: Floats) -> Distribution:
    """Mean, percentiles (linear between ranks, as NumPy's default) and maximum; NaN entries are left out."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return Distribution()
    points = np.quantile(known, list(_QUANTILES.values()))
    named = dict(zip(_QUANTILES, map(float, points), strict=True))
    return Distribution(mean=float(known.mean()), max=float(known.max()), **named)


def weighted_distribution(values: Floats, weights: Ints) -> Distribution:
    """The same as `distribution(np.repeat(values, weights))`, without making that array."""
    total = int(weights.sum())
    if total == 0:
        return Distribution()
    if total == len(weights) and weights.min() == 1:
        return _distribution_of_sorted(np.sort(values))
    order = np.argsort(values, kind="stable")
    sorted_values, upto = values[order], np.cumsum(weights[order])
    named = {name: _weighted_quantile(sorted_values, upto, share) for name, share in _QUANTILES.items()}
    mean = float((values * weights).sum() / total)  # np.dot would wake BLAS' threads, which then spin for 30 ms
    return Distribution(mean=mean, max=float(sorted_values[np.searchsorted(upto, total)]), **named)


def _distribution_of_sorted(values: Floats) -> Distribution:
    """As `distribution`, of values in order and none of them NaN."""
    last = len(values) - 1
    named = {}
    for name, share in _QUANTILES.items():
        below = int(share * last)
        low, high = float(values[below]), float(values[min(below + 1, last)])
        named[name] = low + (high - low) * (share * last - below)
    return Distribution(mean=float(values.mean()), max=float(values[-1]), **named)


def _weighted_quantile(sorted_values: Floats, upto: Ints, share: float) -> float:
    """NumPy's linear quantile of the repeated values; `upto` is the running count."""
    position = share * (int(upto[-1]) - 1)
    below = int(position)
    low = float(sorted_values[np.searchsorted(upto, below, side="right")])
    if below == position:
        return low
    high = float(sorted_values[np.searchsorted(upto, below + 1, side="right")])
    return low + (high - low) * (position - below)


def _window(table: RecordTable, chosen: Mask) -> tuple[float, float]:
    """When the first counted request was sent and the last counted one ended."""
    if not chosen.any():
        return 0.0, 0.0
    ends = np.where(np.isnan(table.done_s), table.last_token_s, table.done_s)[chosen]
    known = ends[~np.isnan(ends)]
    start = float(table.sent_s[chosen].min())
    return start, float(known.max()) if len(known) else start


def _steady_rate(table: RecordTable, ok: Mask, start_s: float) -> float | None:
    """Tokens per second between the window's start and the last sending: without the ramp-down at the end.

    Chunks are weighted by tokens per chunk of their own request, because a chunk may carry several tokens.
    """
    if not ok.any():
        return None
    end_s = float(table.sent_s.max())
    if end_s - start_s <= 0:
        return None
    clock = table.token_clock
    in_window = np.concatenate([[0], np.cumsum((clock >= start_s) & (clock < end_s))])
    lengths = table.span_stop - table.span_start
    chunks = np.bincount(table.span_row, lengths, minlength=len(table))
    inside = np.bincount(table.span_row, in_window[table.span_stop] - in_window[table.span_start], minlength=len(table))
    with np.errstate(invalid="ignore", divide="ignore"):
        tokens = np.where(chunks > 0, inside * table.output_tokens / chunks, 0.0)
    return float(tokens.sum() / (end_s - start_s))


def _count(outcome: NDArray[np.object_], chosen: Mask) -> RequestCounts:
    seen = Counter(outcome[chosen])
    return RequestCounts(
        sent=int(chosen.sum()), ok=seen[Outcome.OK], failed=seen[Outcome.FAILED], cancelled=seen[Outcome.CANCELLED]
    )


def _errors(table: RecordTable, chosen: Mask) -> dict[str, int]:
    seen = Counter(table.error[row] or "unknown" for row in np.flatnonzero(chosen) if table.outcome[row] == "failed")
    return dict(seen.most_common())


def _rate(amount: float, duration: float) -> float:
    return amount / duration if duration > 0 else 0.0


def _goodput(measures: Latencies, ok: Mask, *, sent: int, duration: float, slo: SLO | None) -> Goodput | None:
    if slo is None or (slo.ttft_s is None and slo.tpot_s is None):
        return None
    good = ok.copy()
    if slo.ttft_s is not None:
        good &= measures.ttft_s <= slo.ttft_s
    if slo.tpot_s is not None:
        good &= np.isnan(measures.tpot_s) | (measures.tpot_s <= slo.tpot_s)
    number = int(good.sum())
    return Goodput(
        slo_ttft_s=slo.ttft_s,
        slo_tpot_s=slo.tpot_s,
        good=number,
        share=number / sent if sent else 0.0,
        requests_per_s=_rate(number, duration),
    )


def _per_replica(
    table: RecordTable, chosen: Mask, outcome: NDArray[np.object_], measures: Latencies, duration: float
) -> tuple[ReplicaSummary, ...]:
    names = np.array([name if name is not None else "" for name in table.replica], dtype=object)
    parts = []
    for name in sorted(set(names[chosen]) - {""}, key=_replica_order):
        mine = chosen & (names == name)
        served = mine & (outcome == Outcome.OK)
        parts.append(
            ReplicaSummary(
                replica=name,
                requests=_count(outcome, mine),
                output_tokens_per_s=_rate(int(table.output_tokens[served].sum()), duration),
                ttft_s=distribution(measures.ttft_s[served]),
                e2e_s=distribution(measures.e2e_s[served]),
            )
        )
    return tuple(parts)


def _replica_order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (10**9, name)
