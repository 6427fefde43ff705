"""The catalogue of runs: remember one, find them again, make it anew from the folders."""

import os
import stat
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from atoll.analyse.summary import Summary
from atoll.documents import parse_yaml
from atoll.errors import AtollError, InputError
from atoll.layout.layout import Layout
from atoll.outside.files import make_folder, path_text, read_text
from atoll.outside.shell import environment, hostname
from atoll.store.catalog import Catalog, Query, RunEntry
from atoll.store.folder import RunInfo, is_run, read_info, read_layout, read_summary, read_tags, write_tags
from atoll.store.opening import open_catalog
from atoll.store.run_id import new_run_id

VARIABLE = "ATOLL_CATALOG"
DEFAULT = "sqlite:runs/runs.db"


def catalog_address(given: str | None = None) -> str:
    """What --catalog says, else ATOLL_CATALOG, else the workspace's `runs/runs.db`, here or in a folder above."""
    return given or environment().get(VARIABLE) or _workspace_catalog(Path.cwd()) or DEFAULT


def _workspace_catalog(start: Path) -> str | None:
    """The nearest catalogue that this user has in `start` or above it, up to their home.

    A folder in which everybody may write ends the search, as /tmp does: what lies there is nobody's workspace.
    """
    home, user = Path.home(), os.getuid()
    for folder in (start, *start.parents):
        try:
            kept = folder / DEFAULT.removeprefix("sqlite:")
            if folder != start and folder.stat().st_mode & stat.S_IWOTH:
                return None
            if kept.is_file() and kept.stat().st_uid == user:
                return DEFAULT if folder == start else f"sqlite:{kept}"
        except OSError:
            return None
        if folder == home:
            return None
    return None


def open_runs(given: str | None = None) -> Catalog:
    """The catalogue, made when it is not there yet."""
    address = catalog_address(given)
    if address.startswith("sqlite:"):
        make_folder(Path(address.removeprefix("sqlite:").removeprefix("//")).parent)
    return open_catalog(address)


def entry_of(
    folder: Path, info: RunInfo, summary: Summary, *, layout: Layout | None = None, study: str | None = None
) -> RunEntry:
    """What the catalogue keeps of a run."""
    known = sorted({gpu.name for gpu in layout.box.gpus if gpu.name}) if layout else []
    return RunEntry(
        run_id=info.run_id or new_run_id(folder),
        name=info.name,
        engine=info.engine,
        source=info.source,
        study=study,
        model=info.model,
        gpu=" + ".join(known) or None,
        folder=path_text(folder.resolve()),
        host=hostname(),
        started_at=info.started_at or 0.0,
        tags=read_tags(folder),
        summary=summary.to_plain(),
    )


def remember(
    folder: Path,
    info: RunInfo,
    summary: Summary,
    *,
    layout: Layout | None = None,
    study: str | None = None,
    catalog: str | None = None,
    opened: Catalog | None = None,
) -> str | None:
    """Put a finished run into the catalogue, in place of one that was in its folder before; gives why it is not there.

    Whatever goes wrong is told and no more: the run is in its folder, and nobody loses a measurement to the catalogue.
    """
    try:
        entry = entry_of(folder, info, summary, layout=layout, study=study)
        with nullcontext(opened) if opened is not None else open_runs(catalog) as kept:
            _forget_earlier(entry, kept)
            kept.save(entry)
    except AtollError as error:
        return f"The run is not in the catalogue: {error}"
    except Exception as error:  # noqa: BLE001 - a driver's or a file system's own, of which there is no list
        words = " ".join(str(error).split())
        return f"The run is not in the catalogue: {type(error).__name__}: {words}"
    return None


def _forget_earlier(entry: RunEntry, opened: Catalog) -> None:
    """A folder holds one run. The same path on another machine is another folder."""
    for earlier in opened.find(Query(folder=entry.folder)):
        if earlier.host == entry.host and earlier.run_id != entry.run_id:
            with suppress(InputError):  # somebody else was quicker
                opened.remove(earlier.run_id)


