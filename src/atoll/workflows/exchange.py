"""Take runs of other load generators in, give runs of ours out."""

from pathlib import Path

import atoll
from atoll.errors import InputError
from atoll.outside.files import read_text, write_whole
from atoll.store.folder import (
    Run,
    RunInfo,
    claim,
    finish_run,
    make_way,
    name_of,
    read_run,
    start_run,
    with_id,
    write_info,
)
from atoll.store.foreign import WRITERS, Foreign, evalscope, read_foreign
from atoll.store.foreign.shape import Kept
from atoll.traffic.record import Source


def import_run(
    file: Path, *, folder: Path | None = None, tool: str | None = None, force: bool = False
) -> tuple[tuple[Path, Foreign], ...]:
    """Keep the runs of a file as run folders, ready for `atoll compare` and `atoll report`.

    Args:
        file: a result of another load generator, its folder, or a CSV export of ours.
        folder: of the run, or of the runs when the file has several; None: `runs/FILE` under the current folder.
        tool: a name of `atoll.store.foreign.READERS`; None: found out.
        force: runs that are there may go.

    Raises:
        InputError: a folder already holds something.
        BadRun: the file is none of these.
    """
    found = read_foreign(_text_of(file), origin=str(file), tool=tool)
    place = folder or Path("runs") / file.stem
    places = [place] if len(found) == 1 else [place / str(number + 1) for number in range(len(found))]
    for one in places:
        make_way(one, force=force)
    for one, foreign in zip(places, found, strict=True):
        with claim(one, force=force):
            _keep(one, foreign)
    return tuple(zip(places, found, strict=True))


# What is taken of a folder, the fullest first.
_IN_FOLDERS = (
    "profile_export.jsonl",
    "profile_export_aiperf.json",
    "per_request_lifecycle_metrics.json",
    "summary_lifecycle_metrics.json",
    evalscope.SUMMARY,
    "benchmarks.json",
    "benchmarks.csv",
    "D*_*_time_*s.json",  # genai-bench
    "*_stats.csv",  # Locust
)


def _text_of(file: Path) -> str:
    """The text of a file, or of the file that counts in a tool's folder; EvalScope's two files as one.

    Raises:
        InputError: it cannot be read, or the folder has no result that is known.
    """
    if file.is_dir():
        found = next(filter(None, (sorted(file.rglob(name)) for name in _IN_FOLDERS)), None)
        if found is None:
            raise InputError(
                f"{file} has no result of another load generator, such as {_IN_FOLDERS[0]}. Name the file."
            )
        if len(found) > 1:
            names = ", ".join(str(one.relative_to(file)) for one in found[:4])
            raise InputError(f"{file} has {len(found)} results, {names}{' ...' if len(found) > 4 else ''}. Name one.")
        return _text_of(found[0])
    other = file.with_name(evalscope.PERCENTILES)
    if file.name == evalscope.SUMMARY and other.is_file():
        return f'{{"summary": {read_text(file)}, "percentiles": {read_text(other)}}}'
    return read_text(file)


def _keep(folder: Path, foreign: Foreign) -> None:
    info = RunInfo(
        name=name_of(folder),
        engine="external",
        source=Source.MEASURED,
        model=foreign.model,
        started_at=foreign.started_at,
        atoll_version=atoll.__version__,
        notes=(f"made by {foreign.tool}", *foreign.notes),
    )
    info = with_id(folder, info)
    start_run(folder, info, layout=None, workload=None)
    if foreign.table is not None:
        finish_run(folder, info, foreign.table, foreign.summary)
    else:
        write_whole(folder / "summary.json", foreign.summary.to_json())
        write_info(folder, info.replace(complete=True))


def export_run(folder: Path, tool: str) -> str:
    """A run in the words of another load generator.

    Raises:
        InputError: not a format that is written.
        BadRun: the folder is no run.
    """
    if tool not in WRITERS:
        raise InputError(f"--to {tool} is not one of {', '.join(WRITERS)}.")
    return WRITERS[tool](_kept(read_run(folder)))


def _kept(run: Run) -> Kept:
    return Kept(
        name=run.name,
        model=run.info.model,
        url=run.info.url,
        started_at=run.info.started_at,
        table=run.table,
        summary=run.summary,
        users=run.workload.users if run.workload else None,
    )
