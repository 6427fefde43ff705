"""Finding: how bad, what, where, why it matters, what to do; and the text edits that do it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    ERROR = "error"  # it will not start, loses data, or stands open
    WARNING = "warning"  # it works and will hurt under load or at the next change
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for an error, 2 for an info: the order in which people read."""
        return list(Severity).index(self)


class FixClass(StrEnum):
    """Who may put a fix in."""

    SAFE = "safe"  # it cannot change what serves: `--fix`
    RISKY = "risky"  # it changes behaviour, and says how: `--fix --risky`
    BY_HAND = "by_hand"  # it needs a fact or a decision that the files do not hold: said, never written


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
class Spot:
    """A line of a file, from 1; `name` is of the service there, where it is one of several."""

    file: str
    line: int
    name: str = ""

    def to_plain(self) -> dict[str, str | int]:
        return {"file": self.file, "line": self.line, **({"name": self.name} if self.name else {})}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong. Its rule adds what a check leaves out: number, severity and, mostly, why and risk."""

    file: str
    line: int  # from 1
    what: str
    fix: str = ""
    why: str = ""
    rule: str = ""
    severity: Severity = Severity.INFO
    edits: tuple[Edit, ...] = ()
    risk: str | None = None  # what the edits change of what serves; "" for nothing
    weight: Severity | None = None  # how bad it is here, where that is not what its rule says
    alike: str = ""  # findings of one rule that have this in common are told as one; "" leaves it to the words
    spots: tuple[Spot, ...] = ()  # all places, the first among them, where it stands for several findings
    parts: tuple["Finding", ...] = ()  # what a summary is made of
    habit: bool = False  # a small thing that stops nothing
    fault: str = ""  # the name of a fault that another rule sees from its other end: it is told once

    @property
    def fix_class(self) -> FixClass:
        if not self.edits:
            return FixClass.BY_HAND
        return FixClass.RISKY if self.risk else FixClass.SAFE

    @property
    def places(self) -> tuple[Spot, ...]:
        return self.spots or (Spot(file=self.file, line=self.line),)

    def to_plain(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "rule": self.rule,
            "severity": str(self.severity),
            "file": self.file,
            "line": self.line,
            "places": [spot.to_plain() for spot in self.places],
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            "fix_class": str(self.fix_class),
        }
        if self.fix_class is FixClass.RISKY:
            made["risk"] = self.risk
        if self.parts:
            made["parts"] = [part.to_plain() for part in self.parts]
        return made

    @property
    def order(self) -> tuple[str, int, int, str, str]:
        """By file, the worst first, then down the page."""
        return (self.file, self.severity.rank, self.line, self.rule, self.what)
