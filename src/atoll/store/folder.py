"""A run's own folder: the truth about it.

    layout.yaml  workload.yaml  run.yaml     what was run, how and with what
    records.parquet                          one row a request
    token_clock.parquet  token_spans.parquet only of simulated runs, whose requests share a step clock
    telemetry.parquet                        counters of engines and GPUs meanwhile
    summary.json
    tags.json                                what people call it; the catalogue finds it by them

A measured run has its token times in records.parquet itself. While it is under way its records stand in parts and a
tail beside it (load/records.py), so a kill loses at most the last second; `read_run` reads whatever is there.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import model_validator

from atoll.analyse.summary import Summary, summarise
from atoll.analyse.window import Mask, window_of
from atoll.documents import Document
from atoll.errors import BadRun, InputError
from atoll.layout.layout import Layout
from atoll.load import records, recover
from atoll.outside.files import (
    alone_in,
    lasting_folder,
    path_text,
    read_text,
    refuse_to_overwrite,
    remove_files,
    write_whole,
)
from atoll.outside.parquet import Ragged, read_parquet, write_parquet
from atoll.store.catalog import Moment, with_source
from atoll.store.run_id import RunId, derived_run_id, new_run_id
from atoll.traffic.record import RecordTable, Source
from atoll.traffic.workload import Workload

# 2 says the source, which in a file of 1 follows from the engine; 3 has the columns of _ADDED in records.parquet
SCHEMA_VERSION = 3

D = TypeVar("D", bound=Document)

_TEXT_COLUMNS = ("outcome", "error", "detail", "replica", "request_id", "model")
_ADDED = ("asked_prompt_tokens", "asked_output_tokens", "resent", "retried", "request_id", "model")
_OF_A_RUN = (
    "run.yaml",
    "layout.yaml",
    "workload.yaml",
    "records.parquet",
    "token_clock.parquet",
    "token_spans.parquet",
    "telemetry.parquet",
    "summary.json",
    "client.json",
    "report.html",
    "tags.json",
)
_TOKEN_FIELDS = ("token_clock", "span_row", "span_start", "span_stop")
_ROW_FIELDS = tuple(field.name for field in fields(RecordTable) if field.name not in _TOKEN_FIELDS)


class RunInfo(Document):
    """What made these numbers."""

    noun: ClassVar[str] = "the notes of a run"

    schema_version: int = SCHEMA_VERSION
    run_id: RunId | None = None  # see with_id
    name: str
    engine: str  # simulated, emulated, vllm, or "external" for a URL that somebody else serves
    source: Source  # where the figures come from; a URL may turn out to be emulated
    model: str | None = None
    url: str | None = None
    started_at: Moment | None = None  # None for virtual time
    atoll_version: str
    bundle_digest: str | None = None
    complete: bool = False
    failure: str | None = None  # why the variant did not run
    windows: tuple[tuple[float, float], ...] = ()  # measured spans in run time, of a run that was cut and resumed
    notes: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _source_from_engine(cls, plain: Any) -> Any:
        return with_source(plain)


class Tags(Document):
    """tags.json."""

    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run, read back."""

    path: Path
    info: RunInfo
    layout: Layout | None
    workload: Workload | None
    table: RecordTable
    summary: Summary
    telemetry: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def measured(self) -> Mask:
        """The rows that were sent in the measured window, or windows; shape (len(table),)."""
        return window_of(self.table, self.workload, spans=self.info.windows).rows(self.table)


def write_info(folder: Path, info: RunInfo, *, sync: bool = True) -> None:
    write_whole(folder / "run.yaml", info.to_yaml(), sync=sync)


def name_of(folder: Path) -> str:
    """What a run is called that nobody named."""
    return path_text(Path(folder.resolve().name))


def with_id(folder: Path, info: RunInfo) -> RunInfo:
    """`info` with the id of the run that is in the folder already, or with a new one."""
    return info.replace(run_id=read_info(folder).run_id if is_run(folder) else new_run_id(folder))


def make_way(folder: Path, *, force: bool) -> None:
    """Refuse a folder that holds something; with `force` a run that is there goes, and nothing else.

    Raises:
        InputError: it holds something.
    """
    if is_run(folder) and not force:
        raise InputError(f"{folder} already holds a run. Choose another folder with -o, or overwrite it with --force.")
    refuse_to_overwrite(folder, force=force)
    if is_run(folder):
        records.remove(folder)
        for name in _OF_A_RUN:
            (folder / name).unlink(missing_ok=True)


