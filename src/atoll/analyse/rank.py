"""Which run did best.

Runs are ordered by the 95th percentile of TTFT, the wait that users complain about. Where that difference is not clear
(its 95 % interval spans 0) the runs share a place, and the one with more output tokens per second stands first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.analyse.compare import Comparison, Verdict, compare_runs
from atoll.analyse.summary import Summary
from atoll.traffic.record import RecordTable

MEASURE, STATISTIC = "ttft_s", "p95"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One run that takes part."""

    name: str
    table: RecordTable
    summary: Summary
    warmup_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run came in. `shared` says that the difference from the first of its place is not clear."""

    place: int  # 1 is best; runs that cannot be told apart have the same
    name: str
    shared: bool
    against_best: Comparison | None  # None for the best itself
    against_baseline: Comparison | None  # None for the baseline itself


def rank_runs(contenders: Sequence[Contender], *, baseline: str | None = None) -> tuple[Place, ...]:
    """Best first; runs without one answer come last.

    Args:
        contenders: the runs, any number.
        baseline: the run that the others are compared with; None: the first.
    """
    if not contenders:
        return ()
    known = {contender.name: contender for contender in contenders}
    reference = known.get(baseline or "", contenders[0])
    groups = _groups(contenders)
    best = groups[0][0]
    return tuple(
        Place(
            place=1 + sum(len(earlier) for earlier in groups[:number]),
            name=one.name,
            shared=len(group) > 1,
            against_best=None if one is best else compare(best, one),
            against_baseline=None if one is reference else compare(reference, one),
        )
        for number, group in enumerate(groups)
        for one in group
    )


def compare(first: Contender, second: Contender) -> Comparison:
    """`second` held against `first`."""
    return compare_runs(
        first.table,
        second.table,
        names=(first.name, second.name),
        warmup_s=(first.warmup_s, second.warmup_s),
    )


def _groups(contenders: Sequence[Contender]) -> list[list[Contender]]:
    """Runs that cannot be told apart from the quickest of their group, groups best first."""
    groups: list[list[Contender]] = []
    for one in sorted(contenders, key=_wait):
        if groups and _is_unclear(groups[-1][0], one):
            groups[-1].append(one)
        else:
            groups.append([one])
    return [sorted(group, key=lambda one: -one.summary.output_tokens_per_s) for group in groups]


def _wait(contender: Contender) -> float:
    wait = contender.summary.ttft_s.p95
    return float("inf") if wait is None else wait


def _is_unclear(first: Contender, second: Contender) -> bool:
    if _wait(second) == float("inf"):
        return _wait(first) == float("inf")
    return compare(first, second).difference(MEASURE, STATISTIC).verdict is Verdict.UNCLEAR
