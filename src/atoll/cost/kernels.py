"""Seconds of single kernels on one card."""

from dataclasses import dataclass

from atoll.cost.operations import ExpertBlock, Heads, WeightFormat, distinct_experts, weight_bytes_per_value
from atoll.inventory.catalog import GpuKind

LAUNCH_S = 2e-6  # start and drain of a kernel inside a CUDA graph


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """A roofline with the share of peak and of bandwidth that large kernels reach.

    The shares are those of H100 SXM in the vLLM 0.24 tables of the aiconfigurator-core 0.12.0 wheel: bf16 GEMM of
    8192 x 8192 x 8192 at 0.68 of peak, weights of 8192 x 8192 read for one token at 0.82 of bandwidth.
    """

    kind: GpuKind
    compute_share: float = 0.68
    memory_share: float = 0.82

    def _rate(self, name: str) -> float:
        if name in {WeightFormat.FP8, WeightFormat.FP8_BLOCK}:
            return (self.kind.fp8_flops or self.kind.bf16_flops) * self.compute_share
        if name == WeightFormat.INT8:
            return (self.kind.int8_ops or self.kind.bf16_flops) * self.compute_share
        return self.kind.bf16_flops * self.compute_share

    def gemm_seconds(self, tokens: int, columns: int, inner: int, name: str) -> float:
        """A matrix of columns x inner times `tokens` vectors; `name` is a WeightFormat."""
        flops = 2.0 * max(tokens, 64) * columns * inner  # a tile is 64 rows
        traffic = weight_bytes_per_value(name) * columns * inner + 2.0 * tokens * (columns + inner)
        return LAUNCH_S + max(flops / self._rate(name), traffic / (self.kind.memory_bytes_per_s * self.memory_share))

    def expert_seconds(self, tokens: int, block: ExpertBlock, name: str) -> float:
        """Both GEMMs of the routed experts of one layer, with the expected number of distinct experts read."""
        matrices = 3 if block.gated else 2
        size = matrices * block.hidden * block.intermediate / block.tensor_parallel
        read = distinct_experts(tokens, block.routed, block.active) * size * weight_bytes_per_value(name)
        flops = 2.0 * tokens * block.active * size
        return 4 * LAUNCH_S + max(
            flops / (self._rate(name) * 0.7), read / (self.kind.memory_bytes_per_s * self.memory_share)
        )

    def prefill_attention_seconds(self, tokens: int, past: int, heads: Heads, *, kv_bytes: float) -> float:
        """Causal attention of `tokens` new tokens after `past` cached ones, one layer."""
        seen = past + (tokens + 1) / 2
        if heads.window is not None:
            seen = min(seen, heads.window)
        flops = 4.0 * tokens * seen * heads.heads * heads.head_dim
        read = 2.0 * kv_bytes * (past + tokens) * heads.kv_heads * heads.head_dim
        return LAUNCH_S + max(
            flops / (self.kind.bf16_flops * 0.5), read / (self.kind.memory_bytes_per_s * self.memory_share)
        )

    def decode_attention_seconds(self, sequences: int, context: float, heads: Heads, *, kv_bytes: float) -> float:
        """One new token of each of `sequences`, `context` tokens long on average, one layer."""
        seen = min(context + 1, heads.window) if heads.window is not None else context + 1
        streams = 1.0 if heads.latent else 2.0
        read = streams * kv_bytes * sequences * seen * heads.kv_heads * heads.head_dim
        return 2 * LAUNCH_S + read / (self.kind.memory_bytes_per_s * self.memory_share)

    def elementwise_seconds(self, traffic: float, kernels: int) -> float:
        """Small kernels that only move `traffic` bytes."""
        return kernels * LAUNCH_S + traffic / (self.kind.memory_bytes_per_s * self.memory_share)
