"""A file by which a person changes the number of users of a run under way: `30`, `users: 30` or `{"users": 30}`."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from atoll.errors import InputError
from atoll.outside.files import read_text

MOST_USERS = 10**5
_USERS = re.compile(r"""\s*[{]?\s*["']?(?:users)?["']?\s*[:=]?\s*(\d{1,6})\s*[}]?\s*""")


@dataclass(slots=True)
class Room:
    """How many users may send now, and who waits for room; numbers are of the whole run."""

    known: int  # users that have been started
    users: int | None = None  # that may send; None: all that are known
    parked: set[int] = field(default_factory=set)  # users of this share for whom there is no room
    changes: list[tuple[float, int]] = field(default_factory=list)


class ControlFile:
    """Looked at twice a second; one that is not there, or says something else, changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: str | None = None

    def wanted_users(self) -> int | None:
        """The number that the file has come to say since the last look; None: nothing new."""
        try:
            text = read_text(self._path)
        except InputError:
            return None
        if text == self._seen:
            return None
        self._seen = text
        match = _USERS.fullmatch(text)
        return min(int(match[1]), MOST_USERS) if match is not None else None
