"""The workspace: one folder, in which boxes, layouts, bundles, runs and studies are the folders and files of the CLI.

Nothing in a request names a path. A thing has an id, which is made of its path within the workspace, and is looked up
among the things that are there. Links are not followed: what lies outside is not the workspace's.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from atoll.errors import NotThere
from atoll.outside.files import make_folder

DEEPEST = 6  # folders below the workspace that are looked into
MOST_THINGS = 20_000
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


class Workspace:
    """The folder and what lies in it."""

    def __init__(self, root: Path) -> None:
        self.root = make_folder(root).resolve()

    @property
    def own(self) -> Path:
        """Where the control plane keeps what is its own: jobs, conversations, the audit log."""
        return self.root / ".atoll"

    def things(self, *kinds: Kind) -> tuple[Thing, ...]:
        """Everything of these kinds, the youngest first."""
        found = [thing for thing in self._walk(self.root, 0) if thing.kind in kinds]
        return tuple(sorted(found, key=lambda thing: (-thing.changed_at, thing.name)))

    def find(self, thing_id: str, *kinds: Kind) -> Thing:
        """The thing with this id; raises NotThere when there is none of these kinds."""
        for thing in self._walk(self.root, 0):
            if thing.id == thing_id and thing.kind in kinds:
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

    def _walk(self, folder: Path, depth: int) -> Iterator[Thing]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        names = {entry.name for entry in entries}
        kind = _kind_of_folder(names)
        if kind is not None and depth:
            yield self._made(folder, kind)
        for entry in entries:
            if entry.is_symlink() or entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth < DEEPEST:
                    yield from self._walk(Path(entry.path), depth + 1)
            elif kind is None and entry.is_file(follow_symlinks=False):
                file_kind = _kind_of_file(entry.name, folder.name if depth else "", folder.parent.name)
                if file_kind is not None:
                    yield self._made(Path(entry.path), file_kind)

    def _made(self, path: Path, kind: Kind) -> Thing:
        return _thing(path, str(path.relative_to(self.root)), kind)


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
