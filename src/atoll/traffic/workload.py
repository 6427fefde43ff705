"""What the users do: how many, how long their prompts and answers are, for how long."""

import math
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from atoll.documents import Document
from atoll.traffic.slo import read_seconds

# The load that is meant where none is said, whatever the command. A rate takes the place of the users, a number of
# requests that of the time.
USERS, PROMPT_TOKENS, OUTPUT_TOKENS, DURATION_S = 30, 1024, 512, 600.0

MOST_REQUESTS = 10**7  # of one run
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Start(StrEnum):
    """When the users of a closed loop begin, where it is no duration."""

    SPREAD = "spread"  # spread over the time that one answer takes, so that they do not march in step
    AT_ONCE = "at_once"


class Arrivals(StrEnum):
    CLOSED = "closed"  # `users` back to back: each sends the next request when the last answer has ended
    CONSTANT = "constant"  # open loop, evenly spaced at `rate`
    POISSON = "poisson"  # open loop, exponential gaps at `rate`
    BURSTY = "bursty"  # open loop, gamma gaps at `rate` with the given `burstiness`
    TRACE = "trace"  # due times and lengths come from a trace


class Lengths(Document):
    """A distribution of token counts; every draw is clipped to [low, high] and is at least 1."""

    kind: Literal["fixed", "uniform", "lognormal", "trace"] = "fixed"
    mean: float = Field(gt=0, le=10**8)
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

    @property
    def words(self) -> str:
        """`512`, `200-2000`, or `lognormal:1024:0.8`, as people write it."""
        if self.kind == "uniform":
            return f"{self.low}-{self.high}"
        return f"{self.mean:g}" if self.kind == "fixed" else f"{self.kind}:{self.mean:g}:{self.sigma:g}"

    @property
    def longest(self) -> int:
        """Tokens of the longest draw; of a lognormal without `high`, the one that one draw in a thousand exceeds."""
        if self.high is not None:
            return self.high
        tail = math.exp(3.09 * self.sigma - self.sigma**2 / 2) if self.kind == "lognormal" else 1.0
        return max(self.low, math.ceil(self.mean * tail))


