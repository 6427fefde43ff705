"""What no kernel table tells: the host's part of a step, the way of a request to the engine, waiting for each other.

These few figures are the same for all models. They were fitted on the end-to-end rows that data/cost/overheads.json
names; the other rows of docs/validation.md were not used.
"""

import json
from functools import cache
from importlib import resources

from pydantic import Field

from atoll.documents import Document


class Overheads(Document):
    """Seconds, and factors on what the kernel tables say."""

    source: str = ""
    host_step_s: float = Field(ge=0)  # scheduler, input tensors, sampling: once a step, after which the GPU waits
    host_sequence_s: float = Field(ge=0)  # ... and for each sequence
    early_sequence_s: float = Field(ge=0)  # ... before 0.10, whose input tensors were filled sequence by sequence
    async_step_s: float = Field(ge=0)  # the same with async scheduling: a step takes at least so long
    async_sequence_s: float = Field(ge=0)
    async_gap_s: float = Field(ge=0)  # ... and this is not hidden
    front_s: float = Field(ge=0)  # HTTP, tokeniser and queues before the first step, and the first token's way out
    front_token_s: float = Field(ge=0)  # ... and for each prompt token
    prefill_factor: dict[str, float]  # steps beyond the CUDA graphs: sustained clocks, gaps; by GEMM format
    expert_prefill_factor: dict[str, float]  # ... of the routed experts
    weight_only_factor: float = Field(gt=0)  # Marlin at 256 tokens and more, against the bf16 GEMM
    reduce_skew_s: dict[str, float]  # by ranks: GPUs reach an all-reduce one after the other
    host_link_share: float = Field(gt=0)  # of PCIe's rate, through host memory
    host_link_floor_s: float = Field(ge=0)  # of one all-reduce of two GPUs through host memory
    fitted_on: tuple[str, ...] = ()

    def prefill(self, name: str) -> float:
        """For a GEMM format; `bf16` stands for those that were not fitted."""
        return self.prefill_factor.get(name, self.prefill_factor["bf16"])

    def expert_prefill(self, name: str) -> float:
        """Likewise for the routed experts."""
        return self.expert_prefill_factor.get(name, self.expert_prefill_factor["bf16"])

    def skew_s(self, ranks: int) -> float:
        """For the nearest measured number of ranks."""
        known = min(self.reduce_skew_s, key=lambda size: (abs(int(size) - ranks), -int(size)))
        return self.reduce_skew_s[known]


@cache
def shipped_overheads() -> Overheads:
    text = resources.files("atoll").joinpath("data/cost/overheads.json").read_text(encoding="utf-8")
    return Overheads.from_plain(json.loads(text), origin="data/cost/overheads.json")