def list_runs(query: Query, *, catalog: str | None = None) -> tuple[RunEntry, ...]:
    with open_runs(catalog) as opened:
        return opened.find(query)


def tag_run(run_id: str, tag: str, *, catalog: str | None = None) -> RunEntry:
    with open_runs(catalog) as opened:
        return tag_entry(opened, run_id, tag)


def tag_entry(opened: Catalog, run_id: str, tag: str, *, within: Path = Path("/")) -> RunEntry:
    """The entry with the tag added, which stands in the run's folder too where that is on this machine.

    Args:
        opened: the catalogue.
        run_id: whose tag it is.
        tag: what it is to be found by.
        within: no folder elsewhere is written to, whatever the entry says.
    """
    entry = opened.load(run_id).with_tag(tag)
    folder = Path(entry.folder or "/nowhere")
    if entry.host == hostname() and _holds(folder, run_id, within):
        write_tags(folder, entry.tags)
    return opened.tag(run_id, tag)


def _holds(folder: Path, run_id: str, within: Path) -> bool:
    """Whether that run is in the folder yet."""
    try:
        return folder.resolve().is_relative_to(within) and is_run(folder) and read_info(folder).run_id == run_id
    except (AtollError, OSError, ValueError):
        return False


def forget_run(run_id: str, *, catalog: str | None = None) -> None:
    with open_runs(catalog) as opened:
        opened.remove(run_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reindexed:
    """What became of a catalogue that was made anew."""

    found: int  # runs below the folder that the catalogue has now
    gone: int  # entries of this machine that were taken out, since their folder below it holds no such run any more
    troubles: tuple[str, ...]  # of folders that could not be read, a sentence each


def reindex_runs(folder: Path, *, catalog: str | None = None) -> Reindexed:
    """Bring the catalogue up to date with the runs below a folder: those it had forgotten come back.

    Links are not followed. Tags are those in the runs' folders; entries of other machines and places stay as they are.

    Raises:
        InputError: there is no such folder, or the catalogue cannot be used.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.")
    found, troubles = set(), []
    with open_runs(catalog) as opened:
        for place in runs_below(folder):
            try:
                info = read_info(place)
                summary = read_summary(place, info)
                entry = entry_of(place, info, summary, layout=read_layout(place), study=study_of(place))
            except (AtollError, OSError) as error:
                troubles.append(f"{path_text(place)}: {error}")
                continue
            opened.save(entry)
            found.add(entry.run_id)
        gone = [entry.run_id for entry in _below(opened, folder) if entry.run_id not in found]
        for run_id in gone:
            with suppress(InputError):  # somebody else was quicker
                opened.remove(run_id)
    return Reindexed(found=len(found), gone=len(gone), troubles=tuple(troubles))


def runs_below(folder: Path) -> Iterator[Path]:
    """The folders with a run in them, by name; what lies inside of a run is its own."""
    for place, below, files in os.walk(folder):
        if "run.yaml" in files:
            below.clear()
            yield Path(place)
        below[:] = sorted(name for name in below if not name.startswith("."))


def study_of(place: Path) -> str | None:
    """The name of the study that a run is a variant of: its folder lies in the study's."""
    try:
        plain = parse_yaml(read_text(place.parent / "study.yaml"), origin="study.yaml")
    except AtollError:
        return None
    name = plain.get("name") if isinstance(plain, dict) else None
    return name if isinstance(name, str) else None


def _below(opened: Catalog, folder: Path) -> list[RunEntry]:
    """This machine's entries whose folders lie below one."""
    here, root, skip, found = hostname(), folder.resolve(), 0, []
    while part := opened.find(Query(skip=skip, limit=1000)):
        skip += len(part)
        found += [one for one in part if one.host == here and one.folder and Path(one.folder).is_relative_to(root)]
    return found
