"""What a Sender has to know and what it gives back; both can be sent to another process."""

from dataclasses import dataclass
from pathlib import Path

from atoll.load.pace import LoadStep
from atoll.load.prompts import Prompts
from atoll.load.selfwatch import WatchSeen
from atoll.load.target import Endpoint, RequestOptions, Target
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One of several processes that carry out one load: it has every count-th user or request, from index on."""

    index: int = 0
    count: int = 1

    def number(self, sent: int) -> int:
        """The number, in the whole run, of the request that this share sends as its sent-th."""
        return sent * self.count + self.index

    def part_of(self, total: int | None) -> int | None:
        return None if total is None else len(range(self.index, total, self.count))

    @property
    def log_name(self) -> str:
        return "tail" if self.count == 1 else f"worker{self.index}-tail"


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """All that a Sender has to know."""

    target: Target
    endpoint: Endpoint
    options: RequestOptions
    model: str
    workload: Workload
    trace: tuple[TraceRow, ...]
    prompts: Prompts
    steps: tuple[LoadStep, ...] = ()
    drain_s: float | None = None
    folder: Path | None = None
    share: Share = Share()
    control: Path | None = None  # a file that says how many users there are to be; see load/control.py
    ids: str | None = None  # what the requests' ids begin with, before the number; None: none are sent


@dataclass(frozen=True, kw_only=True, slots=True)
class SenderResult:
    """What a Sender gave."""

    rows: bytes  # see rows.ROW
    tokens: bytes
    words: list[str]
    watch: WatchSeen
    origin: float
    all_started_s: float  # when each user had sent once
    last_sent_s: float
    backlog_max: int
    emulated: bool  # whether an answer said that it comes from an emulated engine
    stopped: str | None
    disk: str | None  # what the disk refused first, of the records; it may have taken it later
    paused_s: float  # users' pauses after failed requests, together
    all_bytes: int = 0  # of the requests, heads and all, that were sent for the first time
    most_bytes: int = 0  # of the longest
    changes: tuple[tuple[float, int], ...] = ()  # when the number of users was changed by hand, and to what
