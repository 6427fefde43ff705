"""Corrected files: fixes are put in, the whole set is looked at again, and what made something worse is taken back."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff

from atoll.doctor.edits import apply_edits
from atoll.doctor.finding import Edit, Finding, FixClass, Severity
from atoll.doctor.masks import mask_secrets

_MOST_LOOKS = 400  # a stack of forty services needs some dozens; each is an examination of all files

Look = Callable[[Mapping[str, str]], Sequence[Finding]]  # texts that differ from the disk's -> findings
SAFE_ONLY = frozenset({FixClass.SAFE})
RISKY_TOO = frozenset({FixClass.SAFE, FixClass.RISKY})


@dataclass(frozen=True, kw_only=True)
class Mended:
    """One corrected file."""

    path: str
    before: str
    after: str

    @property
    def diff(self) -> str:
        """What changed, as `diff -u` shows it, with dots in place of keys and passwords."""
        lines = unified_diff(
            mask_secrets(self.before).splitlines(keepends=True),
            mask_secrets(self.after).splitlines(keepends=True),
            fromfile=self.path,
            tofile=f"{self.path} (corrected)",
        )
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A fix that was tried and taken back, and why."""

    finding: Finding
    why: str


@dataclass(frozen=True, kw_only=True)
class Mending:
    """What became of the findings that have a fix of the wanted classes."""

    files: tuple[Mended, ...]
    applied: tuple[Finding, ...]
    left_out: tuple[LeftOut, ...]
    left: tuple[Finding, ...]  # what is found in the corrected files


def mend(look: Look, text_of: Callable[[str], str], classes: frozenset[FixClass] = SAFE_ONLY) -> Mending:
    """Put in the fixes of these classes, as many at once as do not touch each other.

    After each round the whole set is looked at, with what it is now. Where a finding has come that is as bad as what
    was mended, or one that should be gone has not, the round is halved until the fix is found that did it; that one is
    left out. A lesser finding may come: of an engine that now starts, more can be told.

    Args:
        look: examines the files with some texts replaced.
        text_of: the text of a file as it lies there.
        classes: which fixes.
    """
    return _Mending(look, text_of, classes).run()


Name = tuple[str, ...]  # what a finding and its fix are known by when its line has moved


def _name(finding: Finding) -> Name:
    return finding.rule, finding.file, finding.what, *(edit.text for edit in finding.edits)


def _problem(finding: Finding) -> Name:
    """What it says without its figures: a share of 0.92 in place of 0.9 is the same fault."""
    return finding.rule, finding.file, re.sub(r"\d+", "", finding.what)


class _Mending:
    """Rounds of fixes, each kept or taken back."""

    def __init__(self, look: Look, text_of: Callable[[str], str], classes: frozenset[FixClass]) -> None:
        self._look, self._text_of, self._classes = look, text_of, classes
        self._texts: dict[str, str] = {}
        self._before: dict[str, str] = {}
        self._findings: Sequence[Finding] = look({})
        self._applied: list[Finding] = []
        self._left_out: dict[Name, LeftOut] = {}
        self._looks = 0

    def run(self) -> Mending:
        before = -1
        while len(self._applied) > before:  # what did not go before the others may go after them
            before = len(self._applied)
            self._left_out = {}
            self._put_in()
        made = (Mended(path=path, before=self._before[path], after=text) for path, text in sorted(self._texts.items()))
        return Mending(
            files=tuple(one for one in made if one.before != one.after),
            applied=tuple(self._applied),
            left_out=tuple(self._left_out.values()),
            left=tuple(self._findings),
        )

    def _put_in(self) -> None:
        while (chosen := choose_findings(self._wanted())) and self._looks < _MOST_LOOKS:
            if not self._try(chosen):
                self._try_halves(chosen)

    def _wanted(self) -> list[Finding]:
        return [
            finding
            for finding in self._findings
            if finding.edits and finding.fix_class in self._classes and _name(finding) not in self._left_out
        ]

    def _try_halves(self, chosen: Sequence[Finding]) -> None:
        """The fixes of a round that was taken back: each half by itself, until one stands alone."""
        names = list(dict.fromkeys(map(_name, chosen)))  # of services that are alike several fixes have one name
        middle = len(names) // 2
        for half in (names[:middle], names[middle:]) if middle else ():
            now = choose_findings([finding for finding in self._wanted() if _name(finding) in half])
            if now and self._looks < _MOST_LOOKS and not self._try(now):
                self._try_halves(now)

    def _try(self, chosen: Sequence[Finding]) -> bool:
        """Whether these fixes were kept; one that is tried alone and taken back is left out for good."""
        self._looks += 1
        edits = _by_file(chosen)
        for path in edits:
            self._before.setdefault(path, self._text_of(path))
        tried = self._texts | {
            path: apply_edits(self._texts.get(path, self._before[path]), listed) for path, listed in edits.items()
        }
        found = self._look(tried)
        why = why_not(chosen, self._findings, found)
        alone = len({_name(finding) for finding in chosen}) == 1  # the same fix twice stands or falls as one
        if not why:
            self._texts, self._findings = tried, found
            self._applied += chosen
            return True
        if alone:
            self._left_out[_name(chosen[0])] = LeftOut(finding=chosen[0], why=why)
        return False


