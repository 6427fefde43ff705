"""A rule: a check with its number, its severity and its page.

The page lies in rules/RULE/: page.md says what is wrong, then `Consequence:`, `Evidence:` and `Fix:`; fails/ and
passes/ hold the files of an example of each, `Passes:` in page.md a remark on the latter. Both are run as tests.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable

from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding, Severity

Check = Callable[[Facts], Iterable[Finding]]

AREAS = {
    "AT": "Files",
    "VL": "vLLM flags and environment",
    "TP": "GPU topology",
    "MF": "Model fit",
    "DC": "Compose",
    "NG": "nginx",
    "PX": "Other proxies",
    "MG": "MongoDB",
    "K8": "Kubernetes",
    "SE": "Security",
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """A rule's documentation, in its parts."""

    what: str
    consequence: str
    evidence: str
    fix: str
    fails: dict[str, str] = field(default_factory=dict)  # file name -> text
    passes: dict[str, str] = field(default_factory=dict)
    remark: str = ""  # on the example that passes


_SECTION = re.compile(r"^(Consequence|Evidence|Fix|Passes):[ \t]*", re.MULTILINE)
_PAGES = files("atoll.doctor") / "rules"


def read_page(number: str) -> Page:
    """The page of a rule, with its examples; raises FileNotFoundError where rules/RULE/page.md is missing."""
    folder = _PAGES / number
    parts = _SECTION.split((folder / "page.md").read_text(encoding="utf-8"))
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    return Page(
        what=_one_line(parts[0]),
        consequence=_one_line(sections.get("Consequence", "")),
        evidence=_one_line(sections.get("Evidence", "")),
        fix=_one_line(sections.get("Fix", "")),
        fails=dict(_example(folder / "fails")),
        passes=dict(_example(folder / "passes")),
        remark=_one_line(sections.get("Passes", "")),
    )


def _example(folder: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    """The files of an example by the names that they have for the doctor."""
    for one in sorted(folder.iterdir(), key=lambda one: one.name):
        if one.is_dir():
            yield from _example(one, f"{above}{one.name}/")
        else:
            yield f"{above}{one.name}", one.read_text(encoding="utf-8")


def _one_line(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True, kw_only=True)
class Rule:
    id: str
    severity: Severity
    check: Check
    risk: str | None = None  # what its fixes change of what serves; SAFE: nothing; None: it writes no fix
    habit: bool = False  # one of the many small things that are told together unless all is asked for

    @property
    def area(self) -> str:
        return AREAS[self.id[:2]]

    @cached_property
    def page(self) -> Page:
        return read_page(self.id)

    def run(self, facts: Facts) -> Iterator[Finding]:
        """The findings of this rule, its page's words put in where the check gives none of its own."""
        found = list(self.check(facts))
        page = self.page if found else None
        for finding in found:
            assert page is not None
            yield replace(
                finding,
                rule=self.id,
                severity=finding.weight or self.severity,
                why=finding.why or page.consequence,
                fix=finding.fix or page.fix,
                risk=self.risk if finding.risk is None else finding.risk,
                edits=() if self.risk is None and finding.risk is None else finding.edits,  # nobody judged it
                habit=self.habit,
            )


def rule(number: str, severity: Severity, *, risk: str | None = None, habit: bool = False) -> Callable[[Check], Rule]:
    """Make a rule of a check: `@rule("VL001", ERROR, risk=SAFE)`.

    Args:
        number: of the rule.
        severity: of its findings.
        risk: what its fixes change of what serves, as a sentence; SAFE for nothing. Without it no fix is written.
        habit: told together with others of its kind unless all is asked for.
    """
    return lambda check: Rule(id=number, severity=severity, check=check, risk=risk, habit=habit)


ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
SAFE = ""  # the risk of a fix that cannot change what serves
