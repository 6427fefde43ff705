"""What the studies' pages ask: whether a document is a study, how far a run is, its ranking, its report.

Documents are read, runs ranked and reports drawn by a process of its own (web/worker.py); how far a run is, is read
from the small files of its folder.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from atoll.analyse.band import tell_bands
from atoll.analyse.summary import Summary
from atoll.documents import parse_yaml
from atoll.errors import AtollError, InputError
from atoll.inventory.box import Box
from atoll.layout.layout import Layout
from atoll.layout.study import Study, study_layouts
from atoll.model.catalog import find_card
from atoll.outside.files import read_text
from atoll.store.folder import RunInfo, is_run, read_info
from atoll.traffic.record import Source
from atoll.workflows.boxes import box_of_study
from atoll.workflows.report import report_path
from atoll.workflows.study import StudyRun, read_result

ORIGIN = "the study"
MOST_VARIANTS = 1000
SHOWN_LINES = 2  # around the one that an error is about


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckQuestion:
    """A document, the folder that its files are looked for in, and the workspace that they have to lie in."""

    text: str
    folder: Path
    root: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A study that can be run, or the sentence why not and the lines that it is about."""

    study: Study | None = None
    box: Box | None = None
    layouts: tuple[Layout, ...] = ()
    trouble: str | None = None
    lines: tuple[tuple[int, str, bool], ...] = ()  # number, text, whether it is the one


@dataclass(frozen=True, kw_only=True, slots=True)
class RankQuestion:
    """The folder of a study's run."""

    folder: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedRow:
    """A finished variant; seconds, and what differs from the baseline in TTFT p95."""

    place: int
    shared: bool
    name: str
    summary: Summary
    lost: int  # requests that failed or were cancelled
    band: dict[str, Any] | None
    difference: float | None  # None: this is the baseline
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    rows: tuple[RankedRow, ...]
    baseline: str
    source: Source
    bands: tuple[str, ...]  # in sentences; empty where nothing was predicted


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportQuestion:
    folder: Path
    lang: str
    out: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantState:
    """How far a variant is: done, failed, begun or waiting."""

    name: str
    state: str
    failure: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyState:
    """How far a study's run is."""

    study: Study
    engine: str
    source: Source
    started_at: float  # seconds since 1970
    changed_at: float  # when a variant last began or ended
    variants: tuple[VariantState, ...]

    def count(self, state: str) -> int:
        return sum(one.state == state for one in self.variants)

    @property
    def is_complete(self) -> bool:
        return self.count("done") == len(self.variants)


def check_study(question: CheckQuestion) -> Checked:
    """Read it as `atoll study run` will, and let nothing in it name a file outside the workspace."""
    try:
        study = Study.from_plain(parse_yaml(question.text, origin=ORIGIN), origin=ORIGIN)
        if len(study.variants) > MOST_VARIANTS:
            raise InputError(
                f"{ORIGIN}: {len(study.variants):,} variants are more than the {MOST_VARIANTS:,} of a study."
            )
        _check_files(study, question)
        box = box_of_study(study, question.folder)
        layouts = study_layouts(study, box)
    except AtollError as error:
        return Checked(trouble=str(error), lines=lines_around(question.text, str(error)))
    return Checked(study=study, box=box, layouts=layouts)


def _check_files(study: Study, question: CheckQuestion) -> None:
    named = {"profile": study.profile, "workload.trace": study.workload.trace}
    named["box"] = study.box if isinstance(study.box, str) else None
    if find_card(study.model) is None:
        named["model"] = study.model
    for field, name in named.items():
        if name is None:
            continue
        path = question.folder / name
        if "\0" in name or not path.resolve().is_relative_to(question.root):
            raise InputError(f"{ORIGIN}: {field}: {name[:80]!r} is not in this workspace.")
        if not path.exists():
            what = "a model that atoll knows, nor a folder" if field == "model" else "a file"
            raise InputError(f"{ORIGIN}: {field}: {name[:80]!r} is not {what} of this workspace.")


def lines_around(text: str, sentence: str) -> tuple[tuple[int, str, bool], ...]:
    """The lines of a document that an error's sentence is about, as far as it says where."""
    number = _line_of(text, sentence)
    lines = text.splitlines()
    if number is None or not 1 <= number <= len(lines):
        return ()
    begin, end = max(1, number - SHOWN_LINES), min(len(lines), number + SHOWN_LINES)
    return tuple((n, lines[n - 1][:200], n == number) for n in range(begin, end + 1))


