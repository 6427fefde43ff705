"""What the records say: percentiles, throughput, goodput."""

from pydantic import Field

from atoll.documents import Document


class Distribution(Document):
    """Seconds. None where nothing was measured."""

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class RequestCounts(Document):
    """sent = ok + failed + cancelled, always."""

    sent: int
    ok: int
    failed: int
    cancelled: int


class ReplicaSummary(Document):
    """The part that one replica served."""

    replica: str
    requests: RequestCounts
    output_tokens_per_s: float
    ttft_s: Distribution
    e2e_s: Distribution


class Summary(Document):
    """A run in numbers, over the measured window (after warm-up). Percentiles are of requests that succeeded."""

    requests: RequestCounts
    duration_s: float
    ttft_s: Distribution
    itl_s: Distribution
    tpot_s: Distribution
    e2e_s: Distribution
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    errors: dict[str, int] = Field(default_factory=dict)
    counted_from_chunks: int = 0  # requests whose engine gave no usage
    per_replica: tuple[ReplicaSummary, ...] = ()
