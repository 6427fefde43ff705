"""Runs on disk, held against each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atoll.analyse.band import Band, means_of
from atoll.analyse.compare import Comparison, compare_runs
from atoll.analyse.gate import Gate, Judgement
from atoll.analyse.gate_change import Side, judge_second
from atoll.cost.band import caution, relative_band, relative_ratio
from atoll.errors import InputError, NoMeasurement
from atoll.model.read import known_card
from atoll.store.folder import Run, read_run
from atoll.traffic.record import Source
from atoll.traffic.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRuns:
    """The runs, and each one but the first compared with the first."""

    runs: tuple[Run, ...]
    names: tuple[str, ...]  # what the runs are called here; with their folders where two are called the same
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()  # what to know before one is praised against another
    bands: tuple[Band | None, ...]  # of the runs' means, around 1; None: measured or emulated, or no band is known


def compare_folders(folders: Sequence[Path]) -> ComparedRuns:
    """Compare every run with the first.

    Raises:
        InputError: fewer than two folders.
        BadRun: a folder is no run.
        NoMeasurement: a run has not one answer.
    """
    if len(folders) < 2:
        raise InputError("Give at least two runs; the first is the one that the others are compared with.")
    runs = tuple(read_run(folder) for folder in folders)
    for run in runs:
        if run.summary.requests.ok == 0:
            raise NoMeasurement(f"{run.path} has not one answered request, so there is nothing to compare.")
    names = _distinct_names(runs)
    first = runs[0]
    return ComparedRuns(
        runs=runs,
        names=names,
        bands=tuple(_band_of(run) for run in runs),
        notes=tuple(
            note for name, run in zip(names[1:], runs[1:], strict=True) for note in _unlike(first, run, names[0], name)
        ),
        comparisons=tuple(
            compare_runs(
                first.table,
                run.table,
                names=(names[0], name),
                rows=(first.measured, run.measured),
                rates=(_rate(first), _rate(run)),
                ratio=_ratio_of(first, run),
            )
            for name, run in zip(names[1:], runs[1:], strict=True)
        ),
    )


def judge_pairs(compared: ComparedRuns, gates: Sequence[Gate]) -> list[Judgement]:
    """What becomes of each gate in each run but the first, which is what changes are against."""
    sides = [
        Side(name=name, summary=run.summary, table=run.table, measured=run.measured)
        for name, run in zip(compared.names, compared.runs, strict=True)
    ]
    return [judge_second(sides[0], other, gate) for other in sides[1:] for gate in gates]


_OTHER_LENGTHS = 0.05  # of the median: from here on answers, or prompts, are not the same work


def _unlike(first: Run, second: Run, name: str, other: str) -> Iterator[str]:
    """Where two runs were not asked for the same: then a difference may be the load's."""
    for what, column in (("answers", "output_tokens"), ("prompts", "prompt_tokens")):
        lengths = [_typical(run, column) for run in (first, second)]
        if min(lengths) > 0 and max(lengths) / min(lengths) - 1 > _OTHER_LENGTHS:
            yield (
                f"The {what} differ in length: {lengths[0]:,.0f} tokens of {name} against {lengths[1]:,.0f} of {other}"
                " (median); part of the difference may be theirs."
            )


def _typical(run: Run, column: str) -> float:
    """The median length of what was answered; 0 where it is not known."""
    ok = run.measured & (np.array(run.table.outcome, dtype=object) == "ok")
    return float(np.median(getattr(run.table, column)[ok])) if ok.any() else 0.0


def _band_of(run: Run) -> Band | None:
    """Around 1, of a simulated run's means; None where none is known, and of what was measured or emulated."""
    if run.info.source is not Source.SIMULATED or run.layout is None:
        return None
    return relative_band(run.layout, known_card(run.layout.model))


def _ratio_of(first: Run, second: Run) -> Band | None:
    """How far off the ratio of two simulated runs may be; None where one is no simulation: statistics alone decide."""
    if any(run.info.source is not Source.SIMULATED for run in (first, second)):
        return None
    if first.layout is None or second.layout is None or first.layout.model != second.layout.model:
        return caution()
    card = known_card(first.layout.model)
    return relative_ratio(first.layout, second.layout, card, same_load=_load(first) == _load(second)) or caution()


def _rate(run: Run) -> float | None:
    return means_of(run.summary)["output_tokens_per_s"]


def _load(run: Run) -> Workload | None:
    return None if run.workload is None else run.workload.replace(seed=1)


def _distinct_names(runs: Sequence[Run]) -> tuple[str, ...]:
    """The runs' names; with their folders where two are called the same."""
    names = [run.name for run in runs]
    return tuple(name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True))