def _line_of(text: str, sentence: str) -> int | None:
    said = re.match(rf"{ORIGIN}: line (\d+):", sentence)
    if said:
        return int(said[1])
    path = re.match(rf"{ORIGIN}: ([\w-]+(?:\.[\w-]+|\[\d+\])*)[: ]", sentence)
    return _line_of_path(text, path[1]) if path else None


def _line_of_path(text: str, path: str) -> int | None:
    """The line of a field, or of the nearest one above it that is there."""
    try:
        node: Any = YAML(typ="rt", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError):
        return None
    line = None
    for name in re.findall(r"[\w-]+", path):
        key: Any = int(name) if name.isdigit() and isinstance(node, list) else name
        try:
            places = node.lc.data[key]
            node = node[key]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
        line = places[0] + 1
    return line


def rank_study(question: RankQuestion) -> Ranked:
    """The finished variants, best first."""
    result = read_result(question.folder)
    rows = []
    for place in result.ranking:
        variant = result.variant(place.name)
        assert variant.run is not None
        counts = variant.run.summary.requests
        found = None if place.against_baseline is None else place.against_baseline.difference("ttft_s", "p95")
        rows.append(
            RankedRow(
                place=place.place,
                shared=place.shared,
                name=place.name,
                summary=variant.run.summary,
                lost=counts.failed + counts.cancelled,
                band=None if variant.band is None else variant.band.model_dump(mode="json"),
                difference=None if found is None else found.difference,
                low=None if found is None else found.low,
                high=None if found is None else found.high,
                verdict="baseline" if found is None else found.verdict.name.lower(),
            )
        )
    predicted = {row.name: result.variant(row.name).relative_band for row in rows}
    bands = tell_bands(predicted) if result.source is Source.SIMULATED else []
    return Ranked(rows=tuple(rows), baseline=result.study.baseline_name, source=result.source, bands=tuple(bands))


def write_report(question: ReportQuestion) -> Path:
    """The study's report as far as it has run."""
    return report_path(question.folder, lang=question.lang, out=question.out)


def study_state(folder: Path) -> StudyState:
    """How far a run is, without its records. Raises what the documents in the folder raise."""
    how = _read_how(folder / "study-run.yaml", _stamp(folder / "study-run.yaml"))
    study = _read_study(folder / "study.yaml", _stamp(folder / "study.yaml"))
    names = how.only or tuple(variant.name for variant in study.variants)
    infos = {name: _read_info(folder / name, _stamp(folder / name / "run.yaml")) for name in names}
    stamps = [_stamp(folder / name / "run.yaml") for name in names]
    found = [info.source for info in infos.values() if info is not None]
    return StudyState(
        study=study,
        engine=how.engine,
        source=Source.EMULATED if Source.EMULATED in found else Source.of_engine(how.engine),
        started_at=how.started_at,
        changed_at=max(stamps, default=0) / 1e9,
        variants=tuple(_state_of(name, info) for name, info in infos.items()),
    )


def _state_of(name: str, info: RunInfo | None) -> VariantState:
    if info is None:
        return VariantState(name=name, state="waiting")
    if info.complete:
        return VariantState(name=name, state="done")
    if info.failure is not None:
        return VariantState(name=name, state="failed", failure=info.failure)
    return VariantState(name=name, state="begun")


def _stamp(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0 when it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


# A page asks every two seconds: what has not been written again is not read again.


@lru_cache(maxsize=4096)
def _read_info(place: Path, stamp: int) -> RunInfo | None:  # noqa: ARG001
    return read_info(place) if is_run(place) else None


@lru_cache(maxsize=64)
def _read_study(path: Path, stamp: int) -> Study:  # noqa: ARG001
    return Study.parse(read_text(path), origin=path.name)


@lru_cache(maxsize=64)
def _read_how(path: Path, stamp: int) -> StudyRun:  # noqa: ARG001
    return StudyRun.parse(read_text(path), origin=path.name)


def is_stale(report: Path, state: StudyState) -> bool:
    """Whether a report was drawn before a variant last began or ended, or not at all."""
    return _stamp(report) / 1e9 <= state.changed_at
