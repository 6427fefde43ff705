"""The workspace: one folder, in which boxes, layouts, bundles, runs and studies are the folders and files of the CLI.

Nothing in a request names a path. A thing has an id, which is made of its path within the workspace, and is looked up
among the things that are there. Links are not followed: what lies outside is not the workspace's.
"""

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from atoll.errors import NotThere
from atoll.outside.clock import Clock, SystemClock
from atoll.outside.files import make_folder

DEEPEST = 6  # folders below the workspace that are looked into
SETTLED_S = 2.0  # a folder that changed just now may change again without another time
FINISHED_S = 60.0  # a run whose folder has lain still for so long, summed up or not
SUMMED_UP = "summary.json"  # of a run that is over
_SKIPPED = frozenset({"node_modules", "__pycache__", "pieces", "backend", "records", "logs"})


class Kind(StrEnum):
    """What a folder or file of the workspace is."""

    BOX = "box"  # boxes/NAME.txt or .yaml: a capture or a box document
    MODEL = "model"  # models/NAME/config.json
    LAYOUT = "layout"  # a file *layout*.yaml, or one in layouts/
    STUDY = "study"  # a file *study*.yaml, or one in studies/
    BUNDLE = "bundle"  # a folder with layout.yaml and compose.yaml or nginx.conf
    RUN = "run"  # a folder with run.yaml
    STUDY_RUN = "study_run"  # a folder with study-run.yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One of them."""

    id: str
    kind: Kind
    path: Path
    name: str  # the path within the workspace
    changed_at: float  # seconds since 1970

    @property
    def word(self) -> str:
        """The path as a word of a command line that runs in the workspace; never an option."""
        return f"./{self.name}" if self.name.startswith("-") else self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class _Folder:
    """What one folder holds, links and hidden names left out."""

    state: tuple[int, int]  # inode and time of change, which nobody can set: another name in it, another time
    kind: Kind | None = None
    folders: tuple[str, ...] = ()
    files: tuple[tuple[str, Kind], ...] = ()
    summed_up: bool = False


class Workspace:
    """The folder and what lies in it.

    A folder is read again when its time of change says so: with ten thousand runs that is most of the work.
    """

    def __init__(self, root: Path, *, clock: Clock | None = None) -> None:
        self.root = make_folder(root).resolve()
        self._clock = clock or SystemClock()
        self._folders: dict[str, _Folder] = {}
        self._finished: dict[str, tuple[_Folder | None, tuple[Thing, ...], tuple[str, ...]]] = {}  # see _below
        self._places: dict[str, tuple[Path, Kind]] = {}  # of ids that were asked for

    @property
    def own(self) -> Path:
        """Where the control plane keeps what is its own: jobs, conversations, the audit log."""
        return self.root / ".atoll"

    def things(self, *kinds: Kind) -> tuple[Thing, ...]:
        """Everything of these kinds, the youngest first."""
        return tuple(sorted(self._walk(kinds), key=lambda thing: (-thing.changed_at, thing.name)))

    def find(self, thing_id: str, *kinds: Kind) -> Thing:
        """The thing with this id; raises NotThere when there is none of these kinds."""
        path, kind = self._places.get(thing_id, (None, None))
        if path is not None and kind in kinds and self._is_still(path, kind):
            return self._made(path, kind)
        for thing in self._walk(kinds):
            if thing.id == thing_id:
                self._places[thing_id] = thing.path, thing.kind
                return thing
        raise NotThere(f"There is no {' or '.join(kinds)} {thing_id[:40]!r} in this workspace.")

    def thing_at(self, path: Path, kind: Kind) -> Thing:
        """The thing that a path of the workspace is."""
        relative = path.resolve().relative_to(self.root)
        return _thing(path, str(relative), kind)

    def fresh(self, folder: str, name: str, suffix: str = "") -> Path:
        """A path in a folder of the workspace that nobody has yet: NAME, NAME-2, NAME-3."""
        place = make_folder(self.root / folder)
        safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name).strip(".-")[:80] or "unnamed"
        tries = (place / f"{safe}{'' if n == 1 else f'-{n}'}{suffix}" for n in range(1, 10_000))
        return next(path for path in tries if not path.exists() and not path.is_symlink())

    def _walk(self, kinds: Collection[Kind]) -> Iterator[Thing]:
        ahead = [(str(self.root), 0)]
        while ahead:
            place, depth = ahead.pop()
            found = self._read(place)
            if depth and found.kind is not None and found.kind in kinds:
                yield self._made(Path(place), found.kind)
            if depth < DEEPEST:
                finished, others = self._below(place, found)
                yield from finished if Kind.RUN in kinds else ()
                ahead += [(folder, depth + 1) for folder in others]
            if found.kind is None or not depth:
                yield from (self._made(Path(file), kind) for file, kind in found.files if kind in kinds)

    def _below(self, place: str, found: _Folder) -> tuple[tuple[Thing, ...], tuple[str, ...]]:
        """The finished runs of a folder, which are not asked for their time any more, and its other folders.

        When one of them goes, the folder that held it has changed.
        """
        listed, finished, others = self._finished.get(place, (None, (), ()))
        if listed is not found:
            finished, others = (), found.folders
        done = {folder for folder in others if self._is_finished(folder)}
        if done or listed is not found:
            finished += tuple(self._made(Path(folder), Kind.RUN) for folder in others if folder in done)
            others = tuple(folder for folder in others if folder not in done)
            self._finished[place] = found, finished, others
        return finished, others

    def _is_finished(self, folder: str) -> bool:
        known = self._folders.get(folder)
        if known is None or known.kind is not Kind.RUN or known.folders:
            return False
        return self._clock.wall() - known.state[1] / 1e9 > (SETTLED_S if known.summed_up else FINISHED_S)

    def _is_still(self, path: Path, kind: Kind) -> bool:
        """Whether there is that thing yet, and no link has come into its way."""
        if path.resolve() != path:
            return False
        return self._read(str(path)).kind is kind or (str(path), kind) in self._read(str(path.parent)).files

    def _read(self, place: str) -> _Folder:
        """A folder as it is; one that is gone or cannot be read is empty."""
        try:
            status = os.lstat(place)
            state = status.st_ino, status.st_ctime_ns
            known = self._folders.get(place)
            if known is not None and known.state == state:
                return known
            found = _read_folder(place, state, is_root=place == str(self.root))
        except OSError:
            self._folders.pop(place, None)
            return _Folder(state=(0, 0))
        if self._clock.wall() - status.st_ctime > SETTLED_S:
            self._folders[place] = found
        return found

    def _made(self, path: Path, kind: Kind) -> Thing:
        return _thing(path, str(path.relative_to(self.root)), kind)


