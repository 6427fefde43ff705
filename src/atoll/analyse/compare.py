"""Two runs held against each other: the difference, an interval, and words.

The interval is a percentile bootstrap (Efron 1979) over requests, blocked by user: whole users are drawn with
replacement, because one user's requests follow each other on the same replica and are not independent. An open-loop
request is its own block.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from atoll.analyse.band import Band, ratios_of, spans_one
from atoll.analyse.summary import latencies
from atoll.analyse.window import Mask
from atoll.documents import Document
from atoll.traffic.record import Floats, Ints, Outcome, RecordTable

CONFIDENCE = 0.95
_MOST_CELLS = 4_000_000  # of the draw x request matrix held at a time: 32 MB


class Verdict(StrEnum):
    FASTER = "faster"  # the second run's measure is smaller, and the interval does not touch 0
    SLOWER = "slower"
    UNCLEAR = "no clear difference"  # the interval spans 0
    WITHIN_BAND = "within the band"  # of predictions: the interval does not span 0, the band of their ratio spans 1
    UNKNOWN = "not comparable"  # one of the runs has no such measure


class Difference(Document):
    """One measure of two runs, in seconds: `second - first`, with a 95 % interval."""

    measure: str  # "ttft_s", "tpot_s", "e2e_s"
    statistic: str  # "mean", "p50", "p95", "p99"
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    verdict: Verdict

    @property
    def is_clear(self) -> bool:
        """Whether the second run is told from the first."""
        return self.verdict in {Verdict.FASTER, Verdict.SLOWER}

    def turned(self) -> "Difference":
        """`first - second`."""
        turns = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
        return self.replace(
            first=self.second,
            second=self.first,
            difference=None if self.difference is None else -self.difference,
            low=None if self.high is None else -self.high,
            high=None if self.low is None else -self.low,
            verdict=turns.get(self.verdict, self.verdict),
        )


class Comparison(Document):
    """The differences of a second run from a first, which is the baseline.

    Two predicted runs differ only where the interval of their difference does not span 0 and the band of their ratio
    does not span 1.
    """

    first: str
    second: str
    differences: tuple[Difference, ...]
    ratio: Band | None = None  # of the means, second / first; None: not of two predictions, or no band is known

    def difference(self, measure: str, statistic: str) -> Difference:
        return next(d for d in self.differences if d.measure == measure and d.statistic == statistic)

    def turned(self) -> "Comparison":
        """The same two runs, the first held against the second."""
        return Comparison(
            first=self.second,
            second=self.first,
            differences=tuple(one.turned() for one in self.differences),
            ratio=None if self.ratio is None else self.ratio.inverse(),
        )


MEASURES = ("ttft_s", "tpot_s", "e2e_s")
STATISTICS = {"mean": None, "p50": 0.50, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampled:
    """One run's statistics and what they would have been in other draws of its users."""

    name: str
    exact: dict[str, Floats]  # measure -> the statistics, shape (len(STATISTICS),); empty: the run has no such measure
    draws: dict[str, Floats]  # measure -> shape (draws, len(STATISTICS))
    output_tokens_per_s: float | None = None


def draw_run(
    name: str,
    table: RecordTable,
    *,
    rows: Mask | None = None,
    draws: int = 1000,
    seed: int = 1,
    output_tokens_per_s: float | None = None,
) -> Resampled:
    """Bootstrap one run; runs that are to be compared need seeds of their own.

    Args:
        name: what the run is called.
        table: its records.
        rows: the measured rows, None for all; shape (len(table),).
        draws: bootstrap samples.
        seed: of the drawing; the same seed gives the same interval.
        output_tokens_per_s: the run's rate, for the band of a ratio.
    """
    rng = np.random.default_rng(seed)
    ok, values = _ok_rows(table), latencies(table)
    if rows is not None:
        ok &= rows
    exact, drawn = {}, {}
    for measure in MEASURES:
        known, blocks = _blocks(getattr(values, measure)[ok], table.user[ok])
        exact[measure] = _exact(known)
        drawn[measure] = _bootstrap(known, blocks, draws=draws, rng=rng) if len(known) else np.empty(0)
    return Resampled(name=name, exact=exact, draws=drawn, output_tokens_per_s=output_tokens_per_s)


def compare_drawn(first: Resampled, second: Resampled, *, ratio: Band | None = None) -> Comparison:
    """`second` held against `first`: TTFT, TPOT and E2E.

    Args:
        first: the baseline.
        second: the other.
        ratio: how far off predictions of such a ratio are, around 1; None where both are no predictions. One without a
            family is a caution where none is known: it counts, and is not shown.
    """
    found = [one for measure in MEASURES for one in _differences(measure, first, second, ratio)]
    shown = None if ratio is None or ratio.family is None else ratio.around(ratios_of(_means(first), _means(second)))
    return Comparison(first=first.name, second=second.name, differences=tuple(found), ratio=shown)


def _means(run: Resampled) -> dict[str, float | None]:
    means = {name: float(values[0]) if len(values) else None for name, values in run.exact.items()}
    return means | {"output_tokens_per_s": run.output_tokens_per_s}