class Workload(Document):
    """The load of one run. Closed loop when `users` is given, open loop when `rate` is.

    What is not said is the default of all commands: 30 users, prompts of 1024 and answers of 512 tokens, ten minutes.
    """

    users: int | None = Field(default=None, ge=1, le=10**6)
    rate: float | None = Field(default=None, gt=0, le=10**6)  # requests per second, all replicas together
    arrivals: Arrivals = Arrivals.CLOSED
    burstiness: float = Field(default=1.0, gt=0)  # shape of the gamma gaps; 1 is Poisson, smaller is burstier
    prompt: Lengths = Lengths(mean=PROMPT_TOKENS)
    output: Lengths = Lengths(mean=OUTPUT_TOKENS)
    duration_s: float | None = Field(
        default=None, gt=0, le=366 * 86400
    )  # no request is sent after this; sent ones may finish
    requests: int | None = Field(default=None, ge=1, le=MOST_REQUESTS)  # ... or until so many are sent
    warmup_s: float | None = Field(default=None, ge=0)  # what is sent before is not summed up; None: see analyse.window
    think_s: float = Field(default=0.0, ge=0)  # closed loop: pause between an answer and the next request
    start: Start | Seconds = Start.SPREAD  # closed loop: users start evenly spread over this time
    trace: str | None = None  # a trace's file, beside the study: lengths, and due times without users and rate
    shared_prefix_tokens: int = Field(default=0, ge=0, le=10**8)  # head of every prompt that is the same for all
    distinct_prompts: int | None = Field(default=None, ge=1)  # after so many, prompts come again in the same order
    turns: int = Field(
        default=1, ge=1, le=10**5
    )  # closed loop: a session of so many requests, each carrying the last ones
    seed: int = 1

    @field_validator("duration_s", "warmup_s", "think_s", mode="before")
    @classmethod
    def _durations_may_be_words(cls, value: object) -> object:
        return read_seconds(value)

    @field_validator("start", mode="before")
    @classmethod
    def _a_start_is_a_word_or_a_duration(cls, value: object) -> object:
        value = value if isinstance(value, str) and value in set(Start) else read_seconds(value)
        return Start.AT_ONCE if isinstance(value, int | float) and value == 0 else value

    @field_serializer("prompt", "output", mode="wrap")
    def _fixed_lengths_are_a_number(self, lengths: Lengths, write: Any) -> Any:
        """`prompt: 1024`, as people write it."""
        if lengths != Lengths(mean=lengths.mean):
            return write(lengths)
        return int(lengths.mean) if lengths.mean == int(lengths.mean) else lengths.mean

    @model_validator(mode="before")
    @classmethod
    def _duration_without_unit_suffix(cls, value: object) -> object:
        """Files write `duration: 10m`; inside, the field says its unit. `ramp` is the older word for a timed start."""
        if not isinstance(value, dict):
            return value
        renamed = {"duration": "duration_s", "warmup": "warmup_s", "think": "think_s"}
        renamed |= {"ramp": "start", "ramp_s": "start"}
        plain = {renamed.get(key, key): item for key, item in value.items()}
        if len(plain) < len(value):
            raise ValueError("one thing is said twice; write one of duration and duration_s, of start and ramp, ...")
        if plain.get("rate") is not None and plain.get("arrivals") is None:
            plain["arrivals"] = Arrivals.POISSON
        if plain.get("trace") is not None:
            plain = _traced(plain)
        return _with_defaults(plain)

    @model_validator(mode="after")
    def _can_be_held(self) -> "Workload":
        """Every request is a row in memory."""
        if self.rate is not None and self.requests is None and self.rate * (self.duration_s or 0) > MOST_REQUESTS:
            raise ValueError(
                f"{self.rate:g} requests/s for {self.duration_s:g} s are more than {MOST_REQUESTS:,} requests"
            )
        return self

    @model_validator(mode="after")
    def _a_replayed_trace_has_its_own_lengths(self) -> "Workload":
        own = self.prompt.kind == self.output.kind == "trace"
        if self.trace is not None and self.arrivals is Arrivals.TRACE and not own:
            raise ValueError("a trace that is replayed brings its own lengths; leave out prompt and output")
        return self

    @model_validator(mode="after")
    def _loop_is_closed_or_open(self) -> "Workload":
        if self.arrivals is Arrivals.CLOSED and self.users is None:
            raise ValueError("closed arrivals are users back to back; leave out the rate, or the arrivals")
        if self.arrivals in {Arrivals.CONSTANT, Arrivals.POISSON, Arrivals.BURSTY} and self.rate is None:
            raise ValueError(f"{self.arrivals} arrivals need a rate")
        if self.users is not None and self.rate is not None:
            raise ValueError("give users (closed loop) or a rate (open loop), not both")
        if self.distinct_prompts is not None and self.turns > 1:
            raise ValueError("distinct_prompts does not go with sessions (turns)")
        return self

    @property
    def is_closed(self) -> bool:
        return self.arrivals is Arrivals.CLOSED

    @property
    def words(self) -> str:
        """`30 users` or `2.5 requests/s`."""
        if self.is_closed:
            return f"{self.users} user{'s' if self.users != 1 else ''}"
        return "a trace" if self.rate is None else f"{self.rate:g} requests/s"


def _traced(plain: dict[Any, Any]) -> dict[Any, Any]:
    """Lengths that are not given come from the trace, and due times where neither users nor a rate are given."""
    own: dict[Any, Any] = {"prompt": {"kind": "trace", "mean": 1}, "output": {"kind": "trace", "mean": 1}}
    if plain.get("users") is None and plain.get("rate") is None:
        own["arrivals"] = Arrivals.TRACE
    return own | plain


def _with_defaults(plain: dict[Any, Any]) -> dict[Any, Any]:
    """Users and a duration where neither they nor what takes their place is said."""
    replayed = plain.get("arrivals") == Arrivals.TRACE
    closed = plain.get("arrivals") in (None, Arrivals.CLOSED)
    if closed and plain.get("users") is None and plain.get("rate") is None:
        plain["users"] = USERS
    if plain.get("duration_s") is None and plain.get("requests") is None and not replayed:
        plain["duration_s"] = DURATION_S
    return plain
