"""What fits: weights, KV blocks, activations and overhead on each GPU, as vLLM would account for them.

vLLM takes `gpu_memory_utilization` of the card, runs the largest step once to see what it needs besides the weights,
and gives all that is left to the KV cache (v1/worker/gpu_worker.py `determine_available_memory`). What a release takes
for itself is the engine's to say (engines/vllm/memory.py), how the cache is laid out cost.pages'.
"""

from dataclasses import dataclass, replace
from math import ceil

from atoll.cost.pages import KvPool, LayerKind, make_pool
from atoll.engines.engine import BLOCK_TOKENS
from atoll.engines.spec import EngineSpec
from atoll.inventory.catalog import GpuKind
from atoll.model.card import AttentionKind, ModelCard
from atoll.units import GIB, MIB, show_bytes

# What CUDA reports as a card's total is less than nvidia-smi's: H100 79.18 of 79.65 GiB, H200 139.8 of 140.4, RTX 3090
# 23.58 of 24.0, RTX 5090 31.4 of 31.84 (start-up logs in tests/data/memory).
DRIVER_BYTES, DRIVER_SHARE = round(0.36 * GIB), 0.0015
_KV_BYTES = {"fp8": 1.0, "fp8_e4m3": 1.0, "fp8_e5m2": 1.0, "float32": 4.0, "nvfp4": 0.5625}
_SAMPLED_STEPS = 1.25  # the largest step's output, and of its last tokens two copies: 1024 of 8192 on a large card
_SMALL_BUFFERS = round(0.03 * GIB)  # what the logs of 0.19 have beside it, whatever the model


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFit:
    """Where the memory of one GPU of a replica goes, and what its KV cache holds.

    `kv_blocks` and `kv_tokens` count tokens of the whole replica: a token has its keys and values spread over all GPUs.
    Both are in blocks of 16 tokens and for sequences of `context` tokens, which matters where layers keep a window or a
    state; `pool_blocks` are the engine's own.
    """

    budget_bytes: int  # gpu_memory_utilization of what CUDA reports
    card_bytes: int  # what CUDA reports
    weight_bytes: int
    activation_bytes: int
    graph_bytes: int  # CUDA graphs, in the budget or on top of it
    outside_bytes: int  # what stands beside the budget: graphs where they are not in it, and the start's own needs
    overhead_bytes: int
    kv_bytes: int  # what is left, never below 0
    missing_bytes: int  # what is missing where nothing is left
    margin_bytes: int  # what all this may be wrong by
    kv_bytes_per_token: float  # on one GPU, at `context` tokens a sequence
    pool: KvPool
    pool_blocks: int
    kv_blocks: int
    kv_tokens: int
    context: int  # the length of a sequence for which blocks and tokens were counted
    max_context: int  # the model's own
    reason: str | None = None  # why it does not fit, one sentence

    @property
    def fits(self) -> bool:
        return self.kv_blocks > 0

    def blocks_with(self, max_model_len: int | None) -> int:
        """`kv_blocks`, and enough for one request of that length, which takes less of each token than a typical one."""
        asked = min(max_model_len or 0, self.longest)
        return max(self.kv_blocks, ceil(asked / BLOCK_TOKENS))

    @property
    def longest(self) -> int:
        """Tokens of the longest request that the engine takes with this cache, the model's context at most."""
        return self.pool.longest(self.pool_blocks, limit=self.max_context)

    @property
    def possible_longest(self) -> int:
        """The most that it may be where the arithmetic is wrong by all its margin."""
        return self.pool.longest(self.pool.count(self.kv_bytes + self.margin_bytes), limit=self.max_context)

    @property
    def sure_longest(self) -> int:
        """The same where the arithmetic is wrong by all its margin."""
        return self.pool.longest(self.pool.count(self.kv_bytes - self.margin_bytes), limit=self.max_context)

    @property
    def short_bytes(self) -> int:
        """How much memory is missing on each GPU; 0 when it fits."""
        return self.missing_bytes

    @property
    def most_seats(self) -> int | None:
        """Sequences whose states have blocks, which no engine's max_num_seqs may exceed; None without states."""
        return self.pool_blocks if self.pool.has_states else None

    @property
    def sure_seats(self) -> int | None:
        """The same where the arithmetic is wrong by all its margin."""
        return self.pool.count(self.kv_bytes - self.margin_bytes) if self.pool.has_states else None


