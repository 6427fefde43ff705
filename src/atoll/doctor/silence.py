"""`# atoll: ignore RULE reason`: a finding that somebody has looked at and stands by."""

import re
from collections.abc import Collection, Iterator

from atoll.doctor.finding import Finding
from atoll.doctor.tree import Source

_COMMENT = re.compile(r"#\s*atoll:\s*ignore\b[ \t]*(?P<said>.*)$")
_NAMES = re.compile(r"^(?P<names>[A-Za-z]\w*(?:\s*,\s*[A-Za-z]\w*)*)\s*[:-]*\s*(?P<reason>.*)$")


def is_silenced(finding: Finding, source: Source | None) -> bool:
    """Whether `# atoll: ignore RULE reason` stands on the finding's line, or alone on the lines right above it.

    On a file's first lines, before anything but comments, it counts for the whole file.
    """
    if source is None or "atoll:" not in source.text:
        return False
    return any(finding.rule.startswith(name) for line in _near_lines(source, finding.line) for name in _silenced(line))


def _near_lines(source: Source, number: int) -> Iterator[str]:
    yield source.line(number)
    above = number - 1
    while above > 0 and source.line(above).lstrip().startswith("#"):
        yield source.line(above)
        above -= 1
    for line in source.lines:
        if line.strip() and not line.lstrip().startswith("#"):
            return
        yield line


def _silenced(line: str) -> tuple[str, ...]:
    said = _COMMENT.search(line)
    names = _NAMES.match(said["said"]) if said is not None else None
    listed = re.split(r"\s*,\s*", names["names"].upper()) if names is not None else []
    return tuple(name for name in listed if re.fullmatch(r"[A-Z][A-Z0-9]\d{0,3}", name))


def careless_silences(source: Source, rules: Collection[str]) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of comments that name no rule, a rule that does not exist, or no reason."""
    if "atoll:" not in source.text:
        return
    for number, line in enumerate(source.lines, start=1):
        said = _COMMENT.search(line)
        problem = _problem(said["said"].strip(), rules) if said is not None else None
        if problem is not None:
            yield number, problem


def _problem(said: str, rules: Collection[str]) -> str | None:
    names = _NAMES.match(said)
    if names is None:
        return "this comment names no rule, so it silences nothing"
    listed = re.split(r"\s*,\s*", names["names"].upper())
    strange = [name for name in listed if not any(rule.startswith(name) for rule in rules)]
    if strange:
        return f"{', '.join(strange)} is no rule and no family of rules, so this silences nothing"
    return None if names["reason"] else f"nobody can tell later why {', '.join(listed)} is silenced here"
