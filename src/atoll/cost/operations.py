"""Which kernels one engine step runs on one GPU: the model's matrices, cut as tensor parallelism cuts them.

Megatron's split, which vLLM follows: the query/key/value and gate/up matrices lose columns, the output and down
matrices lose rows, and one all-reduce follows each of the two (arXiv:1909.08053, section 3).
"""

from dataclasses import dataclass
from math import ceil

from atoll.model.card import AttentionKind, ModelCard, Quantisation


@dataclass(frozen=True, kw_only=True, slots=True)
class Gemm:
    """`count` matrices of `columns` x `inner` on one GPU; each multiplies all tokens of the step."""

    name: str  # qkv, o, gate_up, down, router, shared
    columns: int  # n: output features on this GPU
    inner: int  # k: input features on this GPU
    count: int  # layers that have it
    quantised: bool = True  # in the model's quantised format, if it has one


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertBlock:
    """The routed experts of a layer, every one cut over the GPUs."""

    hidden: int
    intermediate: int  # of one expert, whole
    routed: int
    active: int
    tensor_parallel: int
    count: int  # layers
    gated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Attention of `count` layers on one GPU."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None  # tokens a query looks back, None for all
    count: int
    latent: bool = False  # MLA: keys and values are one compressed vector, `head_dim` long


def layer_gemms(card: ModelCard, tensor_parallel: int) -> tuple[Gemm, ...]:
    """The dense matrices of all layers, without the experts and the vocabulary.

    Qwen2.5-32B over two GPUs: qkv 3584 x 5120, o 5120 x 2560, gate_up 27648 x 5120, down 5120 x 13824, 64 of each.
    """
    parts = [*_attention_gemms(card, tensor_parallel)]
    dense = card.layers if card.experts is None else card.experts.dense_layers
    if dense:
        parts += _mlp_gemms(card, card.intermediate_size, tensor_parallel, count=dense, name="")
    if card.experts is not None:
        sparse = card.layers - card.experts.dense_layers
        parts.append(
            Gemm(name="router", columns=card.experts.routed, inner=card.hidden_size, count=sparse, quantised=False)
        )
        if card.experts.shared_intermediate_size:
            parts += _mlp_gemms(
                card, card.experts.shared_intermediate_size, tensor_parallel, count=sparse, name="shared_"
            )
    return tuple(parts)


def _attention_gemms(card: ModelCard, tensor_parallel: int) -> list[Gemm]:
    attention, layers, hidden = card.attention, card.layers, card.hidden_size
    heads = ceil(attention.heads / tensor_parallel)
    if attention.kind is AttentionKind.MLA:
        # DeepSeek-V2 (arXiv:2405.04434, section 2.1): down-projections are replicated, up-projections are cut.
        return _latent_gemms(card, heads)
    kv_heads = ceil(attention.kv_heads / tensor_parallel)  # repeated when there are fewer than GPUs
    plain = "attention" in card.quantisation.skips  # gpt-oss, for one
    gate = attention.output_gate * heads  # Qwen3-Next
    return [
        Gemm(
            name="qkv",
            columns=(heads + gate + 2 * kv_heads) * attention.head_dim,
            inner=hidden,
            count=layers,
            quantised=not plain,
        ),
        Gemm(name="o", columns=hidden, inner=heads * attention.head_dim, count=layers, quantised=not plain),
    ]


def _latent_gemms(card: ModelCard, heads: int) -> list[Gemm]:
    attention, layers, hidden = card.attention, card.layers, card.hidden_size
    queries = heads * (attention.head_dim + attention.rope_head_dim)
    values = heads * (attention.value_head_dim or attention.head_dim)
    rank = attention.q_lora_rank
    down = attention.kv_lora_rank + attention.rope_head_dim + (rank or queries)
    parts = [
        Gemm(name="qkv", columns=down, inner=hidden, count=layers),
        Gemm(name="kv_up", columns=heads * attention.head_dim + values, inner=attention.kv_lora_rank, count=layers),
        Gemm(name="o", columns=hidden, inner=values, count=layers),
    ]
    return [*parts, Gemm(name="q_up", columns=queries, inner=rank, count=layers)] if rank else parts