def why_not(chosen: Sequence[Finding], before: Iterable[Finding], after: Iterable[Finding]) -> str:
    """Why a round is taken back; "" when it did what it should and nothing else."""
    names, now = Counter(map(_name, before)), Counter(map(_name, after))
    if any(now[name] >= names[name] for name in map(_name, chosen)):
        return "it does not mend what it should"
    known, least = Counter(map(_problem, before)), max(finding.severity.rank for finding in chosen)
    for finding in after:
        known[_problem(finding)] -= 1
        as_bad = finding.severity is Severity.ERROR or (finding.severity.rank <= least and not finding.habit)
        if known[_problem(finding)] < 0 and as_bad:
            return f"it brings {finding.rule}: {finding.what}"
    return ""


def choose_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that can be mended side by side; a finding's own edits go together or not at all."""
    chosen: list[Finding] = []
    taken: dict[str, list[Edit]] = {}
    for finding in findings:
        wanted = tuple(dict.fromkeys(finding.edits))
        if not wanted or any(_touches(edit, other) for edit in wanted for other in taken.get(edit.file, ())):
            continue
        if any(_crosses(one, other) for n, one in enumerate(wanted) for other in wanted[:n] if one.file == other.file):
            continue
        chosen.append(finding)
        for edit in wanted:
            taken.setdefault(edit.file, []).append(edit)
    return tuple(chosen)


def _by_file(findings: Iterable[Finding]) -> dict[str, list[Edit]]:
    made: dict[str, list[Edit]] = {}
    for finding in findings:
        for edit in dict.fromkeys(finding.edits):
            made.setdefault(edit.file, []).append(edit)
    return made


def _crosses(later: Edit, earlier: Edit) -> bool:
    """The same of two edits of one finding, which may add to one place: the inner block's lines, then the outer's."""
    if later.start == later.end == earlier.start == earlier.end:
        return _heads(later.text)[0] > _heads(earlier.text)[0]
    return _touches(later, earlier)


def _touches(one: Edit, other: Edit) -> bool:
    if one.start == one.end == other.start == other.end:
        mine, theirs = _heads(one.text), _heads(other.text)  # two lines for one place: of one block, and not the same
        return mine[0] != theirs[0] or bool(mine[1] & theirs[1])
    if one.start == one.end or other.start == other.end:
        return one.start <= other.end and other.start <= one.end
    return one.start < other.end and other.start < one.end


def _heads(text: str) -> tuple[int, set[str]]:
    """The outermost indentation, and the keys or directives that a text adds there, several to a line or not."""
    lines = [line for line in text.split("\n") if line.strip()]
    least = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    outermost = [line for line in lines if len(line) - len(line.lstrip()) == least]
    return least, {part.split()[0] for line in outermost for part in line.split(";") if part.strip()}
