"""What the users do: how many, how long their prompts and answers are, for how long."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from atoll.documents import Document
from atoll.units import parse_seconds


class Arrivals(StrEnum):
    CLOSED = "closed"  # `users` back to back: each sends the next request when the last answer has ended
    CONSTANT = "constant"  # open loop, evenly spaced at `rate`
    POISSON = "poisson"  # open loop, exponential gaps at `rate`
    BURSTY = "bursty"  # open loop, gamma gaps at `rate` with the given `burstiness`
    TRACE = "trace"  # due times and lengths come from a trace


class Lengths(Document):
    """A distribution of token counts; every draw is clipped to [low, high] and is at least 1."""

    kind: Literal["fixed", "uniform", "lognormal", "trace"] = "fixed"
    mean: float = Field(gt=0)
    sigma: float = Field(default=0.0, ge=0)  # lognormal: standard deviation of the logarithm
    low: int = Field(default=1, ge=1)
    high: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _number_is_fixed(cls, value: object) -> object:
        """`prompt: 1024` is short for `{kind: fixed, mean: 1024}`."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"kind": "fixed", "mean": value}
        return value

    @model_validator(mode="after")
    def _range_is_a_range(self) -> "Lengths":
        if self.high is not None and self.high < self.low:
            raise ValueError(f"high {self.high} is below low {self.low}")
        if self.kind == "uniform" and self.high is None:
            raise ValueError("uniform lengths need low and high")
        return self


class Workload(Document):
    """The load of one run. Closed loop when `users` is given, open loop when `rate` is."""

    users: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, gt=0)  # requests per second, all replicas together
    arrivals: Arrivals = Arrivals.CLOSED
    burstiness: float = Field(default=1.0, gt=0)  # shape of the gamma gaps; 1 is Poisson, smaller is burstier
    prompt: Lengths
    output: Lengths
    duration_s: float | None = Field(default=None, gt=0)  # no request is sent after this; sent ones may finish
    requests: int | None = Field(default=None, ge=1)  # ... or until so many are sent
    warmup_s: float = Field(default=0.0, ge=0)  # requests sent before this are kept but not summed up
    think_s: float = Field(default=0.0, ge=0)  # closed loop: pause between an answer and the next request
    ramp_s: float = Field(default=0.0, ge=0)  # closed loop: users start evenly spread over this time
    trace: str | None = None  # a trace's file, beside the study: lengths, and due times without users and rate
    shared_prefix_tokens: int = Field(default=0, ge=0)  # head of every prompt that is the same for all
    distinct_prompts: int | None = Field(default=None, ge=1)  # after so many, prompts come again in the same order
    turns: int = Field(default=1, ge=1)  # closed loop: a session of so many requests, each carrying the last ones
    seed: int = 1

    @field_validator("duration_s", "warmup_s", "think_s", "ramp_s", mode="before")
    @classmethod
    def _durations_may_be_words(cls, value: object) -> object:
        return parse_seconds(value) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _duration_without_unit_suffix(cls, value: object) -> object:
        """Study files write `duration: 10m`; inside, the field says its unit."""
        if not isinstance(value, dict):
            return value
        renamed = {"duration": "duration_s", "warmup": "warmup_s", "think": "think_s", "ramp": "ramp_s"}
        plain = {renamed.get(key, key): item for key, item in value.items()}
        if plain.get("rate") is not None and "arrivals" not in plain:
            plain["arrivals"] = Arrivals.POISSON
        return plain if plain.get("trace") is None else _traced(plain)

    @model_validator(mode="after")
    def _a_replayed_trace_has_its_own_lengths(self) -> "Workload":
        own = self.prompt.kind == self.output.kind == "trace"
        if self.trace is not None and self.arrivals is Arrivals.TRACE and not own:
            raise ValueError("a trace that is replayed brings its own lengths; leave out prompt and output")
        return self

    @model_validator(mode="after")
    def _loop_is_closed_or_open(self) -> "Workload":
        if self.arrivals is Arrivals.CLOSED and self.users is None:
            raise ValueError("say how many users, or give a rate")
        if self.arrivals in {Arrivals.CONSTANT, Arrivals.POISSON, Arrivals.BURSTY} and self.rate is None:
            raise ValueError(f"{self.arrivals} arrivals need a rate")
        if self.users is not None and self.rate is not None:
            raise ValueError("give users (closed loop) or a rate (open loop), not both")
        if self.distinct_prompts is not None and self.turns > 1:
            raise ValueError("distinct_prompts does not go with sessions (turns)")
        if self.duration_s is None and self.requests is None and self.arrivals is not Arrivals.TRACE:
            raise ValueError("say how long (duration) or how many requests")
        return self


def _traced(plain: dict[Any, Any]) -> dict[Any, Any]:
    """Lengths that are not given come from the trace, and due times where neither users nor a rate are given."""
    own: dict[Any, Any] = {"prompt": {"kind": "trace", "mean": 1}, "output": {"kind": "trace", "mean": 1}}
    if plain.get("users") is None and plain.get("rate") is None:
        own["arrivals"] = Arrivals.TRACE
    return own | plain
