"""What the records say: percentiles, throughput, goodput. The one definition of each measure.

What each measure means:

- TTFT: sent (open loop: due) to the first chunk that carries generated text.
- ITL: gaps between chunks that carry text.
- TPOT: (last token - first token) / (output tokens - 1), for answers of at least two tokens that came in more than one
  piece.
- E2E: sent (open loop: due) to the last token.

- Tokens/s: those that arrived between the start of the measured window and the last sending, by that time: without the
  filling and the emptying of the engines, which tell of the run's length alone. Where requests were sent for less than
  one answer's time there is no such stretch, and it is the answers' tokens by the time from the first sending to the
  last end. Requests/s and all tokens/s likewise: a request, and its prompt, count for the part of the answer that
  arrived, so that the three rates say the same of a run however short it is.

Percentiles are over requests that succeeded and were sent in the measured window (analyse/window.py). Failed and
cancelled ones are counted and shown, never dropped: sent = ok + failed + cancelled.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from atoll.analyse.lockstep import IN_STEP, swing_of
from atoll.analyse.overload import Overload, overload_of
from atoll.analyse.rates import Amounts, amounts_of, per_second
from atoll.analyse.remarks import Failure, Rows, failures_of, in_one_piece, remarks_of
from atoll.analyse.window import Mask, Spans, Window, window_of
from atoll.documents import Document
from atoll.traffic.record import Floats, Ints, Outcome, RecordTable
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Start, Workload

_FURTHER = re.compile(r"p\d{1,2}(\.\d{1,4})?")
_QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


class Distribution(Document):
    """Seconds. None where nothing was measured."""

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    more: dict[str, float] = Field(default_factory=dict)  # further percentiles that were asked for: `p99.9`

    @model_validator(mode="before")
    @classmethod
    def _more_stand_beside(cls, value: object) -> object:
        """`p99.9` is written beside the others."""
        if not isinstance(value, dict):
            return value
        further = (name for name in value if isinstance(name, str) and name not in _QUANTILES)
        more = {name: value[name] for name in further if _FURTHER.fullmatch(name)}
        if not more:
            return value
        rest = {name: value[name] for name in value if name not in more}
        return rest | {
            "more": {**(rest.get("more") or {}), **{name: one for name, one in more.items() if one is not None}}
        }

    @model_serializer(mode="wrap")
    def _write_more_beside(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = write(self)
        more: dict[str, Any] = plain.pop("more", {})
        return {**plain, **more}

    def get(self, statistic: str) -> float | None:
        """`mean`, `p95`, or `p99.9` where that was asked for."""
        if statistic in {"mean", "max", *_QUANTILES}:
            found: float | None = getattr(self, statistic)
            return found
        return self.more.get(statistic)


class RequestCounts(Document):
    """sent = ok + failed + cancelled, always."""

    sent: int
    ok: int
    failed: int
    cancelled: int


class ReplicaSummary(Document):
    """The part that one replica served: of all that was sent the counts, of the measured window the rest."""

    replica: str
    requests: RequestCounts
    output_tokens_per_s: float
    ttft_s: Distribution
    e2e_s: Distribution


class ModelSummary(Document):
    """The part of one model of several that were asked."""

    model: str
    requests: RequestCounts
    output_tokens_per_s: float
    ttft_s: Distribution
    tpot_s: Distribution
    e2e_s: Distribution
    goodput: "Goodput | None" = None  # by its own targets, or those of all


class Goodput(Document):
    """Requests that kept within every target, out of all that were measured."""

    slo_ttft_s: float | None = None
    slo_tpot_s: float | None = None
    good: int
    share: float  # of the measured ones; a failed or cancelled request is not good
    requests_per_s: float


class Summary(Document):
    """A run in numbers. Counts and errors are of all that was sent, the rest of the measured window."""

    noun: ClassVar[str] = "the summary of a run"

    requests: RequestCounts
    measured: int = 0  # requests that were sent in the measured window
    measured_from_s: float = 0.0  # its start, in seconds from the run's
    duration_s: float  # from the window's first sending to the end of the last answer that counts
    ttft_s: Distribution
    itl_s: Distribution
    tpot_s: Distribution
    e2e_s: Distribution
    output_tokens_per_s: float
    total_tokens_per_s: float  # with their prompts
    requests_per_s: float
    errors: dict[str, int] = Field(default_factory=dict)
    failures: tuple[Failure, ...] = ()  # the same classes, with what was said and what to do
    remarks: dict[str, int] = Field(default_factory=dict)  # what is odd about answers and requests, by word
    overload: Overload | None = None  # an open loop that asks for more than the server carries
    counted_from_chunks: int = 0  # requests whose engine gave no usage
    cached_tokens: int = 0  # prompt tokens that came from prefix caches
    goodput: Goodput | None = None
    per_replica: tuple[ReplicaSummary, ...] = ()
    per_model: tuple[ModelSummary, ...] = ()  # where a run asks several
    too_short: bool = False  # all counts, because too little was sent after the first round of all users
    in_step: float | None = None  # how much users march in step, 0 to 1 (analyse/lockstep.py); None: cannot be told
    notes: tuple[str, ...] = ()  # what to know before trusting the figures, in sentences

    @model_validator(mode="before")
    @classmethod
    def _summaries_of_before(cls, value: object) -> object:
        """Files of before gave a second, steady rate beside one that had the run's end in it, and only what counted."""
        if not isinstance(value, dict):
            return value
        plain = dict(value)
        steady = plain.pop("steady_output_tokens_per_s", None)
        if steady is not None:
            plain["output_tokens_per_s"] = steady
        counts = plain.get("requests")
        sent = counts.get("sent") if isinstance(counts, dict) else getattr(counts, "sent", None)
        if "measured" not in plain and sent is not None:
            plain["measured"] = sent
        return plain

    @property
    def marches_in_step(self) -> bool:
        return self.in_step is not None and self.in_step >= IN_STEP


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
    streamed = (table.output_tokens > 1) & ~in_one_piece(table)
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = (table.last_token_s - table.first_token_s) / (table.output_tokens - 1)
    return Latencies(
        ttft_s=table.first_token_s - start,
        tpot_s=np.where(streamed, tpot, np.nan),
        e2e_s=np.where(np.isnan(table.last_token_s), table.done_s, table.last_token_s) - start,
    )