# Of the budget, by which it was off from vLLM's own logs at most (docs/model.md).
_MARGIN, _MARGIN_OF_EXPERTS = 0.02, 0.04


def fit_memory(spec: EngineSpec, *, context: int | None = None) -> MemoryFit:
    """How one GPU's memory is shared out. Nothing is raised: without room, kv_blocks is 0 and `reason` says why.

    Room is made for the largest step (activations), for the largest batch (the sampler) and for the largest picture. Of
    pipeline stages the one with the fewest blocks is told, since all get as many as that one. Whether the engine can
    split the model so is not asked here, nor whether it would start (`why_not_start`).

    Args:
        spec: the replica, its settings filled in.
        context: tokens of a typical sequence, which matters for sliding windows and linear attention; 4096 without.

    Worked: Llama-3.1-8B on an H100-SXM-80GB at 0.92 under 0.32: 72.8 GiB less 15.0 weights, 1.2 sampler, 0.3 graphs and
    0.25 overhead leave 56.1 GiB, 460 thousand tokens of 128 KiB; the log says 56.21 GiB and 460,496 tokens.
    """
    context = min(context or 4096, spec.card.max_context)
    fits = [
        _fit_stage(spec, stage, context=context) for stage in pipeline_stages(spec.card.layers, spec.pipeline_parallel)
    ]
    fit = min(fits, key=lambda one: (one.pool_blocks, one.kv_bytes - one.missing_bytes))
    return fit if fit.fits else _with_reason(fit, spec.card, spec.kind, spec.tensor_parallel * spec.pipeline_parallel)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A part of the layers in a row; the first holds the embeddings too, the last what turns vectors into words."""

    layers: int
    first: bool = True
    last: bool = True


def pipeline_stages(layers: int, count: int) -> tuple[Stage, ...]:
    """As vLLM shares them (vllm/distributed/utils.py `get_pp_indices`): what is over goes to stages before the last.

    46 layers over four stages: 11, 12, 12, 11.
    """
    least, over = divmod(layers, count)
    sizes = [least + (count - 1 - over <= at < count - 1) for at in range(count)]
    return tuple(Stage(layers=size, first=at == 0, last=at == count - 1) for at, size in enumerate(sizes))


def _fit_stage(spec: EngineSpec, stage: Stage, *, context: int) -> MemoryFit:
    card, kind, facts = spec.card, spec.kind, spec.memory
    share = stage.layers / card.layers
    whole = reported_bytes(kind)
    budget = round(spec.gpu_memory_utilization * whole)
    weights = _weights_of_a_gpu(spec, stage)
    activation = _activation_bytes(spec, samples=stage.last)
    graphs = facts.graph_bytes if facts.graphs_budgeted else 0
    left = budget - weights - activation - graphs - facts.context_bytes
    pool = make_pool(
        layer_kinds(card, spec.tensor_parallel, kv_dtype=spec.kv_cache_dtype),
        facts.pool,
        ahead=facts.pool.steps_ahead * spec.max_num_batched_tokens,
        share=share,
    )
    blocks = pool.count(left)
    tokens = pool.capacity(blocks, context=context) // BLOCK_TOKENS * BLOCK_TOKENS
    return MemoryFit(
        budget_bytes=budget,
        card_bytes=whole,
        weight_bytes=weights,
        activation_bytes=activation,
        graph_bytes=facts.graph_bytes,
        outside_bytes=facts.warm_up_bytes + (0 if facts.graphs_budgeted else facts.graph_bytes),
        overhead_bytes=facts.context_bytes,
        kv_bytes=max(0, left),
        missing_bytes=max(0, -left),
        margin_bytes=round((_MARGIN if card.experts is None else _MARGIN_OF_EXPERTS) * budget),
        kv_bytes_per_token=pool.block_bytes * pool.used_by(context) / context,
        pool=pool,
        pool_blocks=blocks,
        kv_blocks=tokens // BLOCK_TOKENS,
        kv_tokens=tokens,
        context=context,
        max_context=card.max_context,
    )


def why_not_start(spec: EngineSpec, fit: MemoryFit) -> str | None:
    """Why the engine would not start as it is set, one sentence; None when it would.

    Room for weights and one step, a cache that holds a request of max_model_len, graphs and warm-up beside the budget,
    and, for layers with a state, a block for every seat.
    """
    if not fit.fits:
        return fit.reason
    longest = fit.longest
    if longest < spec.max_model_len:
        return (
            f"The KV cache holds one request of {longest:,} tokens, and max_model_len is {spec.max_model_len:,}; set"
            f" it to {longest} or less."
        )
    return why_not_warm_up(spec, fit)


def why_not_warm_up(spec: EngineSpec, fit: MemoryFit) -> str | None:
    """The part of `why_not_start` that comes after the KV cache was given its memory."""
    if fit.budget_bytes + fit.outside_bytes > fit.card_bytes:
        return (
            f"{show_bytes(fit.outside_bytes)} of CUDA graphs and warm-up come on top of the"
            f" {show_bytes(fit.budget_bytes)} that are given away already, of {show_bytes(fit.card_bytes)}; lower"
            " gpu_memory_utilization."
        )
    if fit.most_seats is not None and spec.memory.pool.state_a_seat and spec.max_num_seqs > fit.most_seats:
        return (
            f"max_num_seqs {spec.max_num_seqs} is more than the {fit.most_seats} blocks that states may have; set it to"
            f" {fit.most_seats} or less."
        )
    return None


def printed_tokens(spec: EngineSpec, fit: MemoryFit) -> int:
    """The size of the KV cache as this version's log has it; with states, maximum concurrency x max_model_len."""
    if spec.memory.pool.prints_concurrency or fit.pool.has_states:
        return fit.pool.printed(fit.pool_blocks, max_model_len=spec.max_model_len)
    return fit.pool.printed_once(fit.pool_blocks)


