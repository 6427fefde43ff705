"""What the plan is for: the traffic, the latency targets, what to favour."""

from enum import StrEnum

from pydantic import Field, model_validator

from atoll.documents import Document


class Favour(StrEnum):
    """What makes one layout better than another when both meet the targets."""

    ANSWER = "answer"  # the time until a whole answer is there, which for back-to-back users is also the throughput
    FIRST_TOKEN = "first_token"  # TTFT, 95th percentile  # noqa: S105


class Goal(Document):
    """Back-to-back users or a rate, lengths in tokens, targets in seconds (95th percentiles)."""

    users: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, gt=0)  # requests per second, all replicas together
    prompt: float = Field(gt=0)  # mean
    output: float = Field(gt=0)  # mean
    longest: int = Field(gt=0)  # tokens of the longest prompt and answer together
    shared_prefix: int = 0  # head of every prompt that is the same, so that a prefix cache serves it
    think_s: float = 0.0
    slo_ttft_s: float | None = None
    slo_tpot_s: float | None = None
    favour: Favour = Favour.ANSWER

    @model_validator(mode="after")
    def _users_or_rate(self) -> "Goal":
        if (self.users is None) == (self.rate is None):
            raise ValueError("give users (back to back) or a rate, one of the two")
        return self

    @property
    def load(self) -> str:
        """`30 users` or `2.5 requests/s`."""
        if self.users is not None:
            return f"{self.users} user{'s' if self.users != 1 else ''}"
        return f"{self.rate:g} requests/s"

    @property
    def amount(self) -> float:
        """Users, or requests per second."""
        return float(self.users if self.users is not None else self.rate or 0.0)

    @property
    def least(self) -> float:
        """The smallest load that is worth asking about: one user, or a hundredth of the rate."""
        return 1.0 if self.users is not None else self.amount / 100

    @property
    def has_targets(self) -> bool:
        return self.slo_ttft_s is not None or self.slo_tpot_s is not None

    @property
    def has_capacity(self) -> bool:
        """Whether there is a most that a layout carries: within the targets, or with the queue not growing for ever."""
        return self.has_targets or self.rate is not None

    def with_load(self, load: float) -> "Goal":
        """The same goal for other users (rounded) or another rate."""
        return self.replace(users=max(1, round(load))) if self.users is not None else self.replace(rate=load)
