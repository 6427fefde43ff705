"""Seconds of single kernels on one card, from measured tables.

`data/cost/*.json` hold what `tools/fit_cost_model.py` kept of the kernel tables of six systems: ratios to a roofline on
a coarse grid for GEMMs, microseconds for attention and experts. A card that was not measured takes the table of its
nearest relative: a ratio is multiplied by the card's own roofline, a time by the ratio of rates.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import exp2, log2, sqrt
from typing import Any

from atoll.cost.operations import (
    ExpertBlock,
    Heads,
    WeightFormat,
    distinct_experts,
    weight_bytes_per_value,
)
from atoll.cost.overheads import Overheads, shipped_overheads
from atoll.inventory.catalog import GpuKind

BASE_S = 4e-6  # added to every roofline, as in tools/fit_cost_model.py, so that ratios of tiny kernels stay near one
SMALL_KERNEL_S = 2e-6  # an elementwise kernel inside a CUDA graph that has next to nothing to do
STREAM_SHARE = 0.85  # of bandwidth that elementwise kernels reach


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Ratios to a roofline over (tokens, columns, inner), interpolated in logarithms, held constant outside."""

    tokens: tuple[float, ...]
    columns: tuple[float, ...]
    inner: tuple[float, ...]
    logs: tuple[float, ...]  # log2 of the ratios, `inner` fastest

    @classmethod
    def from_plain(cls, plain: dict[str, Any], resolution: int = 64) -> "Grid":
        """From the shipped file: the axes, and round(resolution * log2(ratio)) at every point."""
        return cls(
            tokens=tuple(log2(value) for value in plain["tokens"]),
            columns=tuple(log2(value) for value in plain["columns"]),
            inner=tuple(log2(value) for value in plain["inner"]),
            logs=tuple(value / resolution for value in plain["ratio"]),
        )

    def ratio(self, tokens: float, columns: float, inner: float) -> float:
        """Measured time over roofline time."""
        depth, width = len(self.inner), len(self.columns)
        i, a = _place(self.tokens, log2(tokens))
        j, b = _place(self.columns, log2(columns))
        k, c = _place(self.inner, log2(inner))
        total = 0.0
        for di, wa in ((0, 1 - a), (1, a)):
            for dj, wb in ((0, 1 - b), (1, b)):
                at = ((i + di) * width + j + dj) * depth + k
                if wa * wb:
                    total += wa * wb * (self.logs[at] * (1 - c) + (self.logs[at + 1] * c if c else 0.0))
        return exp2(total)


def _place(axis: Sequence[float], value: float) -> tuple[int, float]:
    """The interval of a rising axis that holds the value and how far in it lies; clamped to the ends."""
    if value <= axis[0]:
        return 0, 0.0
    if value >= axis[-1]:
        return len(axis) - 1, 0.0
    at = bisect_right(axis, value) - 1
    return at, (value - axis[at]) / (axis[at + 1] - axis[at])