def reported_bytes(kind: GpuKind) -> int:
    """A card's memory as CUDA reports it to a program."""
    return round(kind.memory_bytes * (1 - DRIVER_SHARE)) - DRIVER_BYTES


def kv_bytes_per_token(card: ModelCard, kv_dtype: str = "auto") -> int:
    """KV cache of one token in all layers, without windows and without tensor parallelism.

    Qwen2.5-32B: 64 layers x 2 x 8 heads x 128 x 2 bytes = 262,144. DeepSeek-V3: 61 x (512 + 64) x 2 = 70,272.
    """
    return round(sum(kind.layers * kind.token_bytes for kind in layer_kinds(card, 1, kv_dtype=kv_dtype)))


def layer_kinds(card: ModelCard, tensor_parallel: int, *, kv_dtype: str = "auto") -> tuple[LayerKind, ...]:
    """What the layers keep on one GPU. MLA's vector is not split; fewer KV heads than GPUs are copied."""
    attention, value = card.attention, kv_value_bytes(card, kv_dtype)
    sliding = min(attention.sliding_layers, card.kv_layers) if attention.sliding_window else 0
    every = LayerKind(layers=card.kv_layers - sliding, token_bytes=_full_bytes(card, tensor_parallel, value))
    windowed = LayerKind(
        layers=sliding,
        token_bytes=2 * _heads_of(attention.kv_heads, tensor_parallel) * attention.head_dim * value,
        window=attention.sliding_window,
        chunked=attention.chunked,
    )
    states = LayerKind(layers=attention.linear_layers, state_bytes=ceil(attention.linear_state_bytes / tensor_parallel))
    return every, windowed, states


