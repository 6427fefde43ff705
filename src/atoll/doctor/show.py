"""Findings as people and other programs read them: text, GitHub's annotations, SARIF 2.1.0."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote

import atoll
from atoll.doctor.checks import all_rules
from atoll.doctor.finding import Edit, Finding, FixClass, Severity, Spot
from atoll.doctor.masks import mask_secrets
from atoll.doctor.mend import Mending
from atoll.doctor.rule import AREAS, Rule
from atoll.doctor.tree import Source


def show_text(
    findings: Sequence[Finding], sources: Mapping[str, Source], *, complete: bool = True
) -> Iterator[tuple[str, str]]:
    """(style, line) of a report: by file, each finding with its line; what follows and the fix are told once a rule.

    Args:
        findings: in the order in which they are told.
        sources: the files.
        complete: whether all that was given was understood.
    """
    told: set[tuple[str, str, str]] = set()
    for path, group in groupby(findings, key=lambda finding: finding.file):
        yield "bold", path
        for finding in group:
            yield from _show_one(finding, sources.get(path))
            lesson = (finding.rule, finding.why, finding.fix)
            if lesson not in told:
                yield "", f"      {finding.why}"
                yield "green", f"      fix: {finding.fix}"
                if finding.risk and finding.edits:
                    yield "", f"      what the fix changes: {finding.risk}"
            told.add(lesson)
        yield "", ""
    yield "bold", count_line(findings, complete=complete)


_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_MOST_PLACES = 8
_OFFERS = {
    FixClass.SAFE: "  (--fix mends it)",
    FixClass.RISKY: "  (--fix --risky mends it)",
    FixClass.BY_HAND: "",
}


def _show_one(finding: Finding, source: Source | None) -> Iterator[tuple[str, str]]:
    offer = _OFFERS[finding.fix_class]
    yield _STYLES[finding.severity], f"  {finding.line}: {finding.severity} {finding.rule}  {finding.what}{offer}"
    text = mask_secrets(source.line(finding.line)).strip() if source is not None else ""
    text = "" if "\0" in text else text
    if finding.parts:
        yield from (("", f"      {line}") for line in _habits(finding.parts))
    elif text:
        yield "dim", f"      | {text[:110]}"
    if len(finding.places) > 1 and not finding.parts:
        shown = [_place(spot, finding.file) for spot in finding.places[1:]]
        more = f" and {len(shown) - _MOST_PLACES} more" if len(shown) > _MOST_PLACES else ""
        yield "dim", f"      also at {', '.join(shown[:_MOST_PLACES])}{more}"


def _place(spot: Spot, file: str) -> str:
    return f"line {spot.line}" if spot.file == file else f"{spot.file}:{spot.line}"


def _habits(parts: Sequence[Finding]) -> Iterator[str]:
    """One line a rule: what it says, and how often."""
    for number, group in groupby(sorted(parts, key=lambda part: part.rule), key=lambda part: part.rule):
        mine = list(group)
        count = sum(len(part.places) for part in mine)
        often = f" ({count} places)" if count > 1 and len(mine) > 1 else ""
        yield f"{number}  {mine[0].what}{often}"


def count_line(findings: Sequence[Finding], *, complete: bool = True) -> str:
    """`3 errors, 1 warning, 2 infos`; `Nothing to report.` when there are none and all was understood."""
    if not findings:
        return "Nothing to report." if complete else "Nothing to report in what was understood."
    counts = [(severity, sum(finding.severity is severity for finding in findings)) for severity in Severity]
    return ", ".join(f"{count} {severity}{'s' if count != 1 else ''}" for severity, count in counts if count) + "."


def show_mending(mending: Mending, *, risky: bool) -> Iterator[str]:
    """What was put in with what consequence, what was tried and left out, and what waits for a word or a hand."""
    applied = Counter(finding.rule for finding in mending.applied)
    if applied:
        named = (f"{rule} x {count}" if count > 1 else rule for rule, count in sorted(applied.items()))
        yield f"Put in: {', '.join(named)}."
    changes = {finding.rule: finding.risk for finding in mending.applied if finding.risk}
    for rule, risk in sorted(changes.items()):
        yield f"  {rule} changes behaviour: {risk}"
    for one in mending.left_out:
        yield f"Left out: {one.finding.rule} in {one.finding.file}, line {one.finding.line}: {one.why}."
    tried = {one.finding.what for one in mending.left_out}
    waiting = Counter(
        finding.rule for finding in mending.left if finding.fix_class is FixClass.RISKY and finding.what not in tried
    )
    if waiting and not risky:
        listed = ", ".join(sorted(waiting))
        total = waiting.total()
        said = (
            "1 more fix changes behaviour and waits" if total == 1 else f"{total} more fixes change behaviour and wait"
        )
        yield f"{said} for --risky: {listed}."
    by_hand = sum(finding.fix_class is FixClass.BY_HAND for finding in mending.left)
    if by_hand:
        said = "1 finding needs" if by_hand == 1 else f"{by_hand} findings need"
        yield f"{said} a fact or a decision that the files do not hold: told, not mended."


_GITHUB = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def show_github(findings: Sequence[Finding], folder: str = "") -> Iterator[str]:
    """GitHub Actions' workflow commands, shown beside the lines of a pull request; files as seen from a folder."""
    for finding in findings:
        place = (
            f"file={_property(_seen_from(folder, finding.file))},line={finding.line},title={_property(finding.rule)}"
        )
        text = f"{finding.what}. {finding.why} Fix: {finding.fix}"
        yield f"::{_GITHUB[finding.severity]} {place}::{_message(text)}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def to_sarif(findings: Sequence[Finding], sources: Mapping[str, Source], folder: str = "") -> dict[str, Any]:
    """One SARIF 2.1.0 log (OASIS, 2020), with the rules' pages and the fixes.

    Args:
        findings: in the order in which they are told.
        sources: the files, for the fixes.
        folder: the folder that files are named from (an absolute path), so that a name given in full becomes a
            relative one, which code-scanning tools ask for.
    """
    used = [rule for rule in all_rules() if any(finding.rule == rule.id for finding in findings)]
    driver = {"name": "atoll doctor", "version": atoll.__version__, "rules": [_sarif_rule(rule) for rule in used]}
    places = {rule.id: place for place, rule in enumerate(used)}
    results = [_sarif_result(finding, places, sources, folder) for finding in findings]
    return {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}],
    }


