"""Gates of two runs: whether the second is beyond a value, or has changed by more than so much, beyond chance.

Beyond chance means that the 95 % interval lies wholly where the gate holds: of times a bootstrap over requests,
blocked by user as in analyse/compare.py; of shares Wilson's interval, of their change Newcombe's (Newcombe 1998,
Interval estimation for the difference between independent proportions, method 10); of rates the means of ten equal
stretches of the measured time. What has no requests of its own, such as figures out of another tool's file, has no
interval: then the figures alone decide, and the sentence says so.
"""

from dataclasses import dataclass

import numpy as np

from atoll.analyse.compare import CONFIDENCE, bootstrap_of
from atoll.analyse.gate import Gate, Judgement, Kind, figure_of
from atoll.analyse.summary import Summary, latencies
from atoll.analyse.window import Mask
from atoll.traffic.record import Floats, Ints, Outcome, RecordTable

_DRAWS = 1000
_MOST_GAPS = 20_000  # of a run's gaps between chunks, drawn evenly; more tell no more and cost seconds
_Z = 1.96
_STRETCHES = 10
_T = 2.26  # Student's t of 9 degrees, 95 %


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two runs."""

    name: str
    summary: Summary
    table: RecordTable
    measured: Mask


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A value and between what it lies; without an interval where none is known."""

    value: float
    low: float | None = None
    high: float | None = None


def judge_second(first: Side, second: Side, gate: Gate) -> Judgement:
    """Whether a gate holds of the second run, beyond chance; a change is against the first."""
    found = _change(first, second, gate) if gate.is_change else _level(second, gate)
    if found is None:
        return Judgement(
            gate=gate.text,
            holds=True,
            value=None,
            sentence=f"{gate.figure} is not known of both {first.name} and {second.name}.",
        )
    edge = found.value if found.low is None or found.high is None else found.low if gate.above else found.high
    holds = gate.holds_at(edge)
    what = f"{gate.figure} changes by" if gate.is_change else f"{gate.figure} is"
    sentence = f"{second.name}: {what} {gate.shown(found.value)} ({_between(found, gate)})"
    return Judgement(
        gate=gate.text, holds=holds, value=found.value, sentence=f"{sentence}, {_verdict(gate, found, holds=holds)}."
    )


def _verdict(gate: Gate, found: Interval, *, holds: bool) -> str:
    beyond = f"{'above' if gate.above else 'below'} {gate.shown(gate.value)}"
    if holds:
        return f"{beyond} beyond chance" if found.low is not None else beyond
    return f"{beyond}, which may be chance" if gate.holds_at(found.value) else f"not {beyond}"


def _between(found: Interval, gate: Gate) -> str:
    if found.low is None or found.high is None:
        return "no interval is known"
    return f"{gate.shown(found.low)} to {gate.shown(found.high)}"


def _level(side: Side, gate: Gate) -> Interval | None:
    value = figure_of(side.summary, gate)
    if value is None:
        return None
    if gate.kind is Kind.TIME:
        drawn = _drawn(side, gate, seed=2)
        return Interval(value=value) if drawn is None else _quantiles(value, drawn)
    if gate.kind is Kind.RATE:
        spread = _rate_spread(side, gate)
        return (
            Interval(value=value) if spread is None else Interval(value=value, low=value - spread, high=value + spread)
        )
    many = _out_of(side, gate)
    if gate.is_count:
        return Interval(value=value)
    return Interval(value=value, **dict(zip(("low", "high"), _wilson(*many), strict=True)))


