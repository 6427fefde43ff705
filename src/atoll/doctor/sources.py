"""Sources: every file once, by whatever name it is reached, and what of them could not be read."""

import posixpath

from atoll.doctor.checks.files import unknown, unreadable
from atoll.doctor.files import Files
from atoll.doctor.finding import Finding, Unread
from atoll.doctor.rule import Rule
from atoll.doctor.tree import Node, Source, read_yaml
from atoll.errors import BadDocument, InputError

NOT_UTF8 = "\ufffd"  # what stands for such bytes; a file that has them is not mended, or they would be lost
CORRECTED = ".fixed."  # in the name of a corrected copy, which is looked at only when it is named


NAMED_BY_ANOTHER = "file that another one names"


def is_within(identity: str, root: str) -> bool:
    """Whether a file is a folder itself, or in it."""
    if root in {".", "/"}:
        return not identity.startswith("../")
    return identity == root or identity.startswith(root + "/")


class Sources:
    """What has been read so far. `roots` is what was given: files outside of it may be read, but are not mended."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.by_path: dict[str, Source] = {}
        self.problems: list[Finding] = []
        self.unread: dict[str, Unread] = {}
        self.partly: list[Unread] = []  # parts of files that were understood otherwise
        self.read_as: dict[str, str] = {}  # path -> what it was understood as: "Compose file", "nginx file"
        self.not_entered: dict[str, None] = {}  # names of folders of other people's things: .git, node_modules
        self.roots: set[str] = set()
        self._named: dict[str, str] = {}  # what a file is -> the first path by which it was reached

    def source(self, path: str) -> Source | None:
        """The file; None when there is none, or when it may not be read (which is then a problem)."""
        name = path if path == "-" else posixpath.normpath(path)
        if name in self.by_path:
            return self.by_path[name]
        try:
            text = self.files.read(name)
        except InputError as error:
            if not self.has_problem(name):
                self.problem(name, 1, unknown, str(error).rstrip("."))
            return None
        if text is None:
            return None
        identity = self.files.identity(name)
        same = self._named.setdefault(identity, name)
        if same not in self.by_path:
            ours = any(is_within(identity, root) for root in self.roots)  # beside them nothing is mended
            self.by_path[same] = Source(same, text, fixable=ours and name != "-" and NOT_UTF8 not in text)
        return self.by_path[same]

    def near(self, name: str, source: Source) -> Source | None:
        """The file that another one names; a corrected copy names corrected copies, where there are any."""
        path = posixpath.join(source.folder, name)
        stem, suffix = posixpath.splitext(path)
        corrected = self.source(f"{stem}.fixed{suffix}") if CORRECTED in source.name else None
        found = corrected or self.source(path)
        if found is not None:
            self.read_as.setdefault(found.path, NAMED_BY_ANOTHER)
        return found

    def tree(self, source: Source, variables: dict[str, str] | None = None) -> Node | None:
        """The mapping that a YAML file holds; None when it holds none, or cannot be read (which is then a problem)."""
        try:
            roots = read_yaml(source, variables)
        except BadDocument as error:
            if not self.has_problem(source.path):
                self.damaged(source, error)
            return None
        return roots[0] if roots and roots[0].is_map else None

    def has_problem(self, path: str) -> bool:
        return any(problem.file == path for problem in self.problems)

    def damaged(self, source: Source, error: BadDocument) -> None:
        """A file that its parser refuses; the error begins with `line N: `."""
        line, _, problem = str(error).removeprefix("line ").partition(": ")
        self.unreadable(source, int(line), problem)

    def unreadable(self, source: Source, line: int, problem: str) -> None:
        self.problem(source, line, unreadable, problem.rstrip("."))

    def problem(self, source: Source | str, line: int, rule: Rule, what: str) -> None:
        """A finding about a file itself; what cannot be read is not understood either."""
        path = source if isinstance(source, str) else source.path
        page = rule.page
        self.problems.append(
            Finding(
                file=path,
                line=line,
                rule=rule.id,
                severity=rule.severity,
                what=what,
                why=page.consequence,
                fix=page.fix,
            )
        )
        if rule in {unknown, unreadable}:
            self.not_understood(path, what)

    def understood(self, source: Source, kind: str) -> None:
        self.read_as[source.path] = kind

    def not_understood(self, path: str, why: str) -> None:
        """Say so once for a file; the first reason counts."""
        self.unread.setdefault(path, Unread(file=path, why=why))
