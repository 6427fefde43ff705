"""The catalogue of runs: remember one, find them again."""

from pathlib import Path

from atoll.analyse.summary import Summary
from atoll.errors import AtollError
from atoll.layout.layout import Layout
from atoll.outside.files import make_folder
from atoll.outside.shell import environment
from atoll.store.catalog import Catalog, Query, RunEntry
from atoll.store.folder import RunInfo
from atoll.store.opening import open_catalog

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
    """What the catalogue keeps of a run. The id is the folder's path, so a run that is done again replaces itself."""
    known = sorted({gpu.name for gpu in layout.box.gpus if gpu.name}) if layout else []
    place = folder.resolve()
    return RunEntry(
        run_id=_identifier(place),
        name=info.name,
        engine=info.engine,
        source=info.source,
        study=study,
        model=info.model,
        gpu=" + ".join(known) or None,
        folder=str(place),
        started_at=info.started_at or 0.0,
        summary=summary.to_plain(),
    )


def remember(entry: RunEntry, *, catalog: str | None = None) -> str | None:
    """Save an entry; a catalogue that cannot be written is told of, and costs nobody a measurement."""
    try:
        with open_runs(catalog) as opened:
            opened.save(entry)
    except AtollError as error:
        return f"The run is not in the catalogue: {error}"
    return None


def _identifier(folder: Path) -> str:
    parts = [part for part in folder.parts[-3:] if part != "/"]
    text = ":".join("".join(c if c.isalnum() or c in "._-" else "-" for c in part).lstrip("._-:") for part in parts)
    return text.strip(":") or "run"


def list_runs(query: Query, *, catalog: str | None = None) -> tuple[RunEntry, ...]:
    with open_runs(catalog) as opened:
        return opened.find(query)


def tag_run(run_id: str, tag: str, *, catalog: str | None = None) -> RunEntry:
    with open_runs(catalog) as opened:
        return opened.tag(run_id, tag)


def forget_run(run_id: str, *, catalog: str | None = None) -> None:
    with open_runs(catalog) as opened:
        opened.remove(run_id)