@contextmanager
def claim(folder: Path, *, force: bool) -> Iterator[None]:
    """Make way in a folder, and hold it while the block writes the run: two at once do not mix their records.

    Raises:
        InputError: it holds something, or somebody else is writing a run there.
    """
    made = not folder.exists()
    try:
        with alone_in(folder, otherwise=f"{folder} is being written by another atoll. Choose another folder with -o."):
            make_way(folder, force=force)
            yield
    except BaseException:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise


def start_run(folder: Path, info: RunInfo, *, layout: Layout | None, workload: Workload | None) -> None:
    """Write down what is about to run, before it runs; nobody waits for the disk."""
    write_info(folder, info, sync=False)
    if layout is not None:
        write_whole(folder / "layout.yaml", layout.to_yaml(), sync=False)
    if workload is not None:
        write_whole(folder / "workload.yaml", workload.to_yaml(), sync=False)


def finish_run(folder: Path, info: RunInfo, table: RecordTable, summary: Summary) -> None:
    """Keep the records and the summary; run.yaml is written last, so `complete` means that all is there."""
    write_whole(folder / "summary.json", summary.to_json())  # small, and what one wants most of a disk that is full
    write_records(folder, table)
    write_info(folder, info.replace(complete=True))


def keep_run(folder: Path, info: RunInfo, table: RecordTable, summary: Summary) -> str | None:
    """finish_run; where the disk refuses, what is in memory is saved where there is room. Gives what is not whole.

    A whole copy goes to the temporary folder; then the parts of the run that are in its own make way for a compact
    one. Where there is no room at all the parts stay, and the summary is tried alone.
    """
    try:
        finish_run(folder, info, table, summary)
    except InputError as error:
        why = str(error).rstrip(".")
    else:
        return None
    spare = _spare_copy(info, table, summary)
    with suppress(OSError):
        records.give_room_back(folder)
    if spare is not None:
        records.remove(folder)
        try:
            finish_run(folder, info, table, summary)
        except InputError:
            pass
        else:
            remove_files(spare, _OF_A_RUN)
            return None
    if spare is not None:
        trouble = f"{why}; all {len(table)} records are in {spare}."
    else:
        trouble = f"{why}; {_readable(folder)} of {len(table)} records can be read from {folder}."
    with suppress(InputError):
        write_info(folder, info.replace(notes=(*info.notes, f"This folder is not whole: {trouble}")))
    with suppress(InputError):
        write_whole(folder / "summary.json", summary.to_json())
    return trouble


def _spare_copy(info: RunInfo, table: RecordTable, summary: Summary) -> Path | None:
    """A whole run in the temporary folder; None when there is no room there either."""
    try:
        spare = lasting_folder()
    except InputError:
        return None
    try:
        finish_run(spare, info, table, summary)
    except InputError:
        remove_files(spare, _OF_A_RUN)
        return None
    return spare


def _readable(folder: Path) -> int:
    try:
        return len(_whatever_records(folder))
    except BadRun:
        return 0


def write_records(folder: Path, table: RecordTable) -> None:
    columns: dict[str, Any] = {name: getattr(table, name) for name in _ROW_FIELDS}
    columns |= {name: list(columns[name]) for name in _TEXT_COLUMNS}
    if _spans_are_own(table):
        columns["token_s"] = _own_times(table)
    else:
        write_parquet(folder / "token_clock.parquet", {"token_s": table.token_clock})
        spans = {name: getattr(table, name) for name in _TOKEN_FIELDS[1:]}
        write_parquet(folder / "token_spans.parquet", spans)
    write_parquet(folder / "records.parquet", columns)


def _own_times(table: RecordTable) -> Ragged:
    """Token times row by row, gathered without a loop: a run may have a million requests."""
    order = np.lexsort((table.span_start, table.span_row))
    start, stop = table.span_start[order], table.span_stop[order]
    counts = stop - start
    ends = np.cumsum(counts)
    places = np.arange(counts.sum()) + np.repeat(start - (ends - counts), counts)
    rows = np.bincount(table.span_row, weights=table.span_stop - table.span_start, minlength=len(table))
    return Ragged(table.token_clock[places], rows.astype(np.int64))