def compare_runs(
    first: RecordTable,
    second: RecordTable,
    *,
    names: tuple[str, str],
    rows: tuple[Mask | None, Mask | None] = (None, None),
    draws: int = 1000,
    rates: tuple[float | None, float | None] = (None, None),
    ratio: Band | None = None,
) -> Comparison:
    """The second run held against the first, which is the baseline.

    Args:
        first: the baseline's records.
        second: the other's.
        names: what they are called.
        rows: their measured rows, None for all.
        draws: bootstrap samples.
        rates: their output tokens per second.
        ratio: see compare_drawn.
    """
    return compare_drawn(
        draw_run(names[0], first, rows=rows[0], draws=draws, seed=1, output_tokens_per_s=rates[0]),
        draw_run(names[1], second, rows=rows[1], draws=draws, seed=2, output_tokens_per_s=rates[1]),
        ratio=ratio,
    )


def _ok_rows(table: RecordTable) -> Mask:
    return np.array([outcome == Outcome.OK for outcome in table.outcome], dtype=np.bool_)


def _blocks(values: Floats, users: Ints) -> tuple[Floats, Ints]:
    """Known values in rising order, each with its block's number 0 ... blocks - 1."""
    known = ~np.isnan(values)
    _, block = np.unique(users[known], return_inverse=True)
    if len(block) > 0 and block.max() == 0:  # one user: nothing to draw from but that user's requests
        block = np.arange(len(block))
    order = np.argsort(values[known], kind="stable")
    return values[known][order], block[order].astype(np.int64)


def _exact(values: Floats) -> Floats:
    if len(values) == 0:
        return np.empty(0)
    shares = [share for share in STATISTICS.values() if share is not None]
    return np.array([values.mean(), *np.quantile(values, shares)])


def _differences(measure: str, first: Resampled, second: Resampled, ratio: Band | None) -> list[Difference]:
    if len(first.exact[measure]) == 0 or len(second.exact[measure]) == 0:
        return [_unknown(measure, statistic) for statistic in STATISTICS]
    drawn = second.draws[measure] - first.draws[measure]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return [
        Difference(
            measure=measure,
            statistic=statistic,
            first=float(first.exact[measure][place]),
            second=float(second.exact[measure][place]),
            difference=float(second.exact[measure][place] - first.exact[measure][place]),
            low=float(low[place]),
            high=float(high[place]),
            verdict=_verdict(
                float(low[place]),
                float(high[place]),
                within=ratio is not None
                and _is_within(first.exact[measure][place], second.exact[measure][place], ratio, measure),
            ),
        )
        for place, statistic in enumerate(STATISTICS)
    ]


def _bootstrap(values: Floats, blocks: Ints, *, draws: int, rng: np.random.Generator) -> Floats:
    """The statistics of each draw, shape (draws, len(STATISTICS)); `values` must be in rising order."""
    count = int(blocks.max()) + 1
    step = max(1, _MOST_CELLS // len(values))
    parts = []
    for start in range(0, draws, step):
        size = min(step, draws - start)
        times = rng.multinomial(count, np.full(count, 1 / count), size=size)
        parts.append(_weighted_statistics(values, times[:, blocks]))
    return np.concatenate(parts)


def bootstrap_of(values: Floats, users: Ints, *, share: float | None, draws: int, rng: np.random.Generator) -> Floats:
    """One statistic in other draws of the users: a quantile, or the mean where `share` is None; shape (draws,)."""
    known, blocks = _blocks(values, users)
    count = int(blocks.max()) + 1
    step = max(1, _MOST_CELLS // len(known))
    parts = []
    for start in range(0, draws, step):
        size = min(step, draws - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size)[:, blocks]
        upto = np.cumsum(weights, axis=1)
        total = np.maximum(upto[:, -1:], 1)
        parts.append(
            weights @ known / total[:, 0] if share is None else known[np.argmax(upto >= share * total, axis=1)]
        )
    return np.concatenate(parts)


def _weighted_statistics(values: Floats, weights: NDArray[np.int64]) -> Floats:
    """Mean and inverted-CDF quantiles of rising values under integer weights, one row a draw."""
    upto = np.cumsum(weights, axis=1)
    total = np.maximum(upto[:, -1:], 1)
    columns = [weights @ values / total[:, 0]]
    for share in STATISTICS.values():
        if share is not None:
            place = np.argmax(upto >= share * total, axis=1)
            columns.append(values[place])
    return np.stack(columns, axis=1)


def _is_within(first: float, second: float, ratio: Band, measure: str) -> bool:
    """Whether so small a ratio may be the error of its prediction."""
    return first <= 0 or spans_one(ratio.around({measure: second / first}).of(measure))


def _verdict(low: float, high: float, *, within: bool) -> Verdict:
    if low <= 0 <= high:
        return Verdict.UNCLEAR
    if within:
        return Verdict.WITHIN_BAND
    return Verdict.SLOWER if low > 0 else Verdict.FASTER


def _unknown(measure: str, statistic: str) -> Difference:
    return Difference(
        measure=measure,
        statistic=statistic,
        first=None,
        second=None,
        difference=None,
        low=None,
        high=None,
        verdict=Verdict.UNKNOWN,
    )