def summarise(
    table: RecordTable,
    *,
    workload: Workload | None = None,
    spans: Spans = (),
    slo: SLO | None = None,
    model_slos: Mapping[str, SLO] = MappingProxyType({}),
    rows: Mask | None = None,
    percentiles: Sequence[float] = (),
) -> Summary:
    """A run in numbers.

    Args:
        table: the run's records.
        workload: its load, which says what is measured (analyse/window.py); None: everything.
        spans: the measured spans of a run that was cut and resumed.
        slo: latency targets, for goodput.
        model_slos: those of single models, in place of `slo`'s.
        rows: look at these rows alone, as if no others had been sent; shape (len(table),).
        percentiles: further ones, such as 99.9.
    """
    window = window_of(table, workload, spans=spans)
    looked_at = np.ones(len(table), dtype=np.bool_) if rows is None else rows
    chosen = looked_at & window.rows(table)
    outcome = np.array(table.outcome, dtype=object)
    ok = chosen & (outcome == Outcome.OK)
    measures = latencies(table)
    start_s, end_s = _extent(table, chosen)
    duration = max(0.0, end_s - start_s)
    amounts = amounts_of(table, ok, chosen=chosen, e2e_s=measures.e2e_s, window=window, duration=duration)
    rates = amounts.rates(np.ones(len(table), dtype=np.bool_))
    in_step = swing_of(table, chosen) if workload is not None and workload.is_closed else None
    overload = overload_of(table, chosen) if workload is not None and not workload.is_closed else None
    remarks = remarks_of(
        table,
        Rows(sent=looked_at, measured=chosen, ok=ok),
        workload=workload,
        ttft_s=measures.ttft_s,
        overload=overload,
    )
    targets = _Targets(table, measures, ok, slo=slo or SLO(), model_slos=model_slos)
    parts = partial(_parts, looked_at=looked_at, ok=ok, outcome=outcome, measures=measures, amounts=amounts)
    return Summary(
        requests=_count(outcome, looked_at),
        measured=int(chosen.sum()),
        measured_from_s=window.start_s,
        duration_s=duration,
        ttft_s=distribution(measures.ttft_s[ok], percentiles),
        itl_s=weighted_distribution(*table.gaps(ok), percentiles),
        tpot_s=distribution(measures.tpot_s[ok], percentiles),
        e2e_s=distribution(measures.e2e_s[ok], percentiles),
        output_tokens_per_s=rates.output_tokens_per_s,
        total_tokens_per_s=rates.total_tokens_per_s,
        requests_per_s=rates.requests_per_s,
        errors=_errors(table, looked_at),
        failures=failures_of(table, looked_at),
        remarks=remarks.counts,
        overload=overload,
        counted_from_chunks=int(table.counted_from_chunks[ok].sum()),
        cached_tokens=int(table.cached_tokens[ok].sum()),
        goodput=targets.goodput(chosen, requests_per_s=rates.requests_per_s),
        per_model=tuple(
            ModelSummary(
                model=name,
                tpot_s=distribution(measures.tpot_s[good]),
                goodput=targets.goodput_of(name, chosen, requests_per_s=rates.requests_per_s),
                **figures,
            )
            for name, figures, good in parts(table.model)
        ),
        per_replica=tuple(
            ReplicaSummary(replica=name, **figures)
            for name, figures, _ in sorted(parts(table.replica), key=lambda part: _replica_order(part[0]))
        ),
        too_short=window.is_too_short,
        in_step=in_step,
        notes=(*_notes(window, in_step, workload), *remarks.sentences),
    )


