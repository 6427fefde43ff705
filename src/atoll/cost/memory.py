"""What fits: weights, KV blocks, activations and overhead on each GPU, as vLLM would account for them.

vLLM takes `gpu_memory_utilization` of the card, runs the largest step once to see what it needs besides the weights,
and gives all that is left to the KV cache (v1/worker/gpu_worker.py `determine_available_memory`). What a release takes
for itself is the engine's to say (engines/vllm/memory.py).
"""

from dataclasses import dataclass, replace
from math import ceil

from atoll.engines.engine import BLOCK_TOKENS
from atoll.engines.spec import EngineSpec
from atoll.inventory.catalog import GpuKind
from atoll.model.card import AttentionKind, ModelCard
from atoll.units import GIB, MIB, show_bytes

# What CUDA reports as a card's total is less than nvidia-smi's: H100 79.25 of 79.65 GiB, H200 139.8 of 140.4,
# A100 79.25 of 80.0, RTX 3090 23.58 of 24.0 (tests/data/memory/logs.json).
DRIVER_BYTES = round(0.42 * GIB)
_KV_BYTES = {"fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0, "float32": 4.0, "nvfp4": 0.5625}


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFit:
    """Where the memory of one GPU of a replica goes, and what its KV cache holds.

    `kv_blocks` and `kv_tokens` count tokens of the whole replica: a token has its keys and values spread over all GPUs.
    """

    budget_bytes: int  # gpu_memory_utilization of what CUDA reports
    weight_bytes: int
    activation_bytes: int
    graph_bytes: int  # 0 where the version leaves CUDA graphs out of the budget
    overhead_bytes: int
    kv_bytes: int  # what is left, never below 0
    margin_bytes: int  # what all this may be wrong by
    kv_bytes_per_token: float  # on one GPU, at `context` tokens a sequence
    sequence_bytes: float  # on one GPU, whatever the length: the state of linear attention layers
    kv_blocks: int
    kv_tokens: int
    context: int  # the context length for which blocks and tokens were counted; matters with sliding windows
    reason: str | None = None  # why it does not fit, one sentence

    @property
    def fits(self) -> bool:
        return self.kv_blocks > 0

    @property
    def sure_tokens(self) -> int:
        """Tokens of the KV cache even where the arithmetic is wrong by all its margin."""
        return max(0, self.kv_tokens - ceil(self.margin_bytes / self.kv_bytes_per_token))

    @property
    def short_bytes(self) -> int:
        """How much memory is missing on each GPU; 0 when it fits."""
        used = self.weight_bytes + self.activation_bytes + self.graph_bytes + self.overhead_bytes
        return max(0, used - self.budget_bytes)


# Of the budget, by which it was off from vLLM's own logs at most (docs/model.md).
_MARGIN, _MARGIN_OF_EXPERTS = 0.035, 0.065


def fit_memory(spec: EngineSpec, *, context: int | None = None) -> MemoryFit:
    """How one GPU's memory is shared out. Nothing is raised: without room, kv_blocks is 0 and `reason` says why.

    Room is made for the largest step (activations) and for the largest batch (the sampler); of pipeline stages the
    fullest counts. Whether the engine can split the model so is not asked here.

    Args:
        spec: the replica, its settings filled in.
        context: tokens of a typical sequence, which matters for sliding windows and linear attention; 4096 without.

    Worked: Llama-3.1-8B on an H100-SXM-80GB at 0.92 under 0.32: 72.9 GiB less 15.0 weights, 1.2 sampler, 0.3 graphs and
    0.25 overhead leave 56.1 GiB, 460 thousand tokens of 128 KiB; the log says 56.21 GiB and 460,496 tokens.
    """
    card, kind, facts, tensor_parallel = spec.card, spec.kind, spec.memory, spec.tensor_parallel
    gpus = tensor_parallel * spec.pipeline_parallel
    context = context or min(4096, card.max_context)
    stages = ceil(card.layers / spec.pipeline_parallel) / card.layers
    budget = round(spec.gpu_memory_utilization * (kind.memory_bytes - DRIVER_BYTES))
    weights = _weights_of_a_gpu(card, kind, tensor_parallel, stages=stages, quantization=spec.quantization)
    activation = _activation_bytes(spec)
    overhead = facts.one_gpu_bytes + (facts.group_bytes if gpus > 1 else 0)
    left = budget - weights - activation - facts.graph_bytes - overhead
    per_token, per_sequence = _kv_of_a_gpu(card, tensor_parallel, kv_dtype=spec.kv_cache_dtype, context=context)
    kv_tokens = _tokens(max(0, left), per_token * stages, per_sequence * stages, context=context)
    fit = MemoryFit(
        budget_bytes=budget,
        weight_bytes=weights,
        activation_bytes=activation,
        graph_bytes=facts.graph_bytes,
        overhead_bytes=overhead,
        kv_bytes=max(0, left),
        margin_bytes=round((_MARGIN if card.experts is None else _MARGIN_OF_EXPERTS) * budget),
        kv_bytes_per_token=per_token * stages,
        sequence_bytes=per_sequence * stages,
        kv_blocks=kv_tokens // BLOCK_TOKENS,
        kv_tokens=kv_tokens // BLOCK_TOKENS * BLOCK_TOKENS,
        context=context,
    )
    return fit if fit.fits else _with_reason(fit, card, kind, gpus)


def kv_bytes_per_token(card: ModelCard, kv_dtype: str = "auto") -> int:
    """KV cache of one token in all layers, without windows and without tensor parallelism.

    Qwen2.5-32B: 64 layers x 2 x 8 heads x 128 x 2 bytes = 262,144. DeepSeek-V3: 61 x (512 + 64) x 2 = 70,272.
    """
    return round(card.kv_layers * _layer_values(card, kv_heads=card.kv_heads) * kv_value_bytes(card, kv_dtype))


def kv_value_bytes(card: ModelCard, kv_dtype: str) -> float:
    """Bytes of one cached value: the checkpoint's wish counts for `auto`."""
    wanted = card.quantisation.kv_dtype or "auto" if kv_dtype == "auto" else kv_dtype
    return _KV_BYTES.get(wanted, 2.0)


def users_that_fit(fit: MemoryFit, context: int) -> int:
    """Sequences of `context` tokens that the KV cache holds at the same time, in whole blocks of 16 tokens."""
    if not fit.fits:
        return 0
    one = ceil(context / BLOCK_TOKENS) * BLOCK_TOKENS * fit.kv_bytes_per_token + fit.sequence_bytes
    return int(fit.kv_bytes // one)


def loaded_weight_bytes(card: ModelCard, quantization: str | None = None) -> int:
    """Bytes of all weights once loaded: as stored, or quantised on the way when vLLM is told to."""
    bits = {"fp8": 8.0, "bitsandbytes": 4.127, "experts_int8": 8.0}.get(quantization or "")
    if bits is None or card.quantisation.method is not None:
        return card.weight_bytes
    return round((card.parameters - card.embedding_parameters) * bits / 8 + card.embedding_parameters * 2)


def _mxfp4_padding(card: ModelCard, kind: GpuKind, tensor_parallel: int) -> float:
    """Bytes that mxfp4 experts take more than on disk, because their kernels want round widths; on all GPUs together.

    fused_moe/oracle/mxfp4.py: a GPU's part of the intermediate size to 64 with Triton (Hopper), else to 128 and the
    hidden size to 256. gpt-oss-20b on an A100: 2944 x 3072 for 2880 x 2880 make 12.8 GiB 13.7; the log says 13.72.
    """
    if card.quantisation.method != "mxfp4" or card.experts is None:
        return 0.0
    width, hidden = card.experts.intermediate_size / tensor_parallel, card.hidden_size
    hopper = kind.architecture == "hopper"
    padded = ceil(width / 64) * 64 * hidden if hopper else ceil(width / 128) * 128 * ceil(hidden / 256) * 256
    weights = (card.layers - card.experts.dense_layers) * card.experts.routed * 3 * tensor_parallel
    return weights * (padded - width * hidden) * card.quantisation.stored_bits / 8


def _weights_of_a_gpu(
    card: ModelCard, kind: GpuKind, tensor_parallel: int, *, stages: float, quantization: str | None
) -> int:
    """Embeddings are split by vocabulary, padded to 64; KV heads are copied where there are fewer than GPUs."""
    total = loaded_weight_bytes(card, quantization) + _mxfp4_padding(card, kind, tensor_parallel)
    embedding = 2 * card.embedding_parameters * _padded(card.vocab_size) / card.vocab_size
    body = total - 2 * card.embedding_parameters
    bytes_a_weight = body / max(1, card.parameters - card.embedding_parameters)
    copied = _copied_weights(card, tensor_parallel) * bytes_a_weight
    layers = (body - copied) / tensor_parallel + copied
    ends = embedding / (2 if stages < 1 and not card.tied_embeddings else 1)
    return round(layers * stages + ends / tensor_parallel)


def _copied_weights(card: ModelCard, tensor_parallel: int) -> float:
    """Weights that every GPU holds whole, as the part of them that splitting does not save."""
    attention = card.attention
    if attention.kind is AttentionKind.MLA:
        return (
            card.layers * card.hidden_size * (attention.q_lora_rank + attention.kv_lora_rank + attention.rope_head_dim)
        )
    if tensor_parallel <= attention.kv_heads:
        return 0
    projections = 2 * card.kv_layers * card.hidden_size * attention.kv_heads * attention.head_dim
    # Each GPU holds one head of `kv_heads`, not 1 / tensor_parallel of them.
    share, even = 1 / attention.kv_heads, 1 / tensor_parallel
    return projections * (share - even) / (1 - even)


def _padded(vocabulary: int) -> int:
    return ceil(vocabulary / 64) * 64


def _activation_bytes(spec: EngineSpec) -> int:
    """The peak of the largest step: the widest layer, or the sampler over the largest batch, whichever is more."""
    card, tensor_parallel, tokens = spec.card, spec.tensor_parallel, spec.max_num_batched_tokens
    hidden = 2 * tokens * card.hidden_size
    mlp = 2 * tokens * (3 if card.gated_mlp else 2) * card.intermediate_size / tensor_parallel
    attention = 2 * tokens * 2 * card.attention_heads * card.head_dim / tensor_parallel
    widest = max(mlp, attention, _expert_bytes(card, tensor_parallel, tokens))
    sampler = spec.memory.sampler_bytes * min(spec.max_num_seqs, tokens) * card.vocab_size
    return round(max(3 * hidden + widest, hidden + sampler))


def _expert_bytes(card: ModelCard, tensor_parallel: int, tokens: int) -> float:
    """Fused experts keep a row for every (token, expert): gate and up or the output, and what lies between."""
    if card.experts is None:
        return 0.0
    width = card.experts.intermediate_size / tensor_parallel
    return 2 * tokens * card.experts.active * (max(2 * width, card.hidden_size) + width)


def _layer_values(card: ModelCard, *, kv_heads: int) -> int:
    attention = card.attention
    if attention.kind is AttentionKind.MLA:
        return attention.kv_lora_rank + attention.rope_head_dim
    return 2 * kv_heads * attention.head_dim


def _kv_of_a_gpu(card: ModelCard, tensor_parallel: int, *, kv_dtype: str, context: int) -> tuple[float, float]:
    """Bytes a token, and bytes a sequence whatever its length, on one GPU, all layers.

    Layers with a sliding window keep the window only (vLLM's hybrid KV cache manager, on by default), so at `context`
    tokens a sequence they count for window / context of a token. MLA's vector is not split.
    """
    attention = card.attention
    heads = max(1, ceil(attention.kv_heads / tensor_parallel))
    layer = _layer_values(card, kv_heads=heads) * kv_value_bytes(card, kv_dtype)
    sliding = min(attention.sliding_layers, card.kv_layers)
    window = attention.sliding_window or context
    share = min(1.0, (ceil(window / BLOCK_TOKENS) + 1) * BLOCK_TOKENS / context)
    per_token = layer * (card.kv_layers - sliding + sliding * share)
    return per_token, attention.linear_layers * attention.linear_state_bytes / tensor_parallel


def _tokens(left: int, per_token: float, per_sequence: float, *, context: int) -> int:
    """Whole tokens, with every `context` of them paying one sequence's state."""
    return int(left // (per_token + per_sequence / context)) if per_token + per_sequence > 0 else 0


def _with_reason(fit: MemoryFit, card: ModelCard, kind: GpuKind, gpus: int) -> MemoryFit:
    used = fit.weight_bytes + fit.activation_bytes + fit.graph_bytes + fit.overhead_bytes
    on = f"each of {gpus} {kind.name}" if gpus > 1 else f"one {kind.name}"
    short = max(fit.short_bytes, MIB)
    reason = (
        f"{card.name} does not fit: {show_bytes(fit.weight_bytes)} of weights and {show_bytes(used - fit.weight_bytes)}"
        f" of working memory are {show_bytes(short)} more than the {show_bytes(fit.budget_bytes)} that vLLM may use"
        f" on {on}."
    )
    return replace(fit, kv_blocks=0, kv_tokens=0, reason=reason)
