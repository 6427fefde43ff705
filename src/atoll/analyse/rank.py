"""Which run did best.

First comes the wait: the 95th percentile of TTFT. Two waits count as different when the 95 % interval of their
difference does not span 0 and the difference could be felt: 0.1 s is the limit below which a person takes a reaction
for immediate (Nielsen, Usability Engineering, 1993, section 5.5). Among runs whose waits do not differ, the pace of the
answer decides: the mean time per output token, where the interval tells it apart and it differs by a hundredth, about
the least that three digits show. Runs that neither tells apart share a place.

Predicted runs differ only where the band of their ratio says so too; how wide that is, is handed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll.analyse.band import Band
from atoll.analyse.compare import Comparison, Verdict, compare_drawn, draw_run
from atoll.analyse.summary import Summary
from atoll.analyse.window import Mask
from atoll.traffic.record import RecordTable

FELT_S = 0.1
SHOWN = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One run that takes part."""

    name: str
    table: RecordTable
    summary: Summary
    rows: Mask | None = None  # the measured ones; None: all


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run came in. `shared` says that others came in at the same place."""

    place: int  # 1 is best; runs that cannot be told apart have the same
    name: str
    shared: bool
    against_best: Comparison | None  # None for the best itself
    against_baseline: Comparison | None  # None for the baseline itself


RatioOf = Callable[[str, str], Band | None]  # (first, second) -> the band of second / first, around 1


def rank_runs(
    contenders: Sequence[Contender], *, baseline: str | None = None, ratio_of: RatioOf = lambda _first, _second: None
) -> tuple[Place, ...]:
    """Best first; runs without one answer come last. Whoever cannot be told from the best shares its place.

    Args:
        contenders: the runs, any number.
        baseline: the run that the others are compared with; None: the first.
        ratio_of: how far off the predicted ratio of two runs may be, by their names; None for runs that are no
            predictions, which are told apart by statistics alone.
    """
    if not contenders:
        return ()
    judge = _Judge(contenders, ratio_of)
    known = {contender.name: contender for contender in contenders}
    reference = known.get(baseline or "", contenders[0])
    groups = _groups(contenders, judge)
    best = groups[0][0]
    return tuple(
        Place(
            place=1 + sum(len(earlier) for earlier in groups[:number]),
            name=one.name,
            shared=len(group) > 1,
            against_best=None if one is best else judge.compare(best, one),
            against_baseline=None if one is reference else judge.compare(reference, one),
        )
        for number, group in enumerate(groups)
        for one in group
    )


class _Judge:
    """Compares runs; each is bootstrapped once, with a seed of its own."""

    def __init__(self, contenders: Sequence[Contender], ratio_of: RatioOf) -> None:
        self._ratio_of = ratio_of
        self._drawn = {
            one.name: draw_run(one.name, one.table, rows=one.rows, seed=number, output_tokens_per_s=_rate(one.summary))
            for number, one in enumerate(contenders, start=1)
        }

    def compare(self, first: Contender, second: Contender) -> Comparison:
        ratio = self._ratio_of(first.name, second.name)
        return compare_drawn(self._drawn[first.name], self._drawn[second.name], ratio=ratio)

    def waits_differ(self, best: Contender, other: Contender) -> bool:
        found = self.compare(best, other).difference("ttft_s", "p95")
        if found.difference is None:
            return best.summary.requests.ok != other.summary.requests.ok
        return found.verdict is Verdict.SLOWER and found.difference >= FELT_S

    def paces_differ(self, best: Contender, other: Contender) -> bool:
        found = self.compare(best, other).difference("tpot_s", "mean")
        if found.difference is None or not found.first:
            return False
        return found.verdict is Verdict.SLOWER and found.difference >= SHOWN * found.first


def _groups(contenders: Sequence[Contender], judge: _Judge) -> list[list[Contender]]:
    """Runs that share a place, best place first; within one, the higher token rate first."""
    groups = []
    for waits in _split(sorted(contenders, key=_wait), judge.waits_differ):
        groups.extend(_split(sorted(waits, key=_step), judge.paces_differ))
    return [sorted(group, key=lambda one: -_rate(one.summary)) for group in groups]


def _split(ordered: Sequence[Contender], differ: Callable[[Contender, Contender], bool]) -> list[list[Contender]]:
    """Who does not differ from the first goes with it; the first of those who are left heads the next group.

    Bands of ratios are of different widths, so one who is told from the first may stand before one who is not.
    """
    groups: list[list[Contender]] = []
    left = list(ordered)
    while left:
        first, *others = left
        groups.append([first, *(one for one in others if not differ(first, one))])
        left = [one for one in others if differ(first, one)]
    return groups


def _rate(summary: Summary) -> float:
    """Tokens per second while requests were being sent: the ramp-down at the end says nothing about a layout."""
    return summary.output_tokens_per_s


def _wait(contender: Contender) -> float:
    wait = contender.summary.ttft_s.p95
    return float("inf") if wait is None else wait


def _step(contender: Contender) -> float:
    step = contender.summary.tpot_s.mean
    return float("inf") if step is None else step
