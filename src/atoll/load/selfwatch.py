"""The load generator watches itself: is it the client or the server?

Three things are measured while the load runs:

- how late the event loop is: a timer every 10 ms, and how much later than due it fires;
- how long the first token's bytes lay in the kernel before they were read (Linux' tcp_info, on a sample): this is the
  client's own share of TTFT, the part that the server did not cause;
- the CPU that the loop's thread used. A thread at 100 % of a core is the limit, whatever the server could do.
"""

import asyncio
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from atoll.documents import Document
from atoll.load.client import Connection
from atoll.traffic.record import Floats, Outcome, RecordTable

_PROBE_S = 0.010
_SAMPLES_PER_S = 500  # of tcp_info: about 1 us each
CPU_LIMIT = 0.90  # of one core: beyond it, answers wait for us and not we for them
HELD_LIMIT = 0.99
SHARE_LIMIT = 0.05  # of the median TTFT ...
LAG_FLOOR_S = 0.005  # ... but a few milliseconds are nobody's worry


class ClientReport(Document):
    """What the load generator says of itself. `limited` means: do not trust the TTFT."""

    limited: bool
    verdict: str
    users_asked: int | None = None
    users_held: float | None = None  # mean number of requests under way while all users were meant to be busy
    ttft_share_s: float | None = None  # mean time that first tokens waited for us
    loop_lag_mean_s: float = 0.0  # how long an arrival at any moment waits for the loop
    loop_lag_p99_s: float = 0.0
    loop_lag_max_s: float = 0.0
    cpu_share: float = 0.0  # of one core, the busiest process
    cpu_s: float = 0.0
    resent: int = 0  # requests sent once more, over a new connection, because the server had closed the old one
    request_bytes_mean: float | None = None  # of a request, head and body: what a door's buffers have to hold
    request_bytes_max: int | None = None
    held_back_sends: int = 0  # requests that the socket did not take at once
    late_sends_p99_s: float | None = None  # open loop: sent after their due time by this much
    backlog_max: int | None = None  # open loop: requests that were due and not yet sent, at the worst
    processes: int = 1
    notes: tuple[str, ...] = ()