def _change(first: Side, second: Side, gate: Gate) -> Interval | None:
    one, other = figure_of(first.summary, gate), figure_of(second.summary, gate)
    if one is None or other is None or (one <= 0 and gate.kind is not Kind.SHARE):
        return None
    if gate.kind is Kind.SHARE:
        return _share_change(first, second, gate, one, other)
    if gate.kind is Kind.TIME:
        before, after = _drawn(first, gate, seed=1), _drawn(second, gate, seed=2)
        if before is None or after is None:
            return Interval(value=other / one - 1)
        return _quantiles(other / one - 1, after / np.maximum(before, 1e-12) - 1)
    spreads = _rate_spread(first, gate), _rate_spread(second, gate)
    if spreads[0] is None or spreads[1] is None:
        return Interval(value=other / one - 1)
    half = other / one * float(np.hypot(spreads[0] / one, spreads[1] / max(other, 1e-12)))
    return Interval(value=other / one - 1, low=other / one - 1 - half, high=other / one - 1 + half)


def _quantiles(value: float, drawn: Floats) -> Interval:
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def _drawn(side: Side, gate: Gate, *, seed: int) -> Floats | None:
    """The statistic in other draws of the run's users; None where the run has no such values of its own."""
    values, users = _values(side, gate.measure)
    if len(values) == 0:
        return None
    share = None if gate.percentile is None else gate.percentile / 100
    if gate.statistic == "max":
        share = 1.0
    return bootstrap_of(values, users, share=share, draws=_DRAWS, rng=np.random.default_rng(seed))


def _values(side: Side, measure: str) -> tuple[Floats, Ints]:
    table = side.table
    ok = side.measured & (np.array(table.outcome, dtype=object) == Outcome.OK)
    if measure != "itl_s":
        values = getattr(latencies(table), measure)[ok]
        known = ~np.isnan(values)
        return values[known], table.user[ok][known]
    rows = np.flatnonzero(ok)
    gaps = [np.diff(table.token_times(int(row))) for row in rows]
    values = np.concatenate(gaps) if gaps else np.empty(0)
    users = np.repeat(table.user[rows], [len(one) for one in gaps])
    step = max(1, -(-len(values) // _MOST_GAPS))
    return values[::step], users[::step]


def _rate_spread(side: Side, gate: Gate) -> float | None:
    """Half the 95 % interval of a rate, from how it differs between ten stretches of time; None for a short run."""
    table = side.table
    ok = side.measured & (np.array(table.outcome, dtype=object) == Outcome.OK)
    if int(ok.sum()) < 2 * _STRETCHES:
        return None
    start, end = float(table.sent_s[side.measured].min()), float(table.sent_s[side.measured].max())
    times = table.token_clock if gate.figure == "output_tokens_per_s" and len(table.token_clock) else table.done_s[ok]
    counts, _ = np.histogram(times, bins=_STRETCHES, range=(start, end)) if end > start else (np.zeros(0), None)
    if len(counts) == 0 or counts.sum() == 0:
        return None
    value = figure_of(side.summary, gate) or 0.0
    return float(_T * counts.std(ddof=1) / np.sqrt(_STRETCHES) / counts.mean() * value)


def _out_of(side: Side, gate: Gate) -> tuple[int, int]:
    """How many of how many."""
    if gate.figure == "failed":
        return side.summary.requests.failed, side.summary.requests.sent
    good = side.summary.goodput
    return (0, 0) if good is None else (good.good, side.summary.measured)


def _wilson(hits: int, number: int) -> tuple[float, float]:
    """Wilson's interval of a share: 1 of 100 lies between 0.18 % and 5.4 %."""
    if number == 0:
        return 0.0, 1.0
    share, z = hits / number, _Z
    centre = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * float(np.sqrt(share * (1 - share) / number + z * z / (4 * number * number)))
    return max(0.0, centre - half), min(1.0, centre + half)


def _share_change(first: Side, second: Side, gate: Gate, one: float, other: float) -> Interval:
    """Newcombe's interval of the difference of two shares."""
    low_1, high_1 = _wilson(*_out_of(first, gate))
    low_2, high_2 = _wilson(*_out_of(second, gate))
    below = float(np.hypot(other - low_2, high_1 - one))
    above = float(np.hypot(high_2 - other, one - low_1))
    return Interval(value=other - one, low=other - one - below, high=other - one + above)