def _mlp_gemms(card: ModelCard, intermediate: int, tensor_parallel: int, *, count: int, name: str) -> list[Gemm]:
    inner = ceil(intermediate / tensor_parallel)
    up, word = (2 * inner, "gate_up") if card.gated_mlp else (inner, "up")
    return [
        Gemm(name=f"{name}{word}", columns=up, inner=card.hidden_size, count=count),
        Gemm(name=f"{name}down", columns=card.hidden_size, inner=inner, count=count),
    ]


def expert_block(card: ModelCard, tensor_parallel: int) -> ExpertBlock | None:
    """The routed experts, None for a dense model."""
    experts = card.experts
    if experts is None:
        return None
    return ExpertBlock(
        hidden=card.hidden_size,
        intermediate=experts.intermediate_size,
        routed=experts.routed,
        active=experts.active,
        tensor_parallel=tensor_parallel,
        count=card.layers - experts.dense_layers,
        gated=card.gated_mlp,
    )


def attention_heads(card: ModelCard, tensor_parallel: int) -> tuple[Heads, ...]:
    """Attention on one GPU: one entry for layers that see everything, one for layers with a sliding window."""
    attention = card.attention
    heads = ceil(attention.heads / tensor_parallel)
    if attention.kind is AttentionKind.MLA:
        width = attention.kv_lora_rank + attention.rope_head_dim
        return (Heads(heads=heads, kv_heads=1, head_dim=width, window=None, count=card.layers, latent=True),)
    kv_heads = ceil(attention.kv_heads / tensor_parallel)
    sliding = attention.sliding_layers if attention.sliding_window else 0
    parts: list[tuple[int | None, int]] = []
    if card.kv_layers > sliding:
        parts.append((None, card.kv_layers - sliding))
    if sliding:
        parts.append((attention.sliding_window, sliding))
    return tuple(
        Heads(heads=heads, kv_heads=kv_heads, head_dim=attention.head_dim, window=window, count=count)
        for window, count in parts
    )


def distinct_experts(tokens: float, routed: int, active: int) -> float:
    """Experts that at least one of `tokens` tokens is sent to, when the router spreads evenly.

    E * (1 - (1 - k/E)^m): 8 tokens choosing 4 of 128 hit 28.7 on average.
    """
    return float(routed * (1.0 - (1.0 - active / routed) ** tokens))


class WeightFormat:
    """Names of the GEMM formats for which kernels were measured."""

    BF16 = "bf16"
    FP8 = "fp8"
    FP8_BLOCK = "fp8_block"
    INT8 = "int8"
    INT8_WO = "int8_wo"  # 8-bit weights, 16-bit activations
    INT4_WO = "int4_wo"  # AWQ, GPTQ: 4-bit weights, 16-bit activations
    MXFP4_WO = "mxfp4_wo"


def weight_format(quantisation: Quantisation, *, override: str | None = None, has_fp8: bool = True) -> str:
    """The GEMM format that vLLM runs a checkpoint's linear layers in.

    Cards without fp8 units (Ampere) keep fp8 weights and multiply in bf16: vLLM's Marlin kernel
    (vllm/model_executor/layers/quantization/fp8.py).
    """
    method = (override or quantisation.method or "").lower().replace("_", "-")
    bits = quantisation.weight_bits
    if override and not quantisation.method:
        bits = 8 if "8" in method else 4 if any(word in method for word in ("awq", "gptq", "4")) else bits
    if not method or bits >= 16:
        return WeightFormat.BF16
    if method == "mxfp4":
        return WeightFormat.MXFP4_WO
    if bits <= 4.5:
        return WeightFormat.INT4_WO
    if "fp8" in method or (method in {"compressed-tensors", "modelopt"} and quantisation.activation_bits == 8):
        if not has_fp8:
            return WeightFormat.INT8_WO
        return WeightFormat.FP8_BLOCK if quantisation.block_size is not None else WeightFormat.FP8
    return WeightFormat.INT8 if quantisation.activation_bits == 8 else WeightFormat.INT8_WO


def weight_bytes_per_value(name: str) -> float:
    """Bytes read for one weight, scales included (one fp16 scale in 128 values for int4, one byte in 32 for mxfp4)."""
    return {
        WeightFormat.BF16: 2.0,
        WeightFormat.FP8: 1.0,
        WeightFormat.FP8_BLOCK: 1.0,
        WeightFormat.INT8: 1.0,
        WeightFormat.INT8_WO: 1.0,
        WeightFormat.INT4_WO: 0.5 + 2.5 / 128,
        WeightFormat.MXFP4_WO: 0.5 + 1 / 32,
    }[name]
