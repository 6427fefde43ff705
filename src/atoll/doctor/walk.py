"""The walk over a folder: which of its files may be ours, and what was left out."""

import posixpath
import re
from collections import deque
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.files import unknown
from atoll.doctor.scripts import STARTS_ENGINE
from atoll.doctor.sources import CORRECTED, Sources, is_within
from atoll.doctor.tree import Source
from atoll.errors import InputError

_DEEPEST = 12  # folders below the one that was given
# What is looked at below the folders that are given; a larger tree (a whole disk) is named by its part that matters.
MOST_NAMES = 20_000
MOST_FILES = 400  # read
MOST_CHARACTERS = 15 * 10**5  # of them together; YAML is read at some 300,000 a second
_KERNEL = {"/proc", "/sys", "/dev"}  # no files of anybody
_SKIPPED = {"node_modules", "__pycache__", "venv", "site-packages", "dist", "build", "target"}
_WALKED = re.compile(
    r"\.(ya?ml|conf|cfg|json|template|sh|bash|zsh|sbatch|slurm|tmpl|service|container|toml|tf|hcl|nomad|j2|tpl|mk|ps1|bat)$"
    r"|^nginx(?!.*\.pyc?$)|topo.*\.txt$|^sites-|^README[\w.-]*\.(md|rst|txt)$|(^|\.)Caddyfile|\.caddy(file)?$"
    r"|^(GNUm|M|m)akefile$|^[Jj]ustfile$|^Procfile$|^(docker-)?compose(?!.*\.pyc?$)|^(start|run|serve|launch|entrypoint)[\w-]*$|(^|[./_-])(Docker|Container)file|\.[Dd]ockerfile$"
)
_TOLD_BY = re.compile(
    r'^\s*[{"]*(services|apiVersion|static_resources|replicas|applications|HostConfig|architectures|model_type'
    r'|model_list|modelArtifacts|servingEngineSpec|entryPoints|routers)"?\s*:',
    re.MULTILINE,
)


class Walk:
    """A walk; `entered` are the folders, so that a link to one above does not lead round and round."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._entered: set[str] = set()
        self._names, self._files, self._characters = 0, 0, 0
        self._left_out = False

    def over(self, path: str, names: Iterable[str]) -> Iterator[Source]:
        """The files of a folder and those below it that can be ours."""
        root = self._sources.files.identity(path)
        self._sources.roots.add(root)
        self._entered.add(root)
        yield from self._folders(path, names, root)
        if self._left_out:
            seen = f"{self._names:,} names were met and {self._files:,} files read, which is enough"
            self._sources.problem(path, 1, unknown, f"{seen}; the rest of this folder was not looked at")

    def _counted(self, names: Iterable[str]) -> Iterator[str]:
        """The names, as far as they are looked at."""
        for name in names:
            if self._names >= MOST_NAMES or self._files >= MOST_FILES or self._characters >= MOST_CHARACTERS:
                self._left_out = True
                return
            self._names += 1
            yield name

    def _folders(self, path: str, names: Iterable[str], root: str) -> Iterator[Source]:
        """Level by level, so that a huge folder hides nothing that lies nearer."""
        waiting = deque([(path, names, 0)])
        while waiting:
            folder, listed, depth = waiting.popleft()
            for name in self._counted(listed):
                child = posixpath.join(folder, name) if folder != "." else name
                inside = self._inside(child, name, root)
                if inside is None:
                    yield from self._file(child, name)
                elif depth >= _DEEPEST and inside:
                    said = f"lies more than {_DEEPEST} folders down; name it to have it looked at"
                    self._sources.not_understood(child, said)
                elif self._sources.files.identity(child) not in self._entered:
                    self._entered.add(self._sources.files.identity(child))
                    waiting.append((child, inside, depth + 1))

    def _inside(self, child: str, name: str, root: str) -> tuple[str, ...] | None:
        """The names in a folder, none where it is not to be entered; None for what is no folder."""
        if _is_of_others(name, child):
            self._pass_by(child, name)
            return ()
        try:
            inside = self._sources.files.listing(child)
        except InputError as error:
            self._sources.problem(child, 1, unknown, str(error).rstrip("."))
            return ()
        if name == "atoll" and {"__init__.py", "doctor"} <= set(inside or ()):
            # our own source beside a bundle's backend, with an example of everything that is wrong
            self._sources.not_entered.setdefault(f"{name} (atoll itself)")
            return ()
        if is_within(self._sources.files.identity(child), root):
            return inside
        if inside is not None or _WALKED.search(name):
            self._sources.problem(child, 1, unknown, "this link leads out of the folder and was not followed")
        return ()

    def _file(self, child: str, name: str) -> Iterator[Source]:
        if CORRECTED in name or not _WALKED.search(name):
            return
        source = self._sources.source(child)
        if source is not None and _is_worth_reading(source):
            self._files += 1
            self._characters += len(source.text)
            yield source

    def _pass_by(self, child: str, name: str) -> None:
        """A folder of other people's things is not entered, and its name is kept."""
        try:
            if self._sources.files.listing(child) is not None:
                self._sources.not_entered.setdefault(name)
        except InputError:
            self._sources.not_entered.setdefault(name)


def _is_of_others(name: str, path: str) -> bool:
    return name.startswith(".") or name in _SKIPPED or path in _KERNEL


def _is_worth_reading(source: Source) -> bool:
    """Whether a file met on a walk can be one of ours; reading a large one takes seconds."""
    name, text = source.name, source.text
    if (
        name.endswith((".conf", ".cfg", ".template", ".txt", ".container"))
        or "compose" in name
        or name.startswith("kustomization.")
        or "nginx" in name
        or "addy" in name
    ):
        return True
    if len(text) >= 10**6:
        return False
    told = name.endswith((".yaml", ".yml", ".json")) and _TOLD_BY.search(text) is not None
    told = told or (name.endswith(".toml") and re.search(r"(?m)^\s*\[+\s*(http|entryPoints)\b", text) is not None)
    return told or STARTS_ENGINE.search(text) is not None
