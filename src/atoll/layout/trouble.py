"""What may go wrong in a run: replicas that die, and replicas that are slow. As options say it: `1@2m-3m`, `1=1.5`."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from atoll.documents import Document
from atoll.errors import InputError
from atoll.units import parse_seconds, show_seconds

_FAIL = re.compile(r"(\d+)@([^@-]+)(?:-([^@-]+))?")
_SLOW = re.compile(r"(\d+)=(\d+(?:\.\d+)?)")


class Failure(Document):
    """A replica dies at a time and is back, with an empty cache, at another. `1@2m-3m`, `1@2m`, or the fields."""

    replica: int = Field(ge=0)
    at_s: float = Field(ge=0)
    back_s: float | None = None  # None: never

    @model_validator(mode="before")
    @classmethod
    def _as_the_option_says_it(cls, value: object) -> object:
        if isinstance(value, str):
            return _checked(_failure_fields, value)
        return _with_seconds(value, {"at": "at_s", "back": "back_s"})

    @model_validator(mode="after")
    def _back_after_it_died(self) -> "Failure":
        if self.back_s is not None and self.back_s <= self.at_s:
            raise ValueError("it is back before it dies")
        return self

    @property
    def words(self) -> str:
        """`replica 1 dies at 120 s and is back at 180 s`."""
        back = "" if self.back_s is None else f" and is back at {show_seconds(self.back_s)}"
        return f"replica {self.replica} dies at {show_seconds(self.at_s)}{back}"


class Slowness(Document):
    """A replica whose steps take so many times as long. `1=1.5`, or the fields."""

    replica: int = Field(ge=0)
    factor: float = Field(gt=0)

    @model_validator(mode="before")
    @classmethod
    def _as_the_option_says_it(cls, value: object) -> object:
        return _checked(_slowness_fields, value) if isinstance(value, str) else value

    @property
    def words(self) -> str:
        return f"replica {self.replica} takes {self.factor:g} times as long"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """All that goes wrong in a run."""

    fail: tuple[Failure, ...] = ()
    slow: tuple[Slowness, ...] = ()

    @property
    def words(self) -> str:
        """`replica 1 dies at 120 s and is back at 180 s; replica 0 takes 1.5 times as long`; none when all is well."""
        return "; ".join([*(one.words for one in self.fail), *(one.words for one in self.slow)])


def _failure_fields(text: str) -> dict[str, Any]:
    match = _FAIL.fullmatch(text)
    if match is None:
        raise ValueError("write REPLICA@TIME or REPLICA@TIME-BACK, such as 1@2m-3m")
    back_s = None if match[3] is None else parse_seconds(match[3])
    return {"replica": int(match[1]), "at_s": parse_seconds(match[2]), "back_s": back_s}


def _slowness_fields(text: str) -> dict[str, Any]:
    match = _SLOW.fullmatch(text)
    if match is None or float(match[2]) == 0:
        raise ValueError("write REPLICA=FACTOR, such as 1=1.5")
    return {"replica": int(match[1]), "factor": float(match[2])}


def _with_seconds(value: object, names: dict[str, str]) -> object:
    """`at: 2m` is short for `at_s: 120`."""
    if not isinstance(value, dict):
        return value
    plain = {names.get(key, key): item for key, item in value.items()}
    return {
        key: _checked(parse_seconds, item) if key in names.values() and isinstance(item, str) else item
        for key, item in plain.items()
    }


def _checked(parse: Any, text: str) -> Any:
    """A duration that is none is named with the field that it stands in."""
    try:
        return parse(text)
    except InputError as error:
        raise ValueError(str(error)) from None
