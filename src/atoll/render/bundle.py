"""The files of a deployment, still as text."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Relative path -> text. `modes` holds permissions other than 644, such as `.env` at 600."""

    name: str
    files: dict[str, str]
    modes: dict[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Names which files made which numbers: sha256 over paths and texts in path order."""
        joined = hashlib.sha256()
        for path in sorted(self.files):
            joined.update(f"{path}\0{self.files[path]}\0".encode())
        return joined.hexdigest()
