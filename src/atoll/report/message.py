"""What a study says in one sentence: the best arrangement held against the one that matters, and by which measure.

An arrangement is how the cards are cut into replicas. What else may differ between two runs (balancing, engine, flags)
is told apart from it.
"""

from dataclasses import dataclass
from enum import StrEnum

from atoll.analyse.compare import Comparison, Difference, Verdict
from atoll.analyse.rank import FELT_S
from atoll.layout.layout import Layout
from atoll.report.view import RunView, StudyView

Split = tuple[tuple[int, int], ...]


class Measure(StrEnum):
    """What the message is about."""

    WAIT = "wait"  # the 95th percentile of TTFT
    ANSWER = "answer"  # the mean of whole answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """`best` against `other`, which is arranged in another way."""

    best: RunView
    other: RunView
    measure: Measure
    found: Difference  # of the best from the other: negative where the best is sooner
    comparison: Comparison


def find_message(view: StudyView) -> Message | None:
    """The message of a study; None where all runs cut the cards in one way, or nothing compares with the best."""
    runs = view.measured_runs
    if len(view.ranking) < 2 or runs[0].layout is None:
        return None
    best = runs[0]
    other = _other(view, best)
    if other is None:
        return None
    comparison = _best_against(view, best, other)
    if comparison is None:
        return None
    wait, answer = comparison.difference("ttft_s", "p95"), comparison.difference("e2e_s", "mean")
    measure = Measure.WAIT if _is_felt(wait) else Measure.ANSWER
    found = wait if measure is Measure.WAIT else answer
    if found.verdict is Verdict.UNKNOWN:
        return None
    return Message(best=best, other=other, measure=measure, found=found, comparison=comparison)


def _other(view: StudyView, best: RunView) -> RunView | None:
    """The baseline where it is cut otherwise, else the best of those that are."""
    assert best.layout is not None
    others = [run for run in view.measured_runs if run.layout and split_of(run.layout) != split_of(best.layout)]
    return next((run for run in others if run.name == view.baseline), others[0] if others else None)


def _best_against(view: StudyView, best: RunView, other: RunView) -> Comparison | None:
    """The comparison whose second run is the best: as it was made for the ranking, or turned round."""
    place, behind = view.place(best.name), view.place(other.name)
    if place is not None and place.against_baseline is not None and place.against_baseline.first == other.name:
        return place.against_baseline
    return None if behind is None or behind.against_best is None else behind.against_best.turned()


def _is_felt(found: Difference) -> bool:
    return found.is_clear and found.difference is not None and abs(found.difference) >= FELT_S


def split_of(layout: Layout) -> Split:
    """How the cards are cut: (tensor, pipeline) of each replica."""
    return tuple(sorted((replica.tensor_parallel, replica.pipeline_parallel) for replica in layout.replicas))


def engine_of(layout: Layout) -> tuple[object, ...]:
    """What runs on a cut: the engine, its version and its flags."""
    return layout.engine, layout.engine_version, layout.flags


def alike_but_balancing(view: StudyView, run: RunView) -> tuple[RunView, ...]:
    """The runs that differ from one in their balancing alone, itself among them, best first."""
    if run.layout is None or len(run.layout.replicas) < 2:
        return (run,)
    key = split_of(run.layout), engine_of(run.layout)
    return tuple(
        one for one in view.measured_runs if one.layout and (split_of(one.layout), engine_of(one.layout)) == key
    )
