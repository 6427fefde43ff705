"""Corrected files: the findings' edits applied round by round until nothing more changes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff

from atoll.doctor.edits import apply_edits
from atoll.doctor.finding import Edit, Finding

_MOST_ROUNDS = 100  # a service that lacks a dozen keys gets one a round; a file where one fix fails, one fix a round

Look = Callable[[Mapping[str, str]], Sequence[Finding]]  # texts that differ from the disk's -> findings


@dataclass(frozen=True, kw_only=True)
class Mended:
    """One corrected file."""

    path: str
    before: str
    after: str

    @property
    def diff(self) -> str:
        """What changed, as `diff -u` shows it."""
        lines = unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            fromfile=self.path,
            tofile=f"{self.path} (corrected)",
        )
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def mend(look: Look, text_of: Callable[[str], str]) -> tuple[tuple[Mended, ...], tuple[Finding, ...]]:
    """The corrected files, and what is left to be done by hand.

    Args:
        look: examines the files with some texts replaced.
        text_of: the text of a file as it lies there.
    """
    texts: dict[str, str] = {}
    before: dict[str, str] = {}
    findings = look(texts)
    left_out: set[Name] = set()
    alone = False  # one fix a round, to learn which of them spoils a file
    for _ in range(_MOST_ROUNDS):
        wanted = [finding for finding in findings if finding.edits and _name(finding) not in left_out]
        chosen = choose_findings(wanted[:1] if alone else wanted)
        if not chosen:
            break
        edits = _by_file(chosen)
        for path in edits:
            before.setdefault(path, text_of(path))
        tried = texts | {path: apply_edits(texts.get(path, before[path]), listed) for path, listed in edits.items()}
        found = look(tried)
        spoiled = any(finding.rule == "AT001" and finding.file in edits for finding in found)
        useless = _unmoved(chosen, findings, found)
        if not spoiled and not useless:
            texts, findings, alone = tried, found, False
        elif len(chosen) == 1 or not spoiled:
            left_out |= useless or {_name(chosen[0])}
            alone = False
        else:
            alone = True
    made = (Mended(path=path, before=before[path], after=text) for path, text in sorted(texts.items()))
    return tuple(one for one in made if one.before != one.after), tuple(findings)


Name = tuple[str, ...]  # what a finding and its fix are known by when its line has moved


def _name(finding: Finding) -> Name:
    return finding.rule, finding.file, finding.what, *(edit.text for edit in finding.edits)


def _unmoved(chosen: Iterable[Finding], before: Iterable[Finding], after: Iterable[Finding]) -> set[Name]:
    """Those of the mended findings that are there as often as before: their fix does not do what it should."""
    then, now = Counter(map(_name, before)), Counter(map(_name, after))
    return {name for name in map(_name, chosen) if now[name] >= then[name]}


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
    """The outermost indentation, and the first words of the lines there: the keys or directives that a text adds."""
    lines = [line for line in text.split("\n") if line.strip()]
    least = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return least, {line.split()[0] for line in lines if len(line) - len(line.lstrip()) == least}
