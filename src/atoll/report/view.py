"""What a report is made of: the runs of a study, as values. Whoever has them (a folder, a test) fills this in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from atoll.analyse.band import Band
from atoll.analyse.rank import Place
from atoll.analyse.summary import Summary
from atoll.analyse.window import Mask
from atoll.inventory.box import Box
from atoll.layout.layout import Layout
from atoll.traffic.record import Outcome, RecordTable, Source
from atoll.traffic.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """One run, or why there is none."""

    name: str
    layout: Layout | None = None  # None: a URL that somebody else serves
    table: RecordTable | None = None
    summary: Summary | None = None
    measured: Mask | None = None  # rows that the summary is of; None: all
    band: Band | None = None  # around the means of a simulated run; None: no band is known, or it is no prediction
    predicted: Summary | None = None  # what the simulator said beforehand
    predicted_band: Band | None = None
    failure: str | None = None
    resumed: bool = False  # cut once and gone on with
    commands: tuple[str, ...] = ()  # the engine's command line of each replica
    files: Mapping[str, str] = field(default_factory=dict)  # path -> text, as deployed
    digest: str | None = None  # of the files
    notes: tuple[str, ...] = ()
    telemetry: Mapping[str, Any] | None = None  # columns time_s, source, name, value; None: nothing was sampled

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to know before trusting the figures."""
        return (*(() if self.summary is None else self.summary.notes), *self.notes)

    def target(self, measure: str) -> float | None:
        """The seconds that `ttft_s` or `tpot_s` should keep within; None where nobody said so."""
        kept = None if self.summary is None or self.summary.goodput is None else self.summary.goodput
        asked = None if self.layout is None else self.layout.slo
        told: float | None = getattr(kept, f"slo_{measure}", None) or getattr(asked, measure, None)
        return told

    @property
    def ok_rows(self) -> Mask:
        """Measured rows that succeeded; shape (len(table),)."""
        assert self.table is not None
        ok = np.array([outcome == Outcome.OK for outcome in self.table.outcome], dtype=np.bool_)
        return ok if self.measured is None else ok & self.measured


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyView:
    """The runs that a report compares; one run alone is a study of one."""

    name: str
    title: str | None = None
    engine: str  # simulated, emulated, vllm, external
    source: Source
    model: str | None = None
    box: Box | None = None
    workload: Workload | None = None
    runs: tuple[RunView, ...]
    ranking: tuple[Place, ...] = ()  # of the runs that finished, best first
    baseline: str | None = None
    findings: tuple[str, ...] = ()  # sentences of the doctor and of the planner
    atoll_version: str
    made_on: str | None = None  # a date in words, for measured runs

    def place(self, name: str) -> Place | None:
        """Where a run came in; None where it did not finish."""
        return next((place for place in self.ranking if place.name == name), None)

    def run(self, name: str) -> RunView:
        return next(run for run in self.runs if run.name == name)

    def target(self, measure: str) -> float | None:
        """The target of all runs; None where there is none, or they have several."""
        told = {run.target(measure) for run in self.measured_runs}
        return told.pop() if len(told) == 1 else None

    @property
    def measured_runs(self) -> tuple[RunView, ...]:
        """Runs with records, best first where they are ranked."""
        order = [place.name for place in self.ranking]
        usable = [run for run in self.runs if run.table is not None and run.summary is not None and len(run.table)]
        return tuple(sorted(usable, key=lambda run: order.index(run.name) if run.name in order else len(order)))
