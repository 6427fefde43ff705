"""A rule: a check with its number, its severity and its page.

The page is the check's docstring: what is wrong, then `Consequence:`, `Evidence:`, `Fix:`, and the files of an example
that `Fails:` and of one that `Passes:`, each in a fence that names the file. Both are run as tests.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

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


_SECTION = re.compile(r"^(Consequence|Evidence|Fix|Fails|Passes):[ \t]*", re.MULTILINE)
_FENCE = re.compile(r"^```(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_page(docstring: str) -> Page:
    """The parts of a check's docstring."""
    text = inspect.cleandoc(docstring)
    parts = _SECTION.split(text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    return Page(
        what=_one_line(parts[0]),
        consequence=_one_line(sections.get("Consequence", "")),
        evidence=_one_line(sections.get("Evidence", "")),
        fix=_one_line(sections.get("Fix", "")),
        fails=dict(_FENCE.findall(sections.get("Fails", ""))),
        passes=dict(_FENCE.findall(sections.get("Passes", ""))),
        remark=_one_line(sections.get("Passes", "").partition("```")[0]),
    )


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
        return read_page(self.check.__doc__ or "")

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
