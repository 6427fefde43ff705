"""The linear layers of a model by the names that checkpoints give them, each with its part and its weights."""

from collections.abc import Iterator
from dataclasses import dataclass

from atoll.model.card import AttentionKind
from atoll.model.count import Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """`layers.3.mlp.down_proj`."""

    part: str  # attention, mlp, experts, shared_experts
    layer: int
    names: tuple[str, ...]  # below the layer; the same matrix as different families call it
    weights: int


def linear_modules(shape: Shape) -> Iterator[Module]:
    """All that a method may quantise, without embeddings and routers; experts as one matrix of each sort."""
    for layer in range(shape.layers):
        yield from _attention(shape, layer)
        yield from _mlps(shape, layer)


def _attention(shape: Shape, layer: int) -> Iterator[Module]:
    attention, hidden = shape.attention, shape.hidden
    if layer in shape.linear_at and shape.linear is not None:
        keys, values = shape.linear.key_dim, shape.linear.value_dim
        yield _module(
            "attention", layer, hidden * (2 * keys + values), *_under("linear_attn", "in_proj_qkv", "in_proj_qkvz")
        )
        yield _module("attention", layer, hidden * values, *_under("linear_attn", "in_proj_z", "in_proj_qkvz"))
        yield _module("attention", layer, hidden * values, *_under("linear_attn", "out_proj"))
        return
    if attention.kind is AttentionKind.MLA:
        heads, width = attention.heads, attention.heads * attention.head_dim
        value = attention.value_head_dim or attention.head_dim
        rank, latent = attention.q_lora_rank, attention.kv_lora_rank
        if rank:
            yield _module("attention", layer, hidden * rank, *_under("self_attn", "q_a_proj"))
        yield _module("attention", layer, (rank or hidden) * width, *_under("self_attn", "q_b_proj", "q_proj"))
        yield _module(
            "attention", layer, hidden * (latent + attention.rope_head_dim), *_under("self_attn", "kv_a_proj_with_mqa")
        )
        expanded = attention.head_dim - attention.rope_head_dim + value
        yield _module("attention", layer, latent * heads * expanded, *_under("self_attn", "kv_b_proj"))
        yield _module("attention", layer, heads * value * hidden, *_under("self_attn", "o_proj"))
        return
    width, keys = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    queries = width * (2 if attention.output_gate else 1)
    fused = ("qkv_proj",)
    for name, size in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        yield _module("attention", layer, hidden * size, *_under("self_attn", name, *fused))
    yield _module("attention", layer, hidden * width, *_under("self_attn", "o_proj"))


def _mlps(shape: Shape, layer: int) -> Iterator[Module]:
    experts = shape.experts
    if experts is None or layer in shape.dense_at:
        yield from _mlp(shape, layer, "mlp", shape.intermediate, 1, "mlp", "feed_forward")
        return
    yield from _mlp(
        shape,
        layer,
        "experts",
        experts.intermediate_size,
        experts.routed,
        "mlp.experts.0",
        "block_sparse_moe.experts.0",
    )
    if experts.shared_intermediate_size:
        shared = ("mlp.shared_expert", "mlp.shared_experts", "feed_forward.shared_expert")
        yield from _mlp(shape, layer, "shared_experts", experts.shared_intermediate_size, 1, *shared)


def _mlp(shape: Shape, layer: int, part: str, width: int, copies: int, *places: str) -> Iterator[Module]:
    matrices = (("gate_proj", "w1", "gate_up_proj"), ("up_proj", "w3", "gate_up_proj"), ("down_proj", "w2"))
    for names in matrices if shape.gated else matrices[1:]:
        below = tuple(f"{place}.{name}" for place in places for name in names)
        yield Module(part=part, layer=layer, names=below, weights=copies * shape.hidden * width)


def _module(part: str, layer: int, weights: int, *names: str) -> Module:
    return Module(part=part, layer=layer, names=names, weights=weights)


def _under(place: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{place}.{name}" for name in names)
