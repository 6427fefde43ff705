"""Where it goes: Replica, Router, EngineFlags and the Layout they make, a document that is read, checked, written."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field, model_validator

from atoll.documents import Document, Name, OneLine
from atoll.inventory.box import Box
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload

ENGINE_VERSION = "0.32.0"  # the release of the engine that is meant where none is named


class Policy(StrEnum):
    """How requests are spread over replicas. All but the last are nginx's; that one is simulated only."""

    ROUND_ROBIN = "round_robin"
    LEAST_CONN = "least_conn"
    RANDOM_TWO = "random_two_least_conn"
    PER_ISLAND = "per_island"  # weighted round robin, an island's weight shared by its replicas
    SESSION_AFFINITY = "session_affinity"  # a session's requests to one replica, by a header or a cookie
    PREFIX_AFFINITY = "prefix_affinity"  # prompts with the same head to one replica
    SHORTEST_QUEUE = "shortest_queue_tokens"

    @property
    def renders(self) -> bool:
        """Whether nginx can do it."""
        return self is not Policy.SHORTEST_QUEUE

    @property
    def is_affine(self) -> bool:
        """Whether a request's replica is found by a hash of what it carries."""
        return self in {Policy.SESSION_AFFINITY, Policy.PREFIX_AFFINITY}


class EngineFlags(Document):
    """vLLM's options, by vLLM's names; None leaves the engine's own default."""

    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"  # or fp8
    max_model_len: int | None = Field(default=None, ge=1, le=10**9)
    max_num_seqs: int | None = Field(default=None, ge=1, le=10**6)
    max_num_batched_tokens: int | None = Field(default=None, ge=1, le=10**9)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    enforce_eager: bool = False
    enable_expert_parallel: bool | None = None  # whole experts on each GPU of a group, not a slice of every one
    max_num_queued_reqs: int | None = Field(default=None, ge=1)
    extra: tuple[str, ...] = ()  # further arguments, passed through as they are


class Replica(Document):
    """One engine pinned to its GPUs."""

    gpus: tuple[int, ...] = Field(min_length=1)
    tensor_parallel: int = Field(ge=1, le=1024)
    pipeline_parallel: int = Field(default=1, ge=1, le=1024)
    port: int | None = Field(default=None, ge=1, le=65535)  # None until the renderer gives it one
    host: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,253}$")  # as the door knows it; None: loopback

    @model_validator(mode="after")
    def _gpus_match_the_split(self) -> "Replica":
        if len(set(self.gpus)) != len(self.gpus):
            raise ValueError(f"GPU ids {list(self.gpus)} repeat one")
        if len(self.gpus) != self.tensor_parallel * self.pipeline_parallel:
            raise ValueError(
                f"{len(self.gpus)} GPUs do not make tensor_parallel {self.tensor_parallel}"
                f" x pipeline_parallel {self.pipeline_parallel}"
            )
        return self


class Router(Document):
    """How requests reach the replicas."""

    policy: Policy = Policy.LEAST_CONN
    weights: tuple[int, ...] | None = None  # one a replica; None: equal, or by island for per_island
    shared_zone: bool = True  # nginx workers share the counters
    workers: int = Field(default=1, ge=1, le=1024)  # matters only without a shared zone
    max_fails: int = Field(default=3, ge=0)
    fail_timeout_s: float = Field(default=5.0, gt=0)
    port: int = Field(default=8080, ge=1, le=65535)  # the only door
    client_streams: int | None = Field(default=None, ge=1, le=10**6)  # of one address at a time; None: render's
    client_requests_per_s: int | None = Field(default=None, ge=1, le=10**6)  # of one address; twice as many at once
    session_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,60}$")  # None: X-Session-Id
    session_cookie: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]{1,60}$")  # where the header is missing
    prefix_bytes: int | None = Field(default=None, ge=1, le=65535)  # of a prompt's head that are its key; None: 400
    hot_streams: int | None = Field(default=None, ge=1, le=10**6)  # of a replica; None: see layout.affinity


class Layout(Document):
    """Replicas pinned to the GPUs of a box, a router before them, and the engine's flags. Stands on its own."""

    noun: ClassVar[str] = "a layout"

    name: Name
    model: OneLine  # a name of the catalogue, a Hugging Face id or a directory
    box: Box
    replicas: tuple[Replica, ...] = Field(min_length=1, max_length=1024)
    router: Router = Router()
    flags: EngineFlags = EngineFlags()
    engine: str = "vllm"
    engine_version: str = ENGINE_VERSION
    workload: Workload | None = None  # the load that it was made for; commands that send or simulate one take it
    slo: SLO | None = None  # and the latencies that it was made to keep

    @model_validator(mode="after")
    def _replicas_stand_on_this_box(self) -> "Layout":
        known = set(self.box.indices)
        taken: set[int] = set()
        for number, replica in enumerate(self.replicas):
            for gpu in replica.gpus:
                if gpu not in known:
                    raise ValueError(
                        f"replicas[{number}].gpus names GPU {gpu}; this box has {_show_ids(known)}."
                        " Run `atoll inspect` to see them"
                    )
                if gpu in taken:
                    raise ValueError(f"replicas[{number}].gpus names GPU {gpu}, which another replica already has")
                taken.add(gpu)
        if self.router.weights is not None and len(self.router.weights) != len(self.replicas):
            raise ValueError(f"router.weights has {len(self.router.weights)} entries for {len(self.replicas)} replicas")
        return self

    @property
    def max_fails(self) -> int:
        """How many failures take a replica out; none where replicas refuse with 503 once their queue is full.

        Such a refusal counts as a failure: two full replicas with max_fails=3 gave five 503 and then 502 to everybody
        for the rest of fail_timeout, free or not (nginx 1.31.3). A dead replica is still passed over, by the retry.
        """
        return 0 if self.flags.max_num_queued_reqs is not None else self.router.max_fails

    @property
    def idle_gpus(self) -> tuple[int, ...]:
        taken = {gpu for replica in self.replicas for gpu in replica.gpus}
        return tuple(index for index in self.box.indices if index not in taken)


def _show_ids(ids: set[int]) -> str:
    ordered = sorted(ids)
    if len(ordered) > 1 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}-{ordered[-1]}"
    return ", ".join(map(str, ordered))