def _between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Log-log interpolation, constant outside."""
    at, share = _place([log2(v) for v in xs], log2(max(x, 1e-9)))
    if not share:
        return float(ys[at])
    return exp2(log2(ys[at]) * (1 - share) + log2(ys[at + 1]) * share)


@cache
def load_table(system: str) -> dict[str, Any]:
    """The shipped table of one measured system."""
    text = resources.files("atoll").joinpath(f"data/cost/{system}.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    grids = table.get("gemm", {})
    table["grids"] = {name: Grid.from_plain(plain, table["resolution"]) for name, plain in grids.items()}
    return table


# Which measured system stands for a card, and whether it was measured itself.
MEASURED = {
    "H100-SXM-80GB": "h100_sxm",
    "H200-SXM-141GB": "h200_sxm",
    "A100-SXM-80GB": "a100_sxm",
    "L40S-48GB": "l40s",
    "RTX-PRO-6000-SERVER-96GB": "rtx_pro_6000_server",
    "B200-180GB": "b200_sxm",
}
HBM_BYTES_PER_S = 3e12  # no GDDR card comes near


def choose_system(kind: GpuKind) -> str:
    """The measured system nearest to a card: itself, or one of its architecture with memory of the same sort."""
    if kind.name in MEASURED:
        return MEASURED[kind.name]
    if kind.architecture == "hopper":
        return "h200_sxm" if kind.memory_bytes_per_s > 4.2e12 else "h100_sxm"
    if kind.architecture == "blackwell":
        return "b200_sxm" if kind.memory_bytes_per_s > HBM_BYTES_PER_S else "rtx_pro_6000_server"
    return "l40s" if kind.architecture == "ada" else "a100_sxm"


class Kernels:
    """Kernel times of one card."""

    def __init__(self, kind: GpuKind, overheads: Overheads | None = None) -> None:
        self.overheads = overheads or shipped_overheads()
        self.system = choose_system(kind)
        self.table = load_table(self.system)
        self.measured = kind.name in MEASURED
        if self.measured:  # the ratios were taken beside the table's own rates
            kind = kind.replace(
                bf16_flops=self.table["peak_bf16"],
                fp8_flops=self.table["peak_fp8"],
                memory_bytes_per_s=self.table["bytes_per_s"],
            )
        elif is_geforce(kind):
            kind = kind.replace(memory_bytes_per_s=kind.memory_bytes_per_s * GEFORCE_MEMORY)
        self.kind = kind
        self._slower_compute = self.table["peak_bf16"] / kind.bf16_flops
        self._nominal = 2.0 if is_geforce(kind) else 1.0

    def _peak(self, name: str) -> float:
        kind = self.kind
        if name in {WeightFormat.FP8, WeightFormat.FP8_BLOCK}:
            return kind.fp8_flops or kind.bf16_flops
        if name == WeightFormat.INT8:
            return kind.int8_ops or kind.bf16_flops
        return kind.bf16_flops

    def _grid(self, name: str) -> Grid:
        grids: dict[str, Grid] = self.table["grids"]
        return grids.get(name) or grids.get(_RELATIVE.get(name, "")) or grids["bf16"]

    def gemm_seconds(self, tokens: int, columns: int, inner: int, name: str) -> float:
        """A matrix of columns x inner times `tokens` vectors; `name` is a WeightFormat."""
        activation = 1.0 if name in {WeightFormat.FP8, WeightFormat.FP8_BLOCK, WeightFormat.INT8} else 2.0
        traffic = weight_bytes_per_value(name) * columns * inner + activation * tokens * inner + 2.0 * tokens * columns
        flops, peak = 2.0 * tokens * columns * inner, self._peak(name)
        best = max(flops / (peak * self._nominal), traffic / self.kind.memory_bytes_per_s)
        seconds = (BASE_S + best) * self._grid(name).ratio(tokens, columns, inner)
        if name in _WEIGHT_ONLY:
            seconds *= self._weight_only(tokens)
        return float(max(seconds, flops / (GEFORCE_SHARE * peak))) if self._nominal > 1 else float(seconds)

    def _weight_only(self, tokens: int) -> float:
        """Marlin unpacks weights for every tile of tokens: free up to 32 tokens, dearest from 256 on."""
        ramp = min(1.0, max(0.0, log2(max(tokens, 1) / 32) / 3))
        return float(self.overheads.weight_only_factor**ramp)

    def expert_seconds(self, tokens: int, block: ExpertBlock, name: str) -> float:
        """The routed experts of one layer: the measured curve of the nearest shape, scaled by the two rooflines."""
        row = self._nearest_experts(block, name)
        split = min(row["splits"], key=lambda size: abs(log2(size / block.tensor_parallel)))
        start = row["splits"].index(split) * len(self.table["expert_tokens"])
        known: list[float] = self.table["expert_tokens"]
        measured = _between(known, row["us"][start : start + len(known)], min(tokens, known[-1])) * 1e-6
        measured *= max(1.0, tokens / known[-1])
        like = ExpertBlock(
            hidden=row["hidden"],
            intermediate=row["intermediate"],
            routed=row["routed"],
            active=row["active"],
            tensor_parallel=split,
            count=1,
            gated=True,
        )
        rates = (self.table["peak_bf16"], self.table["peak_fp8"] or self.table["peak_bf16"], self.table["bytes_per_s"])
        mine = (self.kind.bf16_flops, self.kind.fp8_flops or self.kind.bf16_flops, self.kind.memory_bytes_per_s)
        here = expert_roof(tokens, block, name, mine)
        return measured * here / expert_roof(tokens, like, row["format"], rates)

    def _nearest_experts(self, block: ExpertBlock, name: str) -> dict[str, Any]:
        def distance(row: dict[str, Any]) -> float:
            shape = abs(log2(row["hidden"] * row["intermediate"] / (block.hidden * block.intermediate)))
            spread = abs(log2(row["routed"] / block.routed)) + abs(log2(row["active"] / block.active))
            alike = row["format"] == name or row["format"] == _RELATIVE.get(name)
            other = 0.0 if alike else 4.0 if row["format"] == "bf16" else 8.0
            return shape + spread + other

        nearest: dict[str, Any] = min(self.table["experts"], key=distance)
        return nearest

    def prefill_attention_seconds(self, tokens: int, past: int, heads: Heads, *, kv_bytes: float) -> float:
        """Causal attention of `tokens` new tokens after `past` cached ones, one layer.

        A chunk takes as long as a whole prompt with as many (query, key) pairs: of sqrt(m^2 + 2 m p) tokens.
        2048 tokens after 6144 count like a prompt of 5419.
        """
        length = sqrt(tokens * tokens + 2.0 * tokens * past)
        dim = _nearest_dim(self.table["prefill"], heads.head_dim)
        seconds = self._prompt_seconds(f"{dim}-0", heads.heads, length) * heads.head_dim / dim
        if heads.window is not None and past + tokens > heads.window:
            # Beyond the window the pairs grow with the length, not with its square.
            pairs = min(1.0, tokens * heads.window / (length * length / 2))
            floor = self._prompt_seconds(f"{dim}-0", heads.heads, float(heads.window))
            seconds = max(floor, seconds * pairs) * WINDOW_PREFILL
        return seconds * (1.0 if kv_bytes >= 2 else FP8_PREFILL)

    def _prompt_seconds(self, key: str, heads: int, length: float) -> float:
        fitted = self.table["prefill"][key]
        lengths, counts = fitted["lengths"], fitted["heads"]
        row, share = _place([log2(v) for v in counts], log2(max(heads, 1)))
        rows = [fitted["us"][i * len(lengths) : (i + 1) * len(lengths)] for i in (row, min(row + 1, len(counts) - 1))]
        ends = [_between(lengths, us, min(length, lengths[-1])) for us in rows]
        us = exp2(log2(ends[0]) * (1 - share) + log2(ends[1]) * share)
        beyond = max(1.0, length / lengths[-1]) ** 2 * max(1.0, heads / counts[-1])
        floor = min(us, float(rows[0][0]))
        seconds: float = 1e-6 * (floor + (us * beyond - floor) * self._slower_compute)
        return seconds

    def decode_attention_seconds(self, sequences: int, context: float, heads: Heads, *, kv_bytes: float) -> float:
        """One new token of each of `sequences`, `context` tokens long on average, one layer.

        Floor of the kernel by streams (sequences x KV heads) plus the cache read at the share of bandwidth that so
        many streams reach. H100 SXM, 32 sequences of 4096, 8 heads of 128: 16.8 + 537 MB / (0.96 x 3.35 TB/s) = 184 µs
        (measured: 186).
        """
        if heads.latent:
            return self._latent_seconds(sequences, context, heads, kv_bytes=kv_bytes)
        streams = max(1, sequences * heads.kv_heads)
        tables = self.table["decode"]
        dim = min((int(key.split("-")[0]) for key in tables), key=lambda d: abs(log2(d / heads.head_dim)))
        fitted = tables.get(f"{dim}-fp8" if kv_bytes < 2 else f"{dim}-bf16") or tables[f"{dim}-bf16"]
        last = fitted["streams"][-1]
        floor = _between(fitted["streams"], fitted["floor_us"], streams) * max(1.0, streams / last) * 1e-6
        share = _between(fitted["streams"], fitted["share"], streams)
        seen = context + 1 if heads.window is None else min(context + 1, heads.window)
        read = 2.0 * kv_bytes * streams * seen * heads.head_dim
        return float(floor + read / (share * self.kind.memory_bytes_per_s))

    def _latent_seconds(self, sequences: int, context: float, heads: Heads, *, kv_bytes: float) -> float:
        """MLA: every head reads the same compressed vector; FlashMLA reaches 0.8 of bandwidth or 0.6 of peak."""
        read = kv_bytes * sequences * (context + 1) * heads.head_dim
        flops = 4.0 * sequences * (context + 1) * heads.head_dim * heads.heads
        return 15e-6 + max(read / (0.8 * self.kind.memory_bytes_per_s), flops / (0.6 * self.kind.bf16_flops))

    def elementwise_seconds(self, traffic: float, kernels: int) -> float:
        """Small kernels that only move `traffic` bytes."""
        return kernels * SMALL_KERNEL_S + traffic / (self.kind.memory_bytes_per_s * STREAM_SHARE)


WINDOW_PREFILL = 1.6  # H100 SXM, 64 heads of 64, 8192 tokens, window 128: 196 µs; by pairs alone 122
FP8_PREFILL = 1.1  # fp8 cache: H100 SXM, 32 heads of 128, 4096 tokens: 310 µs against 264
_WEIGHT_ONLY = {WeightFormat.INT8_WO, WeightFormat.INT4_WO}
# The measured L40S spends bandwidth on ECC, which GeForce does not have. Two RTX 4090 rows of 1 request a second
# (iog, 7B and 8B) tell how much: 19.3 ms a token for 16.1 GB of weights.
GEFORCE_MEMORY = 1.08
GEFORCE_SHARE = 0.95  # GeForce multiplies at half rate with fp32 sums, which its tensor cores then nearly reach


def is_geforce(kind: GpuKind) -> bool:
    """Consumer cards of Ampere and later, whose catalogue rate is the halved one."""
    return kind.name.startswith(("RTX-30", "RTX-40", "RTX-50")) and not kind.pcie_peer_to_peer


# Formats that were not measured on every card take the efficiency of a relative.
_RELATIVE = {
    WeightFormat.FP8: WeightFormat.FP8_BLOCK,
    WeightFormat.FP8_BLOCK: WeightFormat.FP8,
    WeightFormat.INT8: WeightFormat.FP8,
    WeightFormat.MXFP4_WO: WeightFormat.INT4_WO,
}


def _nearest_dim(tables: dict[str, Any], head_dim: int) -> int:
    known = [int(key.split("-")[0]) for key in tables if key.endswith("-0")]
    return min(known, key=lambda dim: abs(log2(dim / head_dim)))


def expert_roof(tokens: int, block: ExpertBlock, name: str, rates: tuple[float, float, float]) -> float:
    """Seconds of a perfect card for the routed experts of a layer: weights of the experts hit, or the flops."""
    size = (3 if block.gated else 2) * block.hidden * block.intermediate / block.tensor_parallel
    read = distinct_experts(tokens, block.routed, block.active) * size * weight_bytes_per_value(name)
    peak = rates[1] if name in {WeightFormat.FP8, WeightFormat.FP8_BLOCK} else rates[0]
    return 4 * BASE_S + max(2.0 * tokens * block.active * size / peak, read / rates[2])
