"""How many weights each part of a model has."""

from dataclasses import dataclass, fields, replace

from atoll.model.card import Attention, AttentionKind, Experts
from atoll.model.families import Family
from atoll.model.fields import Fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What config.json says about sizes, in one place."""

    layers: int
    hidden: int
    intermediate: int
    vocab: int
    positions: int  # rows of a learned position table, 0 without one
    attention: Attention
    experts: Experts | None
    gated: bool
    tied: bool
    attention_out_bias: bool
    mlp_bias: bool
    family: Family
    linear: "LinearAttention | None" = None
    linear_at: frozenset[int] = frozenset()  # which layers keep a state
    dense_at: frozenset[int] = frozenset()  # which layers of a mixture have an ordinary MLP


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearAttention:
    """The gated delta rule's layer (Qwen3-Next and Qwen3.5)."""

    key_dim: int
    key_head_dim: int
    value_dim: int
    value_heads: int
    kernel: int
    matrix_value_bytes: int = 4

    @property
    def state_bytes(self) -> int:
        """The matrix of every head and the 16-bit tail of the convolution, of one sequence in one layer.

        Qwen3.5-27B: 48 heads of 128 x 128 in fp32 and 3 x 10240 values in bf16: 3.2 MB, in 48 layers. Qwen3-Next-80B,
        whose config.json asks for no fp32: 1,097,728 bytes, 1.49 % less than a block of 544 tokens, as vLLM's log says.
        """
        key_head = self.key_head_dim
        matrix = self.matrix_value_bytes * self.value_dim * key_head
        return matrix + 2 * (2 * self.key_dim + self.value_dim) * (self.kernel - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Weights of the whole model by part. The first four are what quantisation methods quantise."""

    attention: int = 0
    mlp: int = 0
    experts: int = 0
    shared_experts: int = 0
    embeddings: int = 0
    other: int = 0  # norms, biases, routers, small convolutions

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def count_weights(shape: Shape) -> Counts:
    """Sum over all layers.

    Worked number: Qwen2.5-32B has 64 layers of (5120 x 5120 x 2 + 5120 x 1024 x 2) + 3 x 5120 x 27648 weights and 7168
    biases, two norms of 5120 each, and 2 x 152064 x 5120 embeddings: 32,763,876,352 as on its model card.
    """
    full_layers = shape.layers - shape.attention.linear_layers
    dense_layers, sparse_layers = _layer_split(shape)
    experts = shape.experts
    return Counts(
        attention=_attention_of_all(shape, full_layers) + shape.attention.linear_layers * _linear_attention(shape),
        mlp=dense_layers * _mlp(shape, shape.intermediate),
        experts=sparse_layers * experts.routed * _mlp(shape, experts.intermediate_size) if experts else 0,
        shared_experts=sparse_layers * _mlp(shape, experts.shared_intermediate_size) if experts else 0,
        embeddings=shape.vocab * shape.hidden * (1 if shape.tied else 2) + shape.positions * shape.hidden,
        other=_other(shape, full_layers=full_layers, dense_layers=dense_layers, sparse_layers=sparse_layers),
    )


def count_active(counts: Counts, experts: Experts | None) -> int:
    """Weights that one token meets: all but the routed experts that it is not sent to."""
    if experts is None:
        return counts.total
    return counts.total - counts.experts + counts.experts * experts.active // experts.routed


def _layer_split(shape: Shape) -> tuple[int, int]:
    dense = shape.layers if shape.experts is None else shape.experts.dense_layers
    return dense, shape.layers - dense


def _attention_of_all(shape: Shape, full_layers: int) -> int:
    """Layers that see everything may have heads of their own (Gemma 4)."""
    attention = shape.attention
    if attention.global_head_dim is None and attention.global_kv_heads is None:
        return full_layers * _attention(shape)
    wide = replace(
        shape,
        attention=attention.replace(
            head_dim=attention.global_head_dim or attention.head_dim,
            kv_heads=attention.global_kv_heads or attention.kv_heads,
        ),
    )
    return attention.sliding_layers * _attention(shape) + (full_layers - attention.sliding_layers) * _attention(wide)


def _attention(shape: Shape) -> int:
    attention, hidden = shape.attention, shape.hidden
    if attention.kind is AttentionKind.MLA:
        return _latent_attention(attention, hidden)
    width = attention.heads * attention.head_dim
    queries = hidden * width * (2 if attention.output_gate else 1)
    return queries + 2 * hidden * attention.kv_heads * attention.head_dim + width * hidden


def _latent_attention(attention: Attention, hidden: int) -> int:
    """DeepSeek-V2 (arXiv 2405.04434), section 2.1: queries and key-values each through their own compression."""
    heads, value = attention.heads, attention.value_head_dim or attention.head_dim
    width = heads * attention.head_dim
    rank = attention.q_lora_rank
    queries = hidden * rank + rank * width if rank else hidden * width
    compressed = hidden * (attention.kv_lora_rank + attention.rope_head_dim)
    expanded = attention.kv_lora_rank * heads * (attention.head_dim - attention.rope_head_dim + value)
    index = attention.index_heads * attention.index_head_dim
    indexer = rank * index + hidden * (attention.index_head_dim + attention.index_heads) if index else 0
    return queries + compressed + expanded + heads * value * hidden + indexer


def _linear_attention(shape: Shape) -> int:
    linear = shape.linear
    if linear is None:
        return 0
    return shape.hidden * (2 * linear.key_dim + 3 * linear.value_dim)


def _mlp(shape: Shape, intermediate: int) -> int:
    return (3 if shape.gated else 2) * shape.hidden * intermediate


def _other(shape: Shape, *, full_layers: int, dense_layers: int, sparse_layers: int) -> int:
    family, hidden = shape.family, shape.hidden
    norm = hidden * (2 if family.norm_bias else 1)
    norms = norm * (family.layer_norms * shape.layers + (1 if family.final_norm else 0))
    biases = full_layers * _attention_small(shape) + dense_layers * _mlp_bias(shape, shape.intermediate)
    linear = shape.attention.linear_layers * _linear_small(shape)
    head = shape.vocab if family.head_bias else 0
    return norms + biases + linear + head + sparse_layers * _sparse_small(shape)


def _attention_small(shape: Shape) -> int:
    attention, family = shape.attention, shape.family
    small = 0
    if attention.bias:
        small += (attention.heads + 2 * attention.kv_heads) * attention.head_dim
    if shape.attention_out_bias:
        small += shape.hidden
    if family.qk_norm == "head":
        small += 2 * attention.head_dim
    if family.qk_norm == "full":
        small += (attention.heads + attention.kv_heads) * attention.head_dim
    return small + attention.q_lora_rank + attention.kv_lora_rank


def _mlp_bias(shape: Shape, intermediate: int) -> int:
    return (2 if shape.gated else 1) * intermediate + shape.hidden if shape.mlp_bias else 0


def _linear_small(shape: Shape) -> int:
    linear = shape.linear
    if linear is None:
        return 0
    mixed = 2 * linear.key_dim + linear.value_dim
    return shape.hidden * 2 * linear.value_heads + mixed * linear.kernel + 3 * linear.value_heads


def _sparse_small(shape: Shape) -> int:
    """Router and expert biases of one layer."""
    experts = shape.experts
    if experts is None:
        return 0
    router = shape.hidden * experts.routed + (experts.routed if shape.mlp_bias else 0)
    return router + experts.routed * _mlp_bias(shape, experts.intermediate_size)


def read_linear_attention(fields: Fields) -> LinearAttention | None:
    """The sizes of the linear layers; None when config.json names none."""
    if not fields.has("linear_num_value_heads"):
        return None
    heads = fields.whole("linear_num_value_heads")
    key_head = fields.whole("linear_key_head_dim", default=128)
    return LinearAttention(
        key_dim=fields.whole("linear_num_key_heads", default=heads) * key_head,
        key_head_dim=key_head,
        value_dim=heads * fields.whole("linear_value_head_dim", default=128),
        value_heads=heads,
        kernel=fields.whole("linear_conv_kernel_dim", default=4),
        matrix_value_bytes=_matrix_value_bytes(fields),
    )


def _matrix_value_bytes(fields: Fields) -> int:
    """As config.json asks; without a word Qwen3-Next's is in the model's own 16 bits, and Qwen3.5's in fp32.

    vllm/model_executor/layers/mamba/mamba_utils.py `gated_delta_net_state_dtype`: `auto` is the model's; Qwen3.5's
    published files say `mamba_ssm_dtype: float32`, which those written down here need not repeat.
    """
    stated = fields.word("mamba_ssm_dtype")
    if stated:
        return 4 if stated == "float32" else 2
    return 2 if fields.word("model_type") == "qwen3_next" else 4