def _notes(window: Window, in_step: float | None, workload: Workload | None) -> Iterator[str]:
    if window.is_too_short:
        yield (
            "The run is too short to leave out its first round: too little was sent after it, so all of it counts, the"
            " engines' filling too. Let it last longer for figures of the steady state."
        )
    if in_step is not None and in_step >= IN_STEP:
        yield (
            f"Users march in step ({in_step:.0%}): they send together, so that each first token waits for the prompts"
            f" of the others. {_spread_them(workload)}{_or_vary(workload)}."
        )


def _spread_them(workload: Workload | None) -> str:
    """What keeps users apart: a spread start, or more time for the one they had (a tenth of the run at most)."""
    if workload is not None and workload.start is Start.SPREAD:
        return "They were started spread, over a tenth of the run at most: let it last longer than ten answers"
    return "Start them spread (--start spread) in a run of ten answers or more"


def _or_vary(workload: Workload | None) -> str:
    """Lengths around the load's own, where its answers are all equally long."""
    if workload is None or workload.output.kind != "fixed" or workload.output.mean < 2:
        return ""
    low, high = (max(1, round(part * workload.output.mean)) for part in (0.8, 1.2))
    return f", or let lengths vary (--output {low}-{high})"


def distribution(values: Floats, further: Sequence[float] = ()) -> Distribution:
    """Mean, percentiles (linear between ranks, as NumPy's default) and maximum; NaN entries are left out."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return Distribution()
    wanted = _shares(further)
    points = np.quantile(known, list(wanted.values()))
    named = dict(zip(wanted, map(float, points), strict=True))
    return Distribution.model_validate({"mean": float(known.mean()), "max": float(known.max()), **named})


def _shares(further: Sequence[float]) -> dict[str, float]:
    """The usual percentiles and further ones, by name."""
    return _QUANTILES | {f"p{percent:g}": percent / 100 for percent in further}


def weighted_distribution(values: Floats, weights: Ints, further: Sequence[float] = ()) -> Distribution:
    """The same as `distribution(np.repeat(values, weights))`, without making that array."""
    total = int(weights.sum())
    if total == 0:
        return Distribution()
    if total == len(weights) and weights.min() == 1:
        return _distribution_of_sorted(np.sort(values), further)
    order = np.argsort(values, kind="stable")
    sorted_values, upto = values[order], np.cumsum(weights[order])
    named = {name: _weighted_quantile(sorted_values, upto, share) for name, share in _shares(further).items()}
    mean = float((values * weights).sum() / total)  # np.dot would wake BLAS' threads, which then spin for 30 ms
    most = float(sorted_values[np.searchsorted(upto, total)])
    return Distribution.model_validate({"mean": mean, "max": most, **named})


def _distribution_of_sorted(values: Floats, further: Sequence[float]) -> Distribution:
    """As `distribution`, of values in order and none of them NaN."""
    last = len(values) - 1
    named = {}
    for name, share in _shares(further).items():
        below = int(share * last)
        low, high = float(values[below]), float(values[min(below + 1, last)])
        named[name] = low + (high - low) * (share * last - below)
    return Distribution.model_validate({"mean": float(values.mean()), "max": float(values[-1]), **named})


def _weighted_quantile(sorted_values: Floats, upto: Ints, share: float) -> float:
    """NumPy's linear quantile of the repeated values; `upto` is the running count."""
    position = share * (int(upto[-1]) - 1)
    below = int(position)
    low = float(sorted_values[np.searchsorted(upto, below, side="right")])
    if below == position:
        return low
    high = float(sorted_values[np.searchsorted(upto, below + 1, side="right")])
    return low + (high - low) * (position - below)


