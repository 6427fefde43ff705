"""Facts in, findings out: every rule, less what was told to be left out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from atoll.doctor.checks import all_rules
from atoll.doctor.digest import SUMMARY
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import Rule
from atoll.doctor.silence import is_silenced
from atoll.doctor.tree import Source
from atoll.errors import InputError


def examine(facts: Facts, *, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[Finding, ...]:
    """All findings, in order of file and line, each once.

    Args:
        facts: what was gathered.
        select: rules (`NG001`) or families (`NG`) to look for; empty means all.
        ignore: rules or families to leave out.

    Raises:
        InputError: a name that no rule has.
    """
    wanted = _chooser(select, ignore)
    found = [problem for problem in facts.problems if wanted(problem.rule)]
    for rule in all_rules():
        if wanted(rule.id) and rule.id != SUMMARY:  # made of the others where they are told
            found += rule.run(facts)
    mended = {finding.fault for finding in found if finding.fault and finding.edits}
    found = [finding for finding in found if finding.edits or finding.fault not in mended]
    kept = {
        (finding.rule, finding.file, finding.line, finding.what): _mendable(finding, facts.sources)
        for finding in reversed(found)
        if not is_silenced(finding, facts.sources.get(finding.file))
    }
    return tuple(sorted(kept.values(), key=lambda finding: finding.order))


def _mendable(finding: Finding, sources: Mapping[str, Source]) -> Finding:
    """The finding, without its edits where one is of a file that nobody may rewrite."""
    barred = any(edit.file in sources and not sources[edit.file].fixable for edit in finding.edits)
    return replace(finding, edits=()) if barred else finding


def _chooser(select: Sequence[str], ignore: Sequence[str]) -> Callable[[str], bool]:
    chosen, left = _names(select), _names(ignore)

    def wanted(number: str) -> bool:
        return (not chosen or number.startswith(chosen)) and not (left and number.startswith(left))

    return wanted


def _names(listed: Iterable[str]) -> tuple[str, ...]:
    """`NG001,DC` in any letter case; every part must be the beginning of a rule's number."""
    names = tuple(name.strip().upper() for text in listed for name in text.split(",") if name.strip())
    for name in names:
        if not any(rule.id.startswith(name) for rule in all_rules()):
            raise InputError(f"{name} is no rule and no family of rules; `atoll doctor --explain all` lists them.")
    return names


def find_rule(number: str) -> Rule:
    """The rule of this number; raises InputError for a number that none has."""
    for rule in all_rules():
        if rule.id == number.strip().upper():
            return rule
    near = _near_rules(number.strip().upper())
    said = f" Near it: {', '.join(near)}." if near else ""
    raise InputError(f"{number} is no rule.{said} `atoll doctor --explain all` lists them.")


def _near_rules(number: str) -> list[str]:
    """Rules with a like number; for a word, those that speak of it."""
    near = get_close_matches(number, [rule.id for rule in all_rules()], n=3, cutoff=0.6)
    told = [
        rule.id for rule in all_rules() if len(number) > 3 and number in f"{rule.page.what} {rule.page.fix}".upper()
    ]
    return near or told[:5]
