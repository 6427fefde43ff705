"""Corrected files: the findings' edits applied round by round until nothing more changes."""

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
    barred: set[tuple[str, str]] = set()
    one_by_one = False
    for _ in range(_MOST_ROUNDS):
        wanted = [finding for finding in findings if finding.edits and (finding.rule, finding.what) not in barred]
        wanted = wanted[:1] if one_by_one else wanted
        edits = choose_edits(wanted)
        if not edits:
            break
        for path in edits:
            before.setdefault(path, text_of(path))
        tried = texts | {path: apply_edits(texts.get(path, before[path]), listed) for path, listed in edits.items()}
        found = look(tried)
        if not any(finding.rule == "AT001" and finding.file in edits for finding in found):
            texts, findings = tried, found
        elif one_by_one:
            barred.add((wanted[0].rule, wanted[0].what))  # a file that nobody can read any more is no correction
        else:
            one_by_one = True
    made = (Mended(path=path, before=before[path], after=text) for path, text in sorted(texts.items()))
    return tuple(one for one in made if one.before != one.after), tuple(findings)


def choose_edits(findings: Iterable[Finding]) -> dict[str, list[Edit]]:
    """The edits of those findings that can be mended side by side; a finding's own edits go together or not at all."""
    chosen: dict[str, list[Edit]] = {}
    for finding in findings:
        wanted = tuple(dict.fromkeys(finding.edits))
        if not wanted or any(_touches(edit, other) for edit in wanted for other in chosen.get(edit.file, ())):
            continue
        if any(_crosses(one, other) for n, one in enumerate(wanted) for other in wanted[:n] if one.file == other.file):
            continue
        for edit in wanted:
            chosen.setdefault(edit.file, []).append(edit)
    return chosen


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
