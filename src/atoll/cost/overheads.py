"""What no kernel table tells: the host's part of a step, the way of a request to the engine, waiting for each other.

These few figures are the same for all models. They were fitted on the end-to-end rows that data/cost/overheads.json
names; the other rows of docs/validation.md were not used.
"""

import json
from functools import cache
from importlib import resources

from pydantic import Field

from atoll.cost.operations import WeightFormat
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
    expert_layer_s: float = Field(ge=0)  # top-k, sorting tokens by expert, summing up: of a layer with experts
    pcie_skew_s: dict[str, float]  # by ranks: the same as reduce_skew_s where the group reduces over PCIe
    eager_layer_s: float = Field(ge=0)  # of a layer's kernels, launched one by one: a step without graphs lasts so long
    state_token_s: float = Field(ge=0)  # a prompt's token in one layer that keeps a state, at state_bytes_per_s
    state_bytes_per_s: float = Field(gt=0)  # of the card that it was measured on; a faster one takes less
    pipeline_wait: float = Field(ge=0)  # of a round, beside it: micro-batches of unequal size wait for each other
    host_link_share: float = Field(gt=0)  # of PCIe's rate, through host memory
    host_link_floor_s: float = Field(ge=0)  # of one all-reduce of two GPUs through host memory
    fitted_on: tuple[str, ...] = ()

    def prefill(self, name: str) -> float:
        """For a GEMM format; `bf16` stands for those that were not fitted."""
        return self.prefill_factor.get(name, self.prefill_factor["bf16"])

    def expert_prefill(self, name: str) -> float:
        """Likewise for the routed experts."""
        return self.expert_prefill_factor.get(name, self.expert_prefill_factor["bf16"])

    def skew_s(self, ranks: int, *, over_pcie: bool = False) -> float:
        """For the nearest measured number of ranks; through host memory its own floor says it all."""
        skews = self.pcie_skew_s if over_pcie else self.reduce_skew_s
        known = min(skews, key=lambda size: (abs(int(size) - ranks), -int(size)))
        return skews[known]

    def expert_layer(self, name: str) -> float:
        """Seconds beside the experts' own kernels. mxfp4 experts have none: their rows show that nothing is missing."""
        return 0.0 if name == WeightFormat.MXFP4_WO else self.expert_layer_s


@cache
def shipped_overheads() -> Overheads:
    text = resources.files("atoll").joinpath("data/cost/overheads.json").read_text(encoding="utf-8")
    return Overheads.from_plain(json.loads(text), origin="data/cost/overheads.json")
