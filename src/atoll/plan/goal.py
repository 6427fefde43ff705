"""What the plan is for: the load, the latency targets, what to favour."""

from enum import StrEnum
from functools import cached_property

from pydantic import model_validator

from atoll.documents import Document
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload


class Favour(StrEnum):
    """What makes one layout better than another when both meet the targets."""

    ANSWER = "answer"  # the time until a whole answer is there, which for back-to-back users is also the throughput
    FIRST_TOKEN = "first_token"  # TTFT, 95th percentile  # noqa: S105


class Goal(Document):
    """A load, which the layout is written with, targets (95th percentiles), and what counts beside them.

    The formula reckons with mean lengths; with turns, with those of a session's mean request.
    """

    workload: Workload
    slo: SLO = SLO()
    favour: Favour = Favour.ANSWER

    @model_validator(mode="after")
    def _users_or_a_rate(self) -> "Goal":
        if self.workload.users is None and self.workload.rate is None:
            raise ValueError("a plan is made for users (back to back) or a rate; a replayed trace has neither")
        return self

    @cached_property
    def users(self) -> int | None:
        return self.workload.users

    @cached_property
    def rate(self) -> float | None:
        """Requests per second, all replicas together."""
        return self.workload.rate

    @cached_property
    def prompt(self) -> float:
        """Tokens of the mean request's prompt, what came before it in its session included."""
        return self.workload.prompt.mean + self._history

    @cached_property
    def output(self) -> float:
        return self.workload.output.mean

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return self.workload.turns * (self.workload.prompt.longest + self.workload.output.longest)

    @cached_property
    def shared_prefix(self) -> int:
        """Tokens at the mean prompt's head that a prefix cache serves."""
        return max(self.workload.shared_prefix_tokens, round(self._history))

    @cached_property
    def _history(self) -> float:
        return (self.workload.turns - 1) / 2 * (self.workload.prompt.mean + self.workload.output.mean)

    @cached_property
    def think_s(self) -> float:
        return self.workload.think_s

    @property
    def load(self) -> str:
        """`30 users` or `2.5 requests/s`."""
        return self.workload.words

    @cached_property
    def amount(self) -> float:
        """Users, or requests per second."""
        return float(self.users if self.users is not None else self.rate or 0.0)

    @property
    def least(self) -> float:
        """The smallest load that is worth asking about: one user, or a hundredth of the rate."""
        return 1.0 if self.users is not None else self.amount / 100

    @property
    def has_targets(self) -> bool:
        return not self.slo.is_empty

    @property
    def has_capacity(self) -> bool:
        """Whether there is a most that a layout carries: within the targets, or with the queue not growing for ever."""
        return self.has_targets or self.rate is not None

    def with_load(self, load: float) -> "Goal":
        """The same goal for other users (rounded) or another rate."""
        changes = {"users": max(1, round(load))} if self.users is not None else {"rate": load}
        return self.replace(workload=self.workload.replace(**changes))
