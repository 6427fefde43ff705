"""Finding: how bad, what, why it matters, what to do; and the text edits that do it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"  # it will not start, loses data, or stands open
    WARNING = "warning"  # it works and will hurt under load or at the next change
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for an error, 2 for an info: the order in which people read."""
        return list(Severity).index(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """Characters `start` to `end` of a file become `text`; an insertion has start == end."""

    file: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Unread:
    """A file or folder that was not understood, and why."""

    file: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong. A check leaves out `rule`, `severity` and, mostly, `why`: its page supplies them."""

    file: str
    line: int  # from 1
    what: str
    fix: str = ""
    why: str = ""
    rule: str = ""
    severity: Severity = Severity.INFO
    edits: tuple[Edit, ...] = ()

    def to_plain(self) -> dict[str, str | int]:
        return {
            "rule": self.rule,
            "severity": str(self.severity),
            "file": self.file,
            "line": self.line,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
        }

    @property
    def order(self) -> tuple[str, int, int, str, str]:
        """By file, then down the page; the worst first on one line."""
        return (self.file, self.line, self.severity.rank, self.rule, self.what)