def _full_bytes(card: ModelCard, tensor_parallel: int, value_bytes: float) -> float:
    """Of a token in a layer that sees everything."""
    attention = card.attention
    if attention.packed_bytes is not None and value_bytes == 1.0:
        return float(attention.packed_bytes + attention.index_bytes)
    if attention.kind is AttentionKind.MLA:
        return (attention.kv_lora_rank + attention.rope_head_dim) * value_bytes + attention.index_bytes
    heads, width = attention.global_kv_heads or attention.kv_heads, attention.global_head_dim or attention.head_dim
    return 2 * _heads_of(heads, tensor_parallel) * width * value_bytes


def _heads_of(kv_heads: int, tensor_parallel: int) -> int:
    return max(1, ceil(kv_heads / tensor_parallel))


def kv_value_bytes(card: ModelCard, kv_dtype: str) -> float:
    """Bytes of one cached value: the checkpoint's wish counts for `auto`."""
    wanted = card.quantisation.kv_dtype or "auto" if kv_dtype == "auto" else kv_dtype
    return _KV_BYTES.get(wanted, 2.0)


def users_that_fit(fit: MemoryFit, context: int) -> int:
    """Sequences of `context` tokens that the KV cache holds at the same time, in whole blocks."""
    return fit.pool_blocks // fit.pool.used_by(context) if fit.fits else 0


def loaded_weight_bytes(card: ModelCard, quantization: str | None = None) -> int:
    """Bytes of all weights once loaded: as stored, or quantised on the way when vLLM is told to."""
    bits = {"fp8": 8.0, "bitsandbytes": 4.127, "experts_int8": 8.0}.get(quantization or "")
    if bits is None or card.quantisation.method is not None:
        return card.weight_bytes
    plain = card.embedding_parameters + (card.encoder.parameters if card.encoder else 0)
    return round((card.parameters - plain) * bits / 8 + plain * 2)


def _expert_padding(spec: EngineSpec) -> float:
    """Bytes that mxfp4 experts take more than on disk, because their kernels want round widths; on all GPUs together.

    gpt-oss-20b on an A100: 2944 x 3072 for 2880 x 2880 make 12.8 GiB 13.7; the log says 13.72.
    """
    card, tensor_parallel = spec.card, spec.tensor_parallel
    if card.quantisation.method != "mxfp4" or card.experts is None:
        return 0.0
    of_width, of_hidden = spec.memory.expert_rounding
    width, hidden = card.experts.intermediate_size / tensor_parallel, card.hidden_size
    padded = ceil(width / of_width) * of_width * ceil(hidden / of_hidden) * of_hidden
    weights = (card.layers - card.experts.dense_layers) * card.experts.routed * 3 * tensor_parallel
    return weights * (padded - width * hidden) * card.quantisation.stored_bits / 8


def _weights_of_a_gpu(spec: EngineSpec, stage: Stage) -> int:
    """Embeddings are split by vocabulary, padded to 64; KV heads are copied where there are fewer than GPUs."""
    card, tensor_parallel = spec.card, spec.tensor_parallel
    total = loaded_weight_bytes(card, spec.quantization) + _expert_padding(spec)
    encoder = 2 * card.encoder.parameters if card.encoder else 0
    embedding = 2 * card.embedding_parameters * _padded(card.vocab_size) / card.vocab_size
    body = total - 2 * card.embedding_parameters - encoder
    bytes_a_weight = body / max(1, card.parameters - card.embedding_parameters - encoder / 2)
    copied = _copied_weights(card, tensor_parallel) * bytes_a_weight
    layers = (body - copied) / tensor_parallel + copied
    if not (stage.first and stage.last):
        embedding *= (stage.first or stage.last) * (1.0 if card.tied_embeddings else 0.5)
        encoder *= stage.first
    return round(layers * stage.layers / card.layers + (embedding + encoder) / tensor_parallel) + card.position_bytes


