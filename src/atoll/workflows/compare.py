"""Runs on disk, held against each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.analyse.compare import Comparison, compare_runs
from atoll.errors import InputError, NoMeasurement
from atoll.store.folder import Run, read_run


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRuns:
    """The runs, and each one but the first compared with the first."""

    runs: tuple[Run, ...]
    names: tuple[str, ...]  # what the runs are called here; with their folders where two are called the same
    comparisons: tuple[Comparison, ...]


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
        comparisons=tuple(
            compare_runs(first.table, run.table, names=(names[0], name), rows=(first.measured, run.measured))
            for name, run in zip(names[1:], runs[1:], strict=True)
        ),
    )


def _distinct_names(runs: Sequence[Run]) -> tuple[str, ...]:
    """The runs' names; with their folders where two are called the same."""
    names = [run.name for run in runs]
    return tuple(name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True))