_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    page = rule.page
    return {
        "id": rule.id,
        "shortDescription": {"text": page.what},
        "fullDescription": {"text": f"{page.what} {page.consequence}"},
        "help": {"text": f"{page.fix} Evidence: {page.evidence}"},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"area": rule.area},
    }


def _sarif_result(
    finding: Finding, places: Mapping[str, int], sources: Mapping[str, Source], folder: str
) -> dict[str, Any]:
    locations = [
        {"physicalLocation": {"artifactLocation": {"uri": _uri(spot.file, folder)}, "region": {"startLine": spot.line}}}
        for spot in finding.places
    ]
    made: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": places[finding.rule],
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.what}. {finding.why} Fix: {finding.fix}"},
        "locations": locations,
    }
    changes = [
        _sarif_change(_uri(path, folder), list(group))
        for path, group in groupby(finding.edits, key=lambda edit: edit.file)
    ]
    if changes and all(path in sources for path in {edit.file for edit in finding.edits}):
        made["fixes"] = [{"description": {"text": finding.fix}, "artifactChanges": changes}]
    return made


def _sarif_change(uri: str, edits: Sequence[Edit]) -> dict[str, Any]:
    replacements = [
        {
            "deletedRegion": {"charOffset": edit.start, "charLength": edit.end - edit.start},
            "insertedContent": {"text": edit.text},
        }
        for edit in edits
    ]
    return {"artifactLocation": {"uri": uri}, "replacements": replacements}


def _uri(path: str, folder: str) -> str:
    name = _seen_from(folder, path)
    quoted = quote(name, errors="surrogateescape")  # a file's name may hold any byte
    return f"file://{quoted}" if name.startswith("/") else quoted


def _seen_from(folder: str, path: str) -> str:
    return path.removeprefix(f"{folder.rstrip('/')}/") if folder else path


def show_page(rule: Rule) -> Iterator[str]:
    """A rule's page as Markdown."""
    page = rule.page
    yield f"## {rule.id}: {page.what}"
    yield ""
    yield f"{rule.severity}, {rule.area}"
    yield ""
    yield f"**If left:** {page.consequence}"
    yield ""
    yield f"**Fix:** {page.fix}"
    yield ""
    if rule.risk is not None:
        yield f"**Written by:** {f'`--fix --risky`. {rule.risk}' if rule.risk else '`--fix`.'}"
        yield ""
    yield f"**Evidence:** {page.evidence}"
    passing = f"and one that passes ({page.remark})" if page.remark else "and one that passes"
    for title, files in (("An example that fails", page.fails), (passing, page.passes)):
        yield ""
        yield f"{title}:"
        for name, text in files.items():
            yield ""
            yield f"```{name}"
            yield text.rstrip("\n")
            yield "```"


def show_handbook() -> Iterator[str]:
    """All rules as one Markdown page: a table of contents by area, then every page."""
    rules = all_rules()
    yield "# The doctor's rules"
    yield ""
    yield "Made from the rules themselves; both examples of every rule are run as tests."
    yield "[How to use the doctor](doctor.md)."
    for area, group in groupby(
        sorted(rules, key=lambda rule: list(AREAS).index(rule.id[:2])), key=lambda rule: rule.area
    ):
        yield ""
        yield f"**{area}**"
        yield ""
        yield "| rule | | what is wrong |"
        yield "|---|---|---|"
        for rule in group:
            yield f"| [{rule.id}](#{rule.id.lower()}) | {rule.severity} | {rule.page.what} |"
    for rule in rules:
        yield ""
        yield f'<a id="{rule.id.lower()}"></a>'
        yield ""
        yield from show_page(rule)
