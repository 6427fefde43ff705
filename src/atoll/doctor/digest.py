"""Fewer words: what holds for services that are alike is told once, and small habits are told together."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from atoll.doctor.finding import Edit, Finding, Severity, Spot

SUMMARY = "AT005"  # the rule that tells the habits together


def join_alike(findings: Sequence[Finding], names: Iterable[str]) -> tuple[Finding, ...]:
    """Findings that differ by the name of their service alone become one, with all places.

    Args:
        findings: in the order in which they are told.
        names: of the services.
    """
    marked = _marker(names)
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        said = finding.alike or marked(finding.what)[0]
        key = (finding.rule, finding.severity, said, marked(finding.why)[0], str(finding.fix_class), finding.risk or "")
        groups.setdefault(key, []).append(finding)
    return tuple(_joined(group, marked) for group in groups.values())


_Marker = Callable[[str], tuple[str, tuple[str, ...]]]  # text -> the same with a mark for each name, the names


def _marker(names: Iterable[str]) -> _Marker:
    known = sorted({name for name in names if name}, key=len, reverse=True)
    if not known:
        return lambda text: (text, ())
    pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, known))})(?![\w-])")

    def mark(text: str) -> tuple[str, tuple[str, ...]]:
        return pattern.sub("\0", text), tuple(pattern.findall(text))

    return mark


def _joined(group: Sequence[Finding], marked: _Marker) -> Finding:
    first = group[0]
    if len(group) == 1:
        return first
    mine = marked(first.what)[1]
    spots = tuple(Spot(file=one.file, line=one.line, name=_own_name(marked(one.what)[1], mine)) for one in group)
    others = [spot.name for spot in spots[1:] if spot.name] if mine else []
    if len(others) == len(spots) - 1:
        more = f" (and {_listed(others)})" if len(dict.fromkeys(others)) > 1 or others[0] != mine[0] else ""
    else:
        more = f" (in {len(group)} places)"
    edits = tuple(dict.fromkeys(edit for one in group for edit in one.edits))
    return replace(first, what=first.what + more, spots=spots, edits=_whole(group, edits))


def _own_name(names: Sequence[str], first: Sequence[str]) -> str:
    """The service that this one is about: the first that the first finding lacks or has elsewhere, else its first."""
    lacking = [name for name in names if name not in first]
    different = [name for name, other in zip(names, first, strict=False) if name != other]
    return next(iter(lacking or different or names), "")


def _whole(group: Sequence[Finding], edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    return edits if all(one.edits for one in group) else ()


def _listed(names: Sequence[str], most: int = 6) -> str:
    names = list(dict.fromkeys(names))
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def sum_up(findings: Sequence[Finding], habits: Iterable[str]) -> tuple[Finding, ...]:
    """The small habits (no limit of the log, no compile cache, ...) as one finding with its list, after the others.

    One alone stays what it is.
    """
    small = set(habits)
    parts = tuple(finding for finding in findings if finding.rule in small and finding.severity is not Severity.ERROR)
    if len(parts) < 2:
        return tuple(findings)
    first = min(parts, key=lambda finding: (finding.severity.rank, finding.file, finding.line))
    spots = tuple(dict.fromkeys(spot for part in parts for spot in part.places))
    numbers = sorted({part.rule for part in parts})
    summary = Finding(
        rule=SUMMARY,
        severity=Severity.INFO,
        file=first.file,
        line=first.line,
        what=f"{len(numbers)} small habits of long-running stacks are missing: {', '.join(numbers)}",
        why="None of them stops anything today; they count when something goes wrong.",
        fix="`--all` tells each with its place; `--fix` puts in those that cannot change what serves.",
        spots=spots,
        parts=parts,
    )
    return (*(finding for finding in findings if finding not in parts), summary)


def in_reading_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """File by file, the file with the worst finding first; in each the worst first, then down the page."""
    listed = sorted(findings, key=lambda finding: finding.order)
    worst: dict[str, int] = {}
    for finding in listed:
        worst[finding.file] = min(worst.get(finding.file, 9), finding.severity.rank)
    return tuple(sorted(listed, key=lambda finding: (worst[finding.file], finding.order)))
