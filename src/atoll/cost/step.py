"""Seconds of one engine step."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log2
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atoll.cost.kernels import Kernels
from atoll.cost.links import AllReduce, Hop, group_reduce, tensor_groups
from atoll.cost.memory import kv_value_bytes
from atoll.cost.operations import WeightFormat, attention_heads, expert_block, layer_gemms, weight_format
from atoll.cost.overheads import Overheads, shipped_overheads
from atoll.cost.profile import MachineProfile
from atoll.engines.engine import StepFacts
from atoll.engines.spec import EngineSpec
from atoll.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBatch:
    """What one engine step computes: prompt chunks and decoding sequences.

    `prefills` holds (new tokens, tokens already in the KV cache) of each prompt chunk. `decodes` sequences get one
    new token each; `decode_context` is the sum of their context lengths, in tokens, the new one not counted.
    """

    prefills: tuple[tuple[int, int], ...] = ()
    decodes: int = 0
    decode_context: int = 0


class StepTimer(Protocol):
    """Seconds of engine steps of one replica. cost.step.StepModel is the real one; tests hand in simple ones."""

    def seconds(self, batch: StepBatch) -> float:
        """Seconds from the start of this step to the start of the next."""
        ...

    def decode_seconds(self, decodes: int, decode_context: int, steps: int) -> NDArray[np.float64]:
        """Seconds of `steps` successive decode-only steps in which every sequence grows by one token a step.

        Element i equals `seconds(StepBatch(decodes=decodes, decode_context=decode_context + i * decodes))` exactly,
        but all are made in one go.
        """
        ...

    def front_seconds(self, prompt_tokens: float) -> float:
        """Seconds from a request's arrival at the API server until the scheduler has it."""
        ...


