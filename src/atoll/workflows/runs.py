"""The catalogue of runs: remember one, find them again."""

from contextlib import nullcontext, suppress
from pathlib import Path

from atoll.analyse.summary import Summary
from atoll.errors import AtollError, InputError
from atoll.layout.layout import Layout
from atoll.outside.files import make_folder, path_text
from atoll.outside.shell import environment, hostname
from atoll.store.catalog import Catalog, Query, RunEntry
from atoll.store.folder import RunInfo
from atoll.store.opening import open_catalog
from atoll.store.run_id import new_run_id

VARIABLE = "ATOLL_CATALOG"
DEFAULT = "sqlite:runs/runs.db"


def catalog_address(given: str | None = None) -> str:
    """What --catalog says, else ATOLL_CATALOG, else `sqlite:runs/runs.db` under the current folder."""
    return given or environment().get(VARIABLE) or DEFAULT


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
        return opened.tag(run_id, tag)


def forget_run(run_id: str, *, catalog: str | None = None) -> None:
    with open_runs(catalog) as opened:
        opened.remove(run_id)
