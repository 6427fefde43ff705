"""What users want: the latencies that their requests should keep."""

from typing import Any

from pydantic import Field, field_validator, model_serializer, model_validator

from atoll.documents import Document
from atoll.errors import InputError
from atoll.units import parse_seconds


def read_seconds(value: object) -> object:
    """The seconds of a duration in words; what is no text stays. Raises ValueError, so a document names the field."""
    try:
        return parse_seconds(value) if isinstance(value, str) else value
    except InputError as error:
        raise ValueError(str(error)) from None


class SLO(Document):
    """Latency targets in seconds; None: none. Files write `{ttft: 1s, tpot: 50ms}`; a bare number is of seconds."""

    ttft_s: float | None = Field(default=None, gt=0)
    tpot_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _files_leave_the_unit_out(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {{"ttft": "ttft_s", "tpot": "tpot_s"}.get(key, key): item for key, item in value.items()}

    @field_validator("ttft_s", "tpot_s", mode="before")
    @classmethod
    def _targets_may_be_words(cls, value: object) -> object:
        return read_seconds(value)

    @model_serializer
    def _as_files_write_it(self) -> dict[str, Any]:
        targets = {"ttft": self.ttft_s, "tpot": self.tpot_s}
        return {name: seconds for name, seconds in targets.items() if seconds is not None}

    @property
    def is_empty(self) -> bool:
        return self.ttft_s is None and self.tpot_s is None