# Mean context lengths at which decode attention is evaluated; straight lines between them.
CONTEXT_KNOTS = (0, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


class PieceLines:
    """Seconds against total context: `base[j] + slope[j] * context` from `start[j]` on."""

    __slots__ = ("base", "slope", "start")

    def __init__(self, start: list[float], base: list[float], slope: list[float]) -> None:
        self.start, self.base, self.slope = start, base, slope

    @classmethod
    def through(cls, knots: Sequence[float], values: Sequence[float]) -> "PieceLines":
        """Straight lines through the points, the last one extended; the first holds below the first knot."""
        slopes = [(t - s) / (b - a) for (a, s), (b, t) in pairwise(zip(knots, values, strict=True))]
        bases = [value - slope * knot for knot, value, slope in zip(knots, values, slopes, strict=False)]
        return cls(list(knots[:-1]), bases, slopes)

    def at(self, context: float) -> float:
        """Seconds at one total context."""
        j = bisect_right(self.start, context) - 1 if len(self.start) > 1 else 0
        return self.base[max(j, 0)] + self.slope[max(j, 0)] * context

    def run(self, context: int, rise: int, steps: int) -> NDArray[np.float64]:
        """Seconds at context, context + rise, ...; element i is exactly `at(context + i * rise)`."""
        contexts = np.arange(steps, dtype=np.float64)
        contexts *= rise
        contexts += context
        first = max(bisect_right(self.start, context) - 1, 0)
        last = max(bisect_right(self.start, context + rise * (steps - 1)) - 1, 0)
        if first == last:
            contexts *= self.slope[first]
            contexts += self.base[first]
            return contexts
        place = np.searchsorted(np.asarray(self.start[1:]), contexts, side="right")
        return np.asarray(self.base)[place] + np.asarray(self.slope)[place] * contexts

    def shift(self, seconds: float) -> "PieceLines":
        """The same lines, `seconds` higher."""
        return PieceLines(self.start, [base + seconds for base in self.base], self.slope)

    def at_least(self, floor: float) -> "PieceLines":
        """These lines where they are above `floor`, the floor elsewhere. The lines must rise."""
        start: list[float] = []
        base: list[float] = []
        slope: list[float] = []
        ends = [*self.start[1:], float("inf")]
        for a, end, height, rise in zip(self.start, ends, self.base, self.slope, strict=True):
            crossing = (floor - height) / rise if rise > 0 else (a if height >= floor else end)
            if crossing > a:
                start, base, slope = [*start, a], [*base, floor], [*slope, 0.0]
            if crossing < end:
                start, base, slope = [*start, max(a, crossing)], [*base, height], [*slope, rise]
        return PieceLines(start, base, slope)


@dataclass(frozen=True, kw_only=True, slots=True)
class HostCost:
    """The CPU's part of a step: scheduler, input tensors, sampling, handing tokens out."""

    step_s: float
    sequence_s: float
    gap_s: float  # never hidden
    hidden: bool  # async scheduling: it runs while the GPU computes

    def seconds(self, sequences: int) -> float:
        return self.step_s + self.sequence_s * sequences

    def exposed(self, gpu_s: float, sequences: int) -> float:
        """Seconds of the whole step."""
        host = self.step_s + self.sequence_s * sequences
        return max(gpu_s, host) + self.gap_s if self.hidden else gpu_s + host

    def expose_lines(self, gpu: PieceLines, sequences: int) -> PieceLines:
        host = self.seconds(sequences)
        return gpu.at_least(host).shift(self.gap_s) if self.hidden else gpu.shift(host)


def host_cost(steps: StepFacts, profile: MachineProfile, overheads: Overheads) -> HostCost:
    """The host's part as the engine runs its steps, or the machine's own when it was calibrated."""
    hidden = steps.async_scheduling
    step = overheads.async_step_s if hidden else overheads.host_step_s
    blocking = overheads.early_sequence_s if steps.early_inputs else overheads.host_sequence_s
    sequence = overheads.async_sequence_s if hidden else blocking
    return HostCost(
        step_s=step if profile.host_step_s is None else profile.host_step_s,
        sequence_s=sequence if profile.host_sequence_s is None else profile.host_sequence_s,
        gap_s=overheads.async_gap_s if hidden else 0.0,
        hidden=hidden,
    )


def _slowest_reduce(spec: EngineSpec, profile: MachineProfile) -> AllReduce:
    """The all-reduce of the tensor-parallel group with the slowest links; stages of a pipeline wait for each other."""
    groups = tensor_groups(spec) if spec.box is not None else ((),)
    reduces = [group_reduce(spec, group, measured=profile.reduce_curve(group)) for group in groups]
    return max(reduces, key=lambda reduce: reduce.seconds(2**20))


_OVER_PCIE = {Hop.PCIE, Hop.PCIE_FAR}


class StepModel:
    """Seconds of engine steps of one replica, operation by operation.

    Decode-only steps are straight lines in the total context between knots, one set of lines for each number of
    sequences, so that many successive steps are evaluated in one go and give exactly what one by one gives.
    """

    def __init__(
        self, spec: EngineSpec, *, profile: MachineProfile | None = None, overheads: Overheads | None = None
    ) -> None:
        """Make a timer.

        Args:
            spec: the replica, its settings filled in.
            profile: what calibration found on this machine.
            overheads: other ones than those shipped; for fitting them.

        Raises:
            InputError: the profile is a line that was measured with another tensor-parallel size.
        """
        self.overheads = overheads or shipped_overheads()
        card, kind, tensor_parallel = spec.card, spec.kind, spec.tensor_parallel
        if not kind.timed:
            raise InputError(f"{kind.name}: its memory is known and no step time; `atoll model` says what fits on it.")
        self.card, self.kind = card, kind
        self.tensor_parallel, self.pipeline_parallel = tensor_parallel, spec.pipeline_parallel
        self.profile = profile or MachineProfile()
        self._line = self.profile.line
        if self._line is not None and self._line.tensor_parallel != tensor_parallel:
            raise InputError(
                f"The machine profile {self.profile.name} was measured with tensor_parallel"
                f" {self._line.tensor_parallel} on a card that atoll does not know, and says nothing about"
                f" {tensor_parallel}; calibrate an engine of that size."
            )
        self.reduce = _slowest_reduce(spec, self.profile)
        self.kernels = Kernels(kind, self.overheads)
        self.host = host_cost(spec.steps, self.profile, self.overheads)
        self._format = weight_format(card.quantisation, override=spec.quantization, has_fp8=kind.fp8_flops is not None)
        self._kv_bytes = kv_value_bytes(card, spec.kv_cache_dtype)
        self._gemms = layer_gemms(card, tensor_parallel)
        self._experts = expert_block(card, tensor_parallel)
        self._heads = attention_heads(card, tensor_parallel)
        self._graph_sizes = spec.steps.graph_sizes
        self._launching_s = card.layers * self.overheads.eager_layer_s if spec.enforce_eager else 0.0
        self._waiting = 1.0 + self.overheads.pipeline_wait if spec.pipeline_parallel > 1 else 1.0
        self._state_s = self._state_token_seconds()
        group = self.reduce.group  # between NVLink pairs, which have a curve of their own, nothing more was seen
        over_pcie = group.hop in _OVER_PCIE and not group.mixed
        self._skew_s = self.overheads.skew_s(tensor_parallel, over_pcie=over_pcie)
        self._dense: dict[int, float] = {}
        self._head: dict[int, float] = {}
        self._chunks: dict[tuple[int, int], float] = {}
        self._attention_lines: dict[int, PieceLines] = {}
        self._decode_lines: dict[int, PieceLines] = {}

    def seconds(self, batch: StepBatch) -> float:
        """Seconds from the start of this step to the start of the next."""
        if not batch.prefills:
            return self.decode_lines(batch.decodes).at(batch.decode_context) if batch.decodes else self.host.step_s
        if self._line is not None:
            decode = self.decode_lines(batch.decodes).at(batch.decode_context)
            return decode + sum(self._line.prompt_seconds(new, past) for new, past in batch.prefills)
        return self.host.exposed(self._gpu_seconds(batch), batch.decodes + len(batch.prefills))

    def decode_seconds(self, decodes: int, decode_context: int, steps: int) -> NDArray[np.float64]:
        """Seconds of `steps` successive decode-only steps; shape (steps,)."""
        return self.decode_lines(decodes).run(decode_context, decodes, steps)

    def decode_lines(self, decodes: int) -> PieceLines:
        """Seconds of a decode-only step of so many sequences against their total context."""
        lines = self._decode_lines.get(decodes)
        if lines is None:
            if self._line is not None:
                fixed = self._line.step_s + self._line.per_decode_s * decodes
                lines = PieceLines([0.0], [fixed], [self._line.per_context_token_s])
                self._decode_lines[decodes] = lines
                return lines
            fixed = self._fixed_seconds(decodes, decodes)
            lines = self._attention_line(decodes).shift(fixed)
            lines = lines.at_least(self._launching_s) if self._launching_s else lines
            lines = self._decode_lines[decodes] = self.host.expose_lines(lines, decodes)
        return lines

    def front_seconds(self, prompt_tokens: float) -> float:
        """Seconds that a request spends outside the engine's steps: HTTP, tokeniser, and its first token's way out."""
        if self.profile.front_s is not None:
            return self.profile.front_s
        return self.overheads.front_s + self.overheads.front_token_s * prompt_tokens

    def breakdown(self, batch: StepBatch) -> dict[str, float]:
        """Seconds by operation; they add up to `seconds(batch)`."""
        if self._line is not None:
            return {"measured": self.seconds(batch)}
        tokens = batch.decodes + sum(new for new, _ in batch.prefills)
        sequences = batch.decodes + len(batch.prefills)
        if not tokens:
            return {"host": self.host.step_s}
        parts = self._dense_parts(self._padded(tokens))
        parts["lm_head"] = self._head_seconds(sequences)
        if batch.prefills:
            parts["attention_prefill"] = sum(self._chunk_seconds(new, past) for new, past in batch.prefills)
        if batch.decodes:
            parts["attention_decode"] = self._attention_line(batch.decodes).at(batch.decode_context)
        parts["host"] = self.seconds(batch) - sum(parts.values())
        return parts

    def _gpu_seconds(self, batch: StepBatch) -> float:
        tokens = batch.decodes
        attention = 0.0
        for new, past in batch.prefills:
            tokens += new
            attention += self._chunk_seconds(new, past)
        if batch.decodes:
            attention += self._attention_line(batch.decodes).at(batch.decode_context)
        return max(self._fixed_seconds(tokens, batch.decodes + len(batch.prefills)) + attention, self._launching_s)

    def _fixed_seconds(self, tokens: int, sequences: int) -> float:
        """Everything that does not depend on context lengths."""
        padded = self._padded(tokens)
        dense = self._dense.get(padded)
        if dense is None:
            dense = self._dense[padded] = sum(self._dense_parts(padded).values())
        return dense + self._head_seconds(sequences)

    def _padded(self, tokens: int) -> int:
        """Tokens after CUDA-graph padding; beyond the graphs, full tiles of 64 rows."""
        sizes = self._graph_sizes
        if sizes and tokens <= sizes[-1]:
            return sizes[bisect_left(sizes, tokens)]
        return tokens if tokens <= 64 else -(-tokens // 64) * 64

    def _dense_parts(self, tokens: int) -> dict[str, float]:
        share = ceil(tokens / self.pipeline_parallel)
        scale = self._dense_scale(share)
        eager, experts = self._eager_factors(tokens)
        parts: dict[str, float] = {}
        for gemm in self._gemms:
            name = self._format if gemm.quantised else WeightFormat.BF16
            parts[gemm.name] = (
                scale * eager * gemm.count * self.kernels.gemm_seconds(share, gemm.columns, gemm.inner, name)
            )
        if self._experts is not None:
            one = self.kernels.expert_seconds(share, self._experts, self._format)
            parts["experts"] = scale * experts * self._experts.count * one
            parts["routing"] = self._experts.count * self.overheads.expert_layer(self._format)
        parts["elementwise"] = eager * self._elementwise_seconds(share)
        if self.tensor_parallel > 1:
            parts["all_reduce"] = self._reduce_seconds(share)
        if self.pipeline_parallel > 1:
            parts["send"] = (self.pipeline_parallel - 1) * self._send_seconds(share)
            parts = {name: self._waiting * seconds for name, seconds in parts.items()}
        return parts

    def _state_token_seconds(self) -> float:
        """Of one prompt token in all layers that keep a state (gated delta net): its heads are split."""
        layers = self.card.attention.linear_layers
        faster = min(1.0, self.overheads.state_bytes_per_s / self.kind.memory_bytes_per_s)
        return layers * faster * self.overheads.state_token_s / self.tensor_parallel

    def _eager_factors(self, tokens: int) -> tuple[float, float]:
        """What the kernels take longer in a step too large for the CUDA graphs: dense ones, experts."""
        if self._graph_sizes and tokens <= self._graph_sizes[-1]:
            return 1.0, 1.0
        if tokens <= 512:
            return 1.0, 1.0
        return self.overheads.prefill(self._format), self.overheads.expert_prefill(self._format)

    def _dense_scale(self, tokens: int) -> float:
        """The profile's correction of GEMMs: of reading weights up to 64 tokens, of computing from 1024 on."""
        weights, compute = self.profile.weights_time, self.profile.compute_time
        share = min(1.0, max(0.0, log2(max(tokens, 1) / 64) / 4))
        return weights + (compute - weights) * share

    def _elementwise_seconds(self, tokens: int) -> float:
        """Per layer: two fused add-norms, rotary + cache write, activation: 4 kernels (vLLM's compiled graph)."""
        card = self.card
        inner = card.intermediate_size if card.experts is None else card.experts.intermediate_size * card.experts.active
        width = 8 * card.hidden_size + (3 * inner + 3 * card.attention.heads * card.head_dim) / self.tensor_parallel
        return card.layers * self.kernels.elementwise_seconds(2.0 * tokens * width, 4)

    def _reduce_seconds(self, tokens: int) -> float:
        """Two a layer and one after the embedding, of `tokens` hidden vectors in 16 bits."""
        scale = 1.0 if self.reduce.measured else self.profile.link_time
        one = self.reduce.seconds(2.0 * tokens * self.card.hidden_size)
        return (2 * self.card.layers + 1) * (scale * one + self._skew_s)

    def _send_seconds(self, tokens: int) -> float:
        return 20e-6 + 2.0 * tokens * self.card.hidden_size / 20e9

    def _head_seconds(self, sequences: int) -> float:
        """The vocabulary's matrix, its gather over the GPUs and the sampler, for one token of each sequence."""
        seconds = self._head.get(sequences)
        if seconds is None:
            columns = ceil(self.card.vocab_size / self.tensor_parallel)
            seconds = self.profile.weights_time * self.kernels.gemm_seconds(
                sequences, columns, self.card.hidden_size, WeightFormat.BF16
            )
            if self.tensor_parallel > 1:  # all-gather of the logits: half the wire bytes of an all-reduce
                seconds += 0.5 * self.reduce.seconds(2.0 * sequences * self.card.vocab_size)
            seconds += self.kernels.elementwise_seconds(3 * 4.0 * sequences * self.card.vocab_size, 5)
            self._head[sequences] = seconds
        return seconds

    def _chunk_seconds(self, tokens: int, past: int) -> float:
        seconds = self._chunks.get((tokens, past))
        if seconds is None:
            attention = sum(
                heads.count * self.kernels.prefill_attention_seconds(tokens, past, heads, kv_bytes=self._kv_bytes)
                for heads in self._heads
            )
            seconds = self.profile.compute_time * self._waiting * (attention + tokens * self._state_s)
            if len(self._chunks) < 200_000:
                self._chunks[tokens, past] = seconds
        return seconds

    def _attention_line(self, decodes: int) -> PieceLines:
        lines = self._attention_lines.get(decodes)
        if lines is None:
            share = ceil(decodes / self.pipeline_parallel)
            values = [self._decode_attention(share, context) for context in CONTEXT_KNOTS]
            knots = [float(context * decodes) for context in CONTEXT_KNOTS]
            lines = self._attention_lines[decodes] = PieceLines.through(knots, values)
        return lines

    def _decode_attention(self, sequences: int, context: int) -> float:
        return (
            self._waiting
            * self.profile.attention_time
            * sum(
                heads.count * self.kernels.decode_attention_seconds(sequences, context, heads, kv_bytes=self._kv_bytes)
                for heads in self._heads
            )
        )
