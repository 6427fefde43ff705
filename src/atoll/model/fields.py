"""Reading numbers out of a config.json that somebody else wrote."""

from collections.abc import Mapping
from typing import Any

from atoll.errors import BadModel

_LARGEST = 10**9  # no dimension of a model comes near; it keeps an absurd file from making absurd sums


class Fields:
    """A mapping whose values are asked for by any of several names; a wrong value is a BadModel with its name."""

    def __init__(self, plain: Mapping[str, Any], *, origin: str) -> None:
        self.plain = plain
        self.origin = origin

    def find(self, *names: str) -> Any:
        """The first value that is there and not null."""
        for name in names:
            if self.plain.get(name) is not None:
                return self.plain[name]
        return None

    def has(self, *names: str) -> bool:
        return self.find(*names) is not None

    def whole(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`; without a default it has to be there.

        Raises:
            BadModel: it is missing, not a whole number, or absurdly small or large.
        """
        value = self.find(*names)
        if value is None:
            if default is None:
                raise BadModel(f"{self.origin}: {names[0]} is missing. Is this the config.json of a language model?")
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
            raise BadModel(
                f"{self.origin}: {self.named(*names)} is {_short(value)}; a whole number from {least} up is expected."
            )
        return value

    def number(self, *names: str, default: float) -> float:
        value = self.find(*names)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LARGEST:
            raise BadModel(f"{self.origin}: {self.named(*names)} is {_short(value)}; a positive number is expected.")
        return float(value)

    def flag(self, *names: str, default: bool = False) -> bool:
        value = self.find(*names)
        return value if isinstance(value, bool) else default

    def word(self, *names: str, default: str = "") -> str:
        value = self.find(*names)
        return value if isinstance(value, str) else default

    def part(self, *names: str) -> "Fields":
        """The mapping under one of the names; an empty one when there is none."""
        value = self.find(*names)
        return Fields(value if isinstance(value, dict) else {}, origin=self.origin)

    def words(self, *names: str) -> tuple[str, ...]:
        """The strings of a list; nothing when there is no list."""
        value = self.find(*names)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    def named(self, *names: str) -> str:
        """Which of the names the file uses."""
        return next((name for name in names if self.plain.get(name) is not None), names[0])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
