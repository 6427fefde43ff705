"""How the run goes, in numbers for a screen: the last seconds, not the whole."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from atoll.load.client import Connection

_WINDOW_S = 10.0
_GAPS_A_LOOK = 256  # newest gaps that one look at one request adds


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaNow:
    in_flight: int
    requests: int  # ended ones
    tokens_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A look at a run under way. Percentiles are of the last ten seconds; None where there was nothing."""

    elapsed_s: float
    left_s: float | None  # of sending; 0 while the last answers end; None when a number of requests is the end
    sent: int
    ok: int
    failed: int
    cancelled: int
    in_flight: int
    backlog: int = 0
    users: int | None = None
    requests_wanted: int | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    itl_p50_s: float | None = None
    itl_p95_s: float | None = None
    chunks_per_s: float = 0.0
    requests_per_s: float = 0.0
    lag_s: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    replicas: dict[str, ReplicaNow] = field(default_factory=dict)


def join_progress(parts: Sequence[Progress]) -> Progress:
    """One look at a run of several processes. Their percentiles are not joined: of the medians the middle is taken, of
    the 95th percentiles the worst.
    """
    replicas: dict[str, ReplicaNow] = {}
    for name in sorted({name for part in parts for name in part.replicas}):
        known = [part.replicas[name] for part in parts if name in part.replicas]
        replicas[name] = ReplicaNow(
            in_flight=sum(one.in_flight for one in known),
            requests=sum(one.requests for one in known),
            tokens_per_s=sum(one.tokens_per_s for one in known),
        )
    return replace(
        parts[0],
        sent=sum(part.sent for part in parts),
        ok=sum(part.ok for part in parts),
        failed=sum(part.failed for part in parts),
        cancelled=sum(part.cancelled for part in parts),
        in_flight=sum(part.in_flight for part in parts),
        backlog=sum(part.backlog for part in parts),
        users=sum(part.users or 0 for part in parts) or None,
        requests_wanted=sum(part.requests_wanted or 0 for part in parts) or None,
        ttft_p50_s=_middle([part.ttft_p50_s for part in parts]),
        ttft_p95_s=_worst([part.ttft_p95_s for part in parts]),
        itl_p50_s=_middle([part.itl_p50_s for part in parts]),
        itl_p95_s=_worst([part.itl_p95_s for part in parts]),
        chunks_per_s=sum(part.chunks_per_s for part in parts),
        requests_per_s=sum(part.requests_per_s for part in parts),
        lag_s=max(part.lag_s for part in parts),
        errors=dict(sum((Counter(part.errors) for part in parts), Counter[str]())),
        replicas=replicas,
    )


def _middle(values: Sequence[float | None]) -> float | None:
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None


def _worst(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


class Window:
    """Gathers what the last seconds showed."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.replica_chunks: Counter[str] = Counter()
        self.replica_requests: Counter[str] = Counter()
        self.chunks = 0  # of requests that have ended
        self._firsts: deque[tuple[float, float]] = deque(maxlen=20_000)
        self._gaps: deque[tuple[float, np.ndarray]] = deque(maxlen=400)
        self._marks: deque[tuple[float, int, int, dict[str, int]]] = deque()

    def note_first(self, connection: Connection) -> None:
        start = connection.due if connection.due == connection.due else connection.sent
        self._firsts.append((connection.answer.now, connection.times[0] - start))

    def note_gaps(self, connection: Connection, now: float) -> None:
        """The newest gaps of one request under way."""
        times = connection.times[-_GAPS_A_LOOK:]
        if len(times) > 1:
            self._gaps.append((now, np.diff(times)))

    def note_end(self, connection: Connection, outcome: str, error: str | None) -> None:
        self.ended[outcome] += 1
        if error is not None and outcome == "failed":
            self.errors[error] += 1
        count = len(connection.times)
        self.chunks += count
        replica = connection.answer.replica
        if replica is not None:
            self.replica_chunks[replica] += count
            self.replica_requests[replica] += 1

    def look(self, now: float, busy: Iterable[Connection]) -> dict[str, object]:
        """The fields of a Progress that come from here."""
        chunks, in_flight, by_replica = self.chunks, Counter[str](), Counter(self.replica_chunks)
        for connection in busy:
            chunks += len(connection.times)
            if connection.answer.replica is not None:
                in_flight[connection.answer.replica] += 1
                by_replica[connection.answer.replica] += len(connection.times)
        ended = sum(self.ended.values())
        self._marks.append((now, chunks, ended, dict(by_replica)))
        while len(self._marks) > 2 and self._marks[0][0] < now - _WINDOW_S:
            self._marks.popleft()
        then, chunks_then, ended_then, replica_then = self._marks[0]
        span = max(now - then, 1e-9)
        firsts = [value for at, value in self._firsts if at > now - _WINDOW_S]
        gaps = [values for at, values in self._gaps if at > now - _WINDOW_S]
        ttft_p50, ttft_p95 = _percentiles(np.array(firsts))
        itl_p50, itl_p95 = _percentiles(np.concatenate(gaps) if gaps else np.empty(0))
        names = sorted({*by_replica, *in_flight})
        return {
            "ttft_p50_s": ttft_p50,
            "ttft_p95_s": ttft_p95,
            "itl_p50_s": itl_p50,
            "itl_p95_s": itl_p95,
            "chunks_per_s": (chunks - chunks_then) / span,
            "requests_per_s": (ended - ended_then) / span,
            "errors": dict(self.errors),
            "replicas": {
                name: ReplicaNow(
                    in_flight=in_flight[name],
                    requests=self.replica_requests[name],
                    tokens_per_s=(by_replica[name] - replica_then.get(name, 0)) / span,
                )
                for name in names
            },
        }


def _percentiles(values: np.ndarray) -> tuple[float | None, float | None]:
    if len(values) == 0:
        return None, None
    middle, high = np.quantile(values, [0.5, 0.95])
    return float(middle), float(high)
