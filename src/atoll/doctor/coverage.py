"""What was looked at and what was not, in one line."""

from collections import Counter
from collections.abc import Mapping, Sequence

from atoll.doctor.facts import Facts
from atoll.doctor.finding import Unread
from atoll.doctor.sources import NAMED_BY_ANOTHER

_MOST_NAMES = 8  # of files that were not understood; the rest is counted
# Their services are counted, not the files.
_HOLD_SERVICES = {
    "Compose file", "docker inspect", "script", "README", "systemd unit", "quadlet", "Kubernetes manifest",
    "Helm values", "Dockerfile", NAMED_BY_ANOTHER,
}  # fmt: skip


def understood_all(facts: Facts) -> bool:
    """Whether nothing was left out that could matter: only then is `Nothing to report` the whole truth."""
    return bool(_counts(facts)) and not facts.not_understood


def coverage_line(facts: Facts, folder: str = "") -> str:
    """`Looked at 3 services, 1 nginx file; not understood: Makefile (Makefile); not entered: .git`.

    Args:
        facts: what was gathered.
        folder: the folder that files are named from.
    """
    parts = [f"Looked at {', '.join(_counts(facts)) or 'no file that the doctor knows'}"]
    if facts.not_understood:
        named = [_named(one, folder) for one in facts.not_understood]
        more = f" and {len(named) - _MOST_NAMES} more" if len(named) > _MOST_NAMES else ""
        parts.append(f"not understood: {', '.join(named[:_MOST_NAMES])}{more}")
    if facts.not_entered:
        parts.append(f"not entered: {', '.join(facts.not_entered)}")
    return "; ".join(parts) + "."


def _named(one: Unread, folder: str) -> str:
    path = one.file.removeprefix(f"{folder}/") if folder else one.file
    return f"{path} ({one.why.removeprefix(f'{one.file} ')})"


def _counts(facts: Facts) -> Sequence[str]:
    kinds = Counter(kind for kind in facts.looked_at.values() if kind not in _HOLD_SERVICES)
    counts = {"service": len(facts.services), **kinds}
    return [f"{count} {_plural(kind, count)}" for kind, count in counts.items() if count]


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 else f"{kind}s"


def to_plain(facts: Facts) -> Mapping[str, object]:
    """The fields `looked_at`, `not_understood` and `not_entered` of `doctor --json`."""
    return {
        "looked_at": sorted(facts.looked_at),
        "not_understood": [{"file": one.file, "why": one.why} for one in facts.not_understood],
        "not_entered": list(facts.not_entered),
    }