def _extent(table: RecordTable, chosen: Mask) -> tuple[float, float]:
    """When the first counted request was sent and the last counted one ended."""
    if not chosen.any():
        return 0.0, 0.0
    ends = np.where(np.isnan(table.done_s), table.last_token_s, table.done_s)[chosen]
    known = ends[~np.isnan(ends)]
    start = float(table.sent_s[chosen].min())
    return start, float(known.max()) if len(known) else start


def _count(outcome: NDArray[np.object_], chosen: Mask) -> RequestCounts:
    seen = Counter(outcome[chosen])
    return RequestCounts(
        sent=int(chosen.sum()), ok=seen[Outcome.OK], failed=seen[Outcome.FAILED], cancelled=seen[Outcome.CANCELLED]
    )


def _errors(table: RecordTable, chosen: Mask) -> dict[str, int]:
    seen = Counter(table.error[row] or "unknown" for row in np.flatnonzero(chosen) if table.outcome[row] == "failed")
    return dict(seen.most_common())


class _Targets:
    """What each row had to keep, and did.

    An answer whose TPOT is not known is not good where there is a target for it; one token has none to keep.
    """

    def __init__(
        self, table: RecordTable, measures: Latencies, ok: Mask, *, slo: SLO, model_slos: Mapping[str, SLO]
    ) -> None:
        self._ok = ok
        self._slo = slo
        self._model_slos = model_slos
        self._model = np.array([name or "" for name in table.model], dtype=object)
        self._good = ok & self._keeps(table, measures, slo)
        for name, own in model_slos.items():
            mine = self._model == name
            self._good[mine] = (ok & self._keeps(table, measures, own))[mine]

    @staticmethod
    def _keeps(table: RecordTable, measures: Latencies, slo: SLO) -> Mask:
        keeps = np.ones(len(table), dtype=np.bool_)
        if slo.ttft_s is not None:
            keeps &= measures.ttft_s <= slo.ttft_s
        if slo.tpot_s is not None:
            keeps &= (table.output_tokens <= 1) | (measures.tpot_s <= slo.tpot_s)
        return keeps

    def goodput(self, chosen: Mask, *, requests_per_s: float) -> Goodput | None:
        """Of all that were measured; None where nothing has a target."""
        if self._slo.is_empty and not self._model_slos:
            return None
        return self._of(chosen, self._slo, requests_per_s=requests_per_s)

    def goodput_of(self, model: str, chosen: Mask, *, requests_per_s: float) -> Goodput | None:
        slo = self._model_slos.get(model, self._slo)
        mine = self._model == model
        return None if slo.is_empty else self._of(chosen & mine, slo, requests_per_s=requests_per_s)

    def _of(self, rows: Mask, slo: SLO, *, requests_per_s: float) -> Goodput:
        number, sent = int((self._good & rows).sum()), int(rows.sum())
        return Goodput(
            slo_ttft_s=slo.ttft_s,
            slo_tpot_s=slo.tpot_s,
            good=number,
            share=number / sent if sent else 0.0,
            requests_per_s=requests_per_s * per_second(number, float(self._ok.sum())),
        )


def _parts(
    names: Sequence[str | None],
    *,
    looked_at: Mask,
    ok: Mask,
    outcome: NDArray[np.object_],
    measures: Latencies,
    amounts: Amounts,
) -> Iterator[tuple[str, dict[str, Any], Mask]]:
    """For each name of a column: what its rows come to, and which of them were measured and are ok."""
    column = np.array([name or "" for name in names], dtype=object)
    for name in sorted(set(column[looked_at]) - {""}):
        mine = column == name
        figures = {
            "requests": _count(outcome, looked_at & mine),
            "output_tokens_per_s": amounts.rates(mine).output_tokens_per_s,
            "ttft_s": distribution(measures.ttft_s[ok & mine]),
            "e2e_s": distribution(measures.e2e_s[ok & mine]),
        }
        yield name, figures, ok & mine


def _replica_order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (10**9, name)
