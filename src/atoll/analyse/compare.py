"""Two runs held against each other: the difference, an interval, and words.

The interval is a percentile bootstrap (Efron 1979) over requests, blocked by user: whole users are drawn with
replacement, because one user's requests follow each other on the same replica and are not independent. An open-loop
request is its own block.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from atoll.analyse.summary import Mask, latencies, measured_rows
from atoll.documents import Document
from atoll.traffic.record import Floats, Ints, Outcome, RecordTable

CONFIDENCE = 0.95
_MOST_CELLS = 4_000_000  # of the draw x request matrix held at a time: 32 MB


class Verdict(StrEnum):
    FASTER = "faster"  # the second run's measure is smaller, and the interval does not touch 0
    SLOWER = "slower"
    UNCLEAR = "no clear difference"  # the interval spans 0
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


class Comparison(Document):
    """The differences of a second run from a first, which is the baseline."""

    first: str
    second: str
    differences: tuple[Difference, ...]

    def difference(self, measure: str, statistic: str) -> Difference:
        return next(d for d in self.differences if d.measure == measure and d.statistic == statistic)


STATISTICS = {"mean": None, "p50": 0.50, "p95": 0.95, "p99": 0.99}


def compare_runs(
    first: RecordTable,
    second: RecordTable,
    *,
    names: tuple[str, str],
    warmup_s: tuple[float, float] = (0.0, 0.0),
    draws: int = 1000,
    seed: int = 1,
) -> Comparison:
    """Differences of TTFT, TPOT and E2E between two runs.

    Args:
        first: the baseline's records.
        second: the other run's.
        names: what the runs are called.
        warmup_s: what to leave out at each run's start.
        draws: bootstrap samples.
        seed: of the drawing; the same seed gives the same interval.
    """
    rng = np.random.default_rng(seed)
    found = []
    rows = [_ok_rows(table, warm) for table, warm in zip((first, second), warmup_s, strict=True)]
    values = [latencies(table) for table in (first, second)]
    for measure in ("ttft_s", "tpot_s", "e2e_s"):
        blocks = [
            _blocks(getattr(value, measure)[chosen], table.user[chosen])
            for value, chosen, table in zip(values, rows, (first, second), strict=True)
        ]
        found.extend(_differences(measure, blocks[0], blocks[1], draws=draws, rng=rng))
    return Comparison(first=names[0], second=names[1], differences=tuple(found))


def _ok_rows(table: RecordTable, warmup_s: float) -> Mask:
    ok = np.array([outcome == Outcome.OK for outcome in table.outcome], dtype=np.bool_)
    return np.asarray(ok & measured_rows(table, warmup_s=warmup_s))


def _blocks(values: Floats, users: Ints) -> tuple[Floats, Ints]:
    """Known values in rising order, each with its block's number 0 ... blocks - 1."""
    known = ~np.isnan(values)
    _, block = np.unique(users[known], return_inverse=True)
    if len(block) > 0 and block.max() == 0:  # one user: nothing to draw from but that user's requests
        block = np.arange(len(block))
    order = np.argsort(values[known], kind="stable")
    return values[known][order], block[order].astype(np.int64)


def _differences(
    measure: str, first: tuple[Floats, Ints], second: tuple[Floats, Ints], *, draws: int, rng: np.random.Generator
) -> list[Difference]:
    if len(first[0]) == 0 or len(second[0]) == 0:
        return [_unknown(measure, statistic) for statistic in STATISTICS]
    samples = [_bootstrap(values, blocks, draws=draws, rng=rng) for values, blocks in (first, second)]
    found = []
    for column, (statistic, share) in enumerate(STATISTICS.items()):
        exact = [float(v.mean()) if share is None else float(np.quantile(v, share)) for v, _ in (first, second)]
        drawn = samples[1][:, column] - samples[0][:, column]
        low, high = (float(x) for x in np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
        found.append(
            Difference(
                measure=measure,
                statistic=statistic,
                first=exact[0],
                second=exact[1],
                difference=exact[1] - exact[0],
                low=low,
                high=high,
                verdict=_verdict(low, high),
            )
        )
    return found


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


def _verdict(low: float, high: float) -> Verdict:
    if low > 0:
        return Verdict.SLOWER
    if high < 0:
        return Verdict.FASTER
    return Verdict.UNCLEAR


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