def _read_folder(place: str, state: tuple[int, int], *, is_root: bool) -> _Folder:
    with os.scandir(place) as listed:
        entries = list(listed)
    shown = [e for e in entries if not (e.is_symlink() or e.name.startswith(".") or e.name in _SKIPPED)]
    folder = "" if is_root else os.path.basename(place)  # noqa: PTH119 - ten thousand of them
    above = os.path.basename(os.path.dirname(place))  # noqa: PTH119, PTH120
    files = [(e.path, _kind_of_file(e.name, folder, above)) for e in shown if e.is_file(follow_symlinks=False)]
    return _Folder(
        state=state,
        kind=_kind_of_folder({e.name for e in entries}),
        folders=tuple(e.path for e in shown if e.is_dir(follow_symlinks=False)),
        files=tuple((path, kind) for path, kind in files if kind is not None),
        summed_up=any(e.name == SUMMED_UP for e in entries),
    )


def _thing(path: Path, name: str, kind: Kind) -> Thing:
    digest = hashlib.sha256(f"{kind}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()
    try:
        changed_at = path.stat().st_mtime
    except OSError:
        changed_at = 0.0
    return Thing(id=digest[:16], kind=kind, path=path, name=name, changed_at=changed_at)


def _kind_of_folder(names: set[str]) -> Kind | None:
    if "study-run.yaml" in names:
        return Kind.STUDY_RUN
    if "run.yaml" in names:
        return Kind.RUN
    if "layout.yaml" in names and names & {"compose.yaml", "nginx.conf"}:
        return Kind.BUNDLE
    return None


def _kind_of_file(name: str, folder: str, above: str) -> Kind | None:
    stem, suffix = Path(name).stem, Path(name).suffix
    if name == "config.json" and above == "models":
        return Kind.MODEL
    if folder == "boxes" and suffix in {".txt", ".yaml"}:
        return Kind.BOX
    if suffix not in {".yaml", ".yml"}:
        return Kind.BOX if suffix == ".txt" and "topo" in stem else None
    if folder == "layouts" or "layout" in stem:
        return Kind.LAYOUT
    return Kind.STUDY if folder == "studies" or "study" in stem else None