def _copied_weights(card: ModelCard, tensor_parallel: int) -> float:
    """Weights that every GPU holds whole, as the part of them that splitting does not save."""
    attention = card.attention
    if attention.kind is AttentionKind.MLA:
        return (
            card.kv_layers
            * card.hidden_size
            * (attention.q_lora_rank + attention.kv_lora_rank + attention.rope_head_dim)
        )
    if tensor_parallel <= attention.kv_heads:
        return 0
    projections = 2 * card.kv_layers * card.hidden_size * attention.kv_heads * attention.head_dim
    # Each GPU holds one head of `kv_heads`, not 1 / tensor_parallel of them.
    share, even = 1 / attention.kv_heads, 1 / tensor_parallel
    return projections * (share - even) / (1 - even)


def _padded(vocabulary: int) -> int:
    return ceil(vocabulary / 64) * 64


def _activation_bytes(spec: EngineSpec, *, samples: bool = True) -> int:
    """The peak of what is tried out at start: the largest step, the sampler over the largest batch, the largest image.

    The pictures' tokens stay while the step runs. Llama-3.1-8B on an H100 under 0.19: 1024 x 128,256 x 14 bytes and 132
    rows of 4 are 1.78 GiB, the step's output 0.08, small buffers 0.03; the log says 1.89.
    """
    card, tensor_parallel, tokens = spec.card, spec.tensor_parallel, spec.max_num_batched_tokens
    hidden = 2 * tokens * card.hidden_size
    mlp = 2 * tokens * (3 if card.gated_mlp else 2) * card.intermediate_size / tensor_parallel
    attention = 2 * tokens * 2 * card.attention_heads * card.head_dim / tensor_parallel
    widest = max(mlp, attention, _expert_bytes(card, tensor_parallel, tokens))
    rows, seats = spec.memory.sampler_rows, min(spec.max_num_seqs, tokens)
    sampler = (spec.memory.sampler_bytes * seats + 4 * min(rows, seats)) * card.vocab_size
    sampling = (_SAMPLED_STEPS * hidden + sampler + _SMALL_BUFFERS) if samples else 0.0
    seen, seeing = _picture_bytes(spec)
    return round(max(seen + max(3 * hidden + widest, sampling), seeing))


def _picture_bytes(spec: EngineSpec) -> tuple[float, float]:
    """As many pictures as a step may have with their tokens, and the peak of seeing them; 0 without an encoder."""
    encoder = spec.card.encoder
    if encoder is None:
        return 0.0, 0.0
    tokens = max(spec.max_num_batched_tokens, encoder.largest_tokens)
    patches = tokens // encoder.largest_tokens * encoder.largest_tokens * encoder.patches_a_token
    kept = 2.0 * (tokens * spec.card.hidden_size + patches * encoder.patch_values)
    rows = encoder.widths + encoder.split_widths / spec.tensor_parallel
    return kept, kept + 2.0 * patches * encoder.hidden_size * rows


def _expert_bytes(card: ModelCard, tensor_parallel: int, tokens: int) -> float:
    """Fused experts keep a row for every (token, expert): gate and up or the output, and what lies between."""
    if card.experts is None:
        return 0.0
    width = card.experts.intermediate_size / tensor_parallel
    return 2 * tokens * card.experts.active * (max(2 * width, card.hidden_size) + width)


def _with_reason(fit: MemoryFit, card: ModelCard, kind: GpuKind, gpus: int) -> MemoryFit:
    graphs = fit.graph_bytes if not fit.outside_bytes else 0
    used = fit.weight_bytes + fit.activation_bytes + graphs + fit.overhead_bytes
    on = f"each of {gpus} {kind.name}" if gpus > 1 else f"one {kind.name}"
    short = max(fit.short_bytes, MIB)
    reason = (
        f"{card.name} does not fit: {show_bytes(fit.weight_bytes)} of weights and {show_bytes(used - fit.weight_bytes)}"
        f" of working memory are {show_bytes(short)} more than the {show_bytes(fit.budget_bytes)} that vLLM may use"
        f" on {on}."
    )
    return replace(fit, kv_blocks=0, kv_tokens=0, reason=reason)