def _spans_are_own(table: RecordTable) -> bool:
    """Whether every request has its token times to itself, as in a measured run."""
    return int((table.span_stop - table.span_start).sum()) <= len(table.token_clock)


def read_records(folder: Path) -> RecordTable:
    """The records of a finished run.

    Raises:
        BadRun: they are not there, or are not readable.
    """
    columns = read_parquet(folder / "records.parquet")
    count = len(columns.get("number", ()))
    for name in _ADDED:  # a folder of before
        columns.setdefault(name, [None] * count if name in _TEXT_COLUMNS else np.zeros(count, dtype=np.int64))
    missing = [name for name in _ROW_FIELDS if name not in columns]
    if missing:
        raise BadRun(f"{folder / 'records.parquet'} has no column {missing[0]}; it was not written by atoll.")
    rows = {name: columns[name] for name in _ROW_FIELDS}
    rows |= {name: tuple(columns[name]) for name in _TEXT_COLUMNS}
    return RecordTable(**rows, **_tokens(folder, columns))


def _tokens(folder: Path, columns: dict[str, Any]) -> dict[str, Any]:
    if "token_s" not in columns:
        spans = read_parquet(folder / "token_spans.parquet")
        return {"token_clock": read_parquet(folder / "token_clock.parquet")["token_s"]} | spans
    lists = columns["token_s"]
    counts = np.array([len(times) for times in lists], dtype=np.int64)
    stops = np.cumsum(counts, dtype=np.int64)
    rows = np.flatnonzero(counts).astype(np.int64)
    return {
        "token_clock": np.concatenate(lists) if lists else np.empty(0),
        "span_row": rows,
        "span_start": (stops - counts)[rows],
        "span_stop": stops[rows],
    }


def is_run(folder: Path) -> bool:
    return (folder / "run.yaml").is_file()


def read_info(folder: Path) -> RunInfo:
    """What made a run's numbers, its id derived where none was written; raises BadRun when the folder is no run."""
    if not is_run(folder):
        raise BadRun(f"{folder} is no run: it has no run.yaml. Give a folder that `atoll bench` or `study run` wrote.")
    info = RunInfo.parse(read_text(folder / "run.yaml"), origin=str(folder / "run.yaml"))
    if info.run_id is not None:
        return info
    return info.replace(run_id=derived_run_id(folder, info.name, info.engine, info.url, info.started_at))


def read_run(folder: Path) -> Run:
    """A run, finished or cut short.

    Raises:
        BadRun: the folder holds no run, or nothing in it can be read.
    """
    info = read_info(folder)
    layout = read_layout(folder)
    workload = _document(folder / "workload.yaml", Workload)
    table = _whatever_records(folder)
    summary = _document(folder / "summary.json", Summary) if info.complete else None
    if summary is None:
        summary = summarise(table, workload=workload, spans=info.windows)
    telemetry = folder / "telemetry.parquet"
    return Run(
        path=folder,
        info=info,
        layout=layout,
        workload=workload,
        table=table,
        summary=summary,
        telemetry=read_parquet(telemetry) if telemetry.is_file() else None,
    )


def read_summary(folder: Path, info: RunInfo) -> Summary:
    """What `read_run` would sum up, without the records where the run is complete; raises BadRun."""
    kept = _document(folder / "summary.json", Summary) if info.complete else None
    return read_run(folder).summary if kept is None else kept


def read_layout(folder: Path) -> Layout | None:
    """What was run, where that is known."""
    return _document(folder / "layout.yaml", Layout)


def read_tags(folder: Path) -> tuple[str, ...]:
    found = _document(folder / "tags.json", Tags)
    return () if found is None else found.tags


def write_tags(folder: Path, tags: tuple[str, ...]) -> None:
    """Keep a run's tags with it, so that a catalogue can be made anew."""
    write_whole(folder / "tags.json", Tags(tags=tags).to_json(), sync=False)


def _whatever_records(folder: Path) -> RecordTable:
    if (folder / "records.parquet").is_file():
        return read_records(folder)
    if records.has_records(folder):
        return recover.read_records(folder)
    return RecordTable.from_records([])


def _document(path: Path, kind: type[D]) -> D | None:
    return kind.parse(read_text(path), origin=str(path)) if path.is_file() else None