class SelfWatch:
    """Runs beside the load, in the same loop."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.lags = array("d")
        self.read_lags = array("d")
        self.held_back = 0
        self.last_lag_s = 0.0
        self._now = now
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wall = self._cpu = 0.0
        self._next_sample = 0.0

    def start(self) -> None:
        self._wall, self._cpu = self._now(), time.thread_time()
        self._arm()

    def _arm(self) -> None:
        self._due = self._now() + _PROBE_S
        self._timer = asyncio.get_running_loop().call_later(_PROBE_S, self._probe)

    def _probe(self) -> None:
        lag = max(0.0, self._now() - self._due)
        self.lags.append(lag)
        self.last_lag_s = lag
        self._arm()

    def saw_first_token(self, connection: Connection) -> None:
        """Sample how long its bytes had been there."""
        arrived = connection.answer.now
        if arrived >= self._next_sample:
            self._next_sample = arrived + 1 / _SAMPLES_PER_S
            lag = connection.read_lag()
            if lag is not None:
                self.read_lags.append(lag)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wall, self._cpu = self._now() - self._wall, time.thread_time() - self._cpu

    def seen(self) -> "WatchSeen":
        """After `stop`."""
        return WatchSeen(
            lags=self.lags.tobytes(),
            read_lags=self.read_lags.tobytes(),
            cpu_s=self._cpu,
            wall_s=self._wall,
            held_back=self.held_back,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchSeen:
    """What a SelfWatch saw; it can be sent to another process."""

    lags: bytes  # float64
    read_lags: bytes
    cpu_s: float
    wall_s: float
    held_back: int

    @property
    def cpu_share(self) -> float:
        return self.cpu_s / self.wall_s if self.wall_s > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """How long something that comes at any moment waits for the loop."""

    mean_s: float
    p99_s: float
    max_s: float


def loop_waits(lags: Floats, wall_s: float) -> Waits:
    """From how late the probes were.

    A loop that is stuck for 2 s makes one late probe, but whatever comes in those 2 s waits, 1 s on average. So a lag L
    counts as waits evenly spread over 0 to L, and with the weight L. One stall of 2 s in a run of 100 s: the mean wait
    is 2 * 2 / 2 / 100 = 0.02 s, and 1 in 100 waits more than 1 s.
    """
    if len(lags) == 0 or wall_s <= 0:
        return Waits(mean_s=0.0, p99_s=0.0, max_s=0.0)
    low, high = 0.0, float(lags.max())
    for _ in range(40):
        middle = (low + high) / 2
        share = float(np.clip(lags - middle, 0.0, None).sum()) / wall_s
        low, high = (middle, high) if share > 0.01 else (low, middle)
    return Waits(mean_s=float((lags**2).sum()) / 2 / wall_s, p99_s=high, max_s=float(lags.max()))


def users_held(table: RecordTable, *, start_s: float, end_s: float) -> float | None:
    """Mean number of requests under way between two times."""
    if end_s <= start_s:
        return None
    done = np.where(np.isnan(table.done_s), end_s, table.done_s)
    inside = np.minimum(done, end_s) - np.maximum(table.sent_s, start_s)
    return float(np.clip(inside, 0.0, None).sum() / (end_s - start_s))


def judge(
    table: RecordTable,
    watches: Sequence[WatchSeen],
    *,
    users: int | None,
    held: float | None,
    backlog: int | None = None,
) -> ClientReport:
    """What the measures say, in one sentence and a flag.

    Args:
        table: the run's records.
        watches: what each process saw.
        users: that were asked for; None: an open loop.
        held: users whose request was under way, or who paused because the last one had failed; None: not known.
        backlog: of an open loop, at the worst.
    """
    waits = [loop_waits(np.frombuffer(watch.lags), watch.wall_s) for watch in watches]
    mean_wait = max(wait.mean_s for wait in waits)
    reads = np.concatenate(
        [np.frombuffer(watch.read_lags) for watch in watches if len(watch.read_lags)] or [np.empty(0)]
    )
    share = float(reads.mean()) if len(reads) else None
    cpu = max(watch.cpu_share for watch in watches)
    late = _late(table)
    reasons = list(_reasons(table, share=share, lag=mean_wait, cpu=cpu, users=users, held=held, late=late))
    answered = Outcome.OK in table.outcome
    return ClientReport(
        limited=answered and bool(reasons),
        verdict=_verdict(reasons, share) if answered else "Nothing was measured: not one request succeeded.",
        users_asked=users,
        users_held=held,
        ttft_share_s=share,
        loop_lag_mean_s=mean_wait,
        loop_lag_p99_s=max(wait.p99_s for wait in waits),
        loop_lag_max_s=max(wait.max_s for wait in waits),
        cpu_share=cpu,
        cpu_s=sum(watch.cpu_s for watch in watches),
        resent=int(table.resent.sum()),
        held_back_sends=sum(watch.held_back for watch in watches),
        late_sends_p99_s=late,
        backlog_max=backlog,
        processes=len(watches),
    )


def _late(table: RecordTable) -> float | None:
    late = (table.sent_s - table.due_s)[~np.isnan(table.due_s)]
    return float(np.quantile(late, 0.99)) if len(late) else None


def _reasons(
    table: RecordTable,
    *,
    share: float | None,
    lag: float,
    cpu: float,
    users: int | None,
    held: float | None,
    late: float | None,
) -> Iterator[str]:
    ttft = table.first_token_s - table.sent_s
    known = ttft[~np.isnan(ttft)]
    allowed = max(LAG_FLOOR_S, SHARE_LIMIT * float(np.median(known))) if len(known) else LAG_FLOOR_S
    if cpu > CPU_LIMIT:
        yield f"its loop used {cpu:.0%} of a core"
    if max(lag, share or 0.0) > allowed:
        yield f"first tokens waited {max(lag, share or 0.0) * 1e3:.0f} ms for it"
    if users and held is not None and held < HELD_LIMIT * users:
        yield f"it held {held:.1f} of {users} users"
    if late is not None and late > max(0.05, allowed):
        yield f"1 in 100 requests was sent {late * 1e3:.0f} ms late"


def _verdict(reasons: list[str], share: float | None) -> str:
    if not reasons:
        own = f"its own share of TTFT is {share * 1e3:.1f} ms" if share is not None else "it kept up"
        return f"The server is measured, not the client: {own}."
    return f"The client was a limit: {', '.join(reasons)}. Do not trust the TTFT; use more --workers."
