"""Known GPU kinds, from data/gpus.toml."""

from pydantic import Field

from atoll.documents import Document


class GpuKind(Document):
    """What a maker's data sheet says of a card. Rates are dense (no sparsity), in one direction where it matters."""

    name: str  # H100-NVL-94GB
    aliases: tuple[str, ...] = ()  # what nvidia-smi and people write, matched without case, blanks and dashes
    architecture: str  # volta, ampere, ada, hopper, blackwell, turing
    compute_capability: str  # "9.0"
    memory_bytes: int = Field(gt=0)  # as the driver reports it
    memory_bytes_per_s: float = Field(gt=0)
    bf16_flops: float = Field(gt=0)  # fp16 where a card has no bf16 (V100)
    fp8_flops: float | None = None
    int8_ops: float | None = None
    sm_count: int | None = None
    nvlink_generation: int | None = None
    nvlinks: int = 0  # links of one card
    nvlink_bytes_per_s: float = 0.0  # of one link, one direction
    pcie_generation: int = 4
    pcie_lanes: int = 16
    pcie_peer_to_peer: bool = True  # False where the stock driver refuses P2P over PCIe (GeForce)
    power_watts: int | None = None
    source: str  # where these figures were read
