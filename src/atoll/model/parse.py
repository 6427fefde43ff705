"""config.json and weight headers -> ModelCard."""

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

from atoll.errors import BadModel
from atoll.model.card import Attention, AttentionKind, Experts, ModelCard, Quantisation
from atoll.model.count import Counts, Shape, count_active, count_weights, read_linear_attention
from atoll.model.encode import read_encoder
from atoll.model.families import INNER_DEFAULTS, Family, find_family
from atoll.model.fields import Fields
from atoll.model.modules import linear_modules
from atoll.model.quantise import parse_quantisation

_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2, "float8_e4m3fn": 1}
_INNER = ("text_config", "llm_config", "language_config", "thinker_config")


def parse_card(
    config: str, *, name: str, index: str | None = None, sidecar: str | None = None, origin: str = "config.json"
) -> ModelCard:
    """Read the texts of a model's folder.

    Args:
        config: config.json.
        name: what the model is called.
        index: model.safetensors.index.json, which knows the exact size of the weights.
        sidecar: hf_quant_config.json, ModelOpt's word about quantisation.
        origin: the file's name, for error sentences.

    Raises:
        BadModel: not JSON, no language model, or a field that is missing or absurd.
    """
    return card_from_plain(
        _load(config, origin=origin),
        name=name,
        index=_load(index, origin="model.safetensors.index.json") if index is not None else None,
        sidecar=_load(sidecar, origin="hf_quant_config.json") if sidecar is not None else None,
        origin=origin,
    )


def card_from_plain(
    config: object, *, name: str, index: object = None, sidecar: object = None, origin: str = "config.json"
) -> ModelCard:
    """As parse_card, of JSON that is already read."""
    if not isinstance(config, dict):
        raise BadModel(f"{origin}: a JSON object is expected. Is this the config.json of a language model?")
    whole = Fields(config, origin=origin)
    fields, notes = _language_part(whole)
    _refuse_unsized(fields)
    family = find_family(fields.word("model_type", default=whole.word("model_type")))
    shape = _read_shape(fields, family)
    quantisation = parse_quantisation(
        whole if whole.has("quantization_config", "compression_config") else fields,
        Fields(sidecar if isinstance(sidecar, dict) else {}, origin="hf_quant_config.json"),
        modules=tuple(linear_modules(shape)),
    )
    counts = count_weights(shape)
    dtype = _dtype(fields, whole)
    listed = _indexed_bytes(index)
    encoder = read_encoder(whole, hidden=shape.hidden)
    seen = encoder.parameters if encoder else 0
    return ModelCard(
        name=name,
        architecture=_architecture(whole, fields),
        parameters=counts.total + seen,
        active_parameters=count_active(counts, shape.experts),
        weight_bytes=listed or _stored_bytes(counts, quantisation, dtype=dtype) + 2 * seen,
        weight_source="index" if listed else "config",
        layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocab,
        attention=shape.attention,
        experts=shape.experts,
        quantisation=quantisation,
        dtype="bfloat16" if dtype == "float32" else dtype,
        tied_embeddings=shape.tied,
        gated_mlp=shape.gated,
        max_context=_max_context(fields),
        encoder=encoder,
        position_bytes=_position_bytes(fields, shape.attention),
        embedding_parameters=counts.embeddings,
        notes=(*notes, *_notes(fields, family, dtype=dtype)),
    )


def _load(text: str, *, origin: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise BadModel(f"{origin}:{where} this is not JSON. Give the config.json of a language model.") from None


def _language_part(whole: Fields) -> tuple[Fields, tuple[str, ...]]:
    """The part of a multimodal config that describes the language model, under the outer part's defaults."""
    inner = next((whole.find(key) for key in _INNER if isinstance(whole.find(key), dict)), None)
    if inner is None:
        return whole, ()
    if isinstance(inner.get("text_config"), dict):
        inner = {**inner, **inner["text_config"]}
    outer = {key: value for key, value in whole.plain.items() if not isinstance(value, dict)}
    stated = {key: value for key, value in inner.items() if value is not None}
    left_out = INNER_DEFAULTS.get(str(stated.get("model_type")), {})
    merged = Fields({**left_out, **outer, **stated}, origin=whole.origin)
    note = "The encoder for sound is not counted; it comes on top."
    return merged, (note,) if whole.has("audio_config") else ()


_MAMBA = "state-space (Mamba) layers"
# Parts that have sizes of their own; counted as a Llama's they would be far off.
_UNSIZED: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("hybrid_override_pattern", "mamba_num_heads", "mamba_d_state", "ssm_state_size", "ssm_cfg"),
        _MAMBA,
    ),
    (("block_configs",), "layers of different shapes (block_configs, from architecture search)"),
    (("linear_attn_config",), "Kimi Delta Attention layers (linear_attn_config)"),
    (("conv_L_cache",), "short-convolution layers (conv_L_cache)"),
    (("share_q_dim",), "multi-matrix factorisation attention (share_q_dim)"),
    (("compress_ratios", "o_lora_rank"), "compressed sparse attention (compress_ratios)"),
    (("cross_attention_layers",), "layers that attend to pictures (cross_attention_layers)"),
)
_ENCODER = "layers that look both ways and keep no cache (an embedding or reranking encoder)"
_UNSIZED_TYPES = {
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "xlm-roberta": _ENCODER,  # bge-m3, bge-reranker-v2-m3
    "modernbert": _ENCODER,
    "mimo_v2_flash": "attention layers of two widths",
    "minimax_m3": "sparse attention of its own",
    "step3p7": "attention layers of two widths",
    "kimi_k3": "Kimi Delta Attention layers",
    "lfm2": "short-convolution layers",
    "lfm2_moe": "short-convolution layers",
    "step3_text": "multi-matrix factorisation attention",
    "deepseek_v4": "compressed sparse attention",
    "deepseek_ref": "compressed sparse attention",
}


def _refuse_unsized(fields: Fields) -> None:
    """Parts that atoll knows of and cannot size."""
    kind = fields.word("model_type", default="this model")
    layers = set(fields.words("layer_types", "layers_block_type"))
    part = next((words for names, words in _UNSIZED if fields.has(*names)), _UNSIZED_TYPES.get(kind))
    if any("mamba" in one for one in layers):
        part = _MAMBA
    elif part == _MAMBA and layers == {"attention"}:
        part = None  # Granite-4 without its states keeps their sizes
    if part is None and any("conv" in one for one in layers):
        part = "short-convolution layers"
    if part is None and fields.whole("hidden_size_per_layer_input", default=0, least=0):
        part = "embeddings in every layer (hidden_size_per_layer_input)"
    if part is None and 0 in (fields.find("attn_type_list") or ()):
        part = "lightning attention layers (attn_type_list)"
    if part is not None:
        raise BadModel(f"{fields.origin}: {kind} has {part}, which atoll cannot size yet.")


def _read_shape(fields: Fields, family: Family) -> Shape:
    layers = fields.whole("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    hidden = fields.whole("hidden_size", "n_embd", "d_model", "n_embed")
    attention = _read_attention(fields, family, layers=layers, hidden=hidden)
    experts = _read_experts(fields, layers=layers)
    stated_bias = fields.find("attention_bias", "use_bias", "bias")
    return Shape(
        layers=layers,
        hidden=hidden,
        intermediate=_intermediate(fields, family, hidden=hidden, experts=experts),
        vocab=fields.whole("vocab_size", "padded_vocab_size"),
        positions=_positions(fields, family),
        attention=attention,
        experts=experts,
        gated=family.gated,
        tied=fields.flag("tie_word_embeddings", default=family.tied),
        attention_out_bias=stated_bias if isinstance(stated_bias, bool) else family.out_bias,
        mlp_bias=fields.flag("mlp_bias", "use_bias", default=family.mlp_bias),
        family=family,
        linear=read_linear_attention(fields) if attention.linear_layers else None,
        linear_at=_linear_at(fields, layers=layers),
        dense_at=_dense_at(fields, experts, layers=layers),
    )


def _read_attention(fields: Fields, family: Family, *, layers: int, hidden: int) -> Attention:
    heads = fields.whole("num_attention_heads", "n_head", "n_heads", "num_heads")
    window, sliding = _windows(fields, family, layers=layers)
    linear, state = len(_linear_at(fields, layers=layers)), read_linear_attention(fields)
    if fields.has("kv_lora_rank"):
        return _latent_attention(fields, heads=heads)
    kv_heads = _kv_heads(fields, heads=heads)
    if not fields.has("head_dim") and hidden % heads:
        raise BadModel(f"{fields.origin}: hidden_size {hidden} does not divide by {heads} attention heads.")
    if kv_heads > heads or heads % kv_heads:
        raise BadModel(f"{fields.origin}: {heads} attention heads do not share {kv_heads} key-value heads evenly.")
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=fields.whole("head_dim", "attention_head_dim", default=max(1, hidden // heads)),
        sliding_window=window if sliding else None,
        sliding_layers=sliding,
        chunked=fields.has("attention_chunk_size") and not fields.has("sliding_window"),
        global_kv_heads=fields.whole("num_global_key_value_heads")
        if fields.has("num_global_key_value_heads")
        else None,
        global_head_dim=fields.whole("global_head_dim") if fields.has("global_head_dim") else None,
        linear_layers=linear,
        linear_state_bytes=state.state_bytes if linear and state else 0,
        bias=fields.flag("attention_bias", "qkv_bias", "add_qkv_bias", "use_bias", default=family.qkv_bias)
        or family.qkv_bias,
        output_gate=fields.flag("attn_output_gate", default=fields.word("model_type") == "qwen3_next"),
    )


def _latent_attention(fields: Fields, *, heads: int) -> Attention:
    rope = fields.whole("qk_rope_head_dim")
    return Attention(
        kind=AttentionKind.MLA,
        heads=heads,
        kv_heads=heads,
        head_dim=fields.whole("qk_nope_head_dim") + rope,
        kv_lora_rank=fields.whole("kv_lora_rank"),
        q_lora_rank=fields.whole("q_lora_rank", default=0, least=0),
        rope_head_dim=rope,
        value_head_dim=fields.whole("v_head_dim"),
        **_indexer(fields),
    )


# DeepSeek-V3.2's indexer keeps an 8-bit key with a 32-bit scale of each token. In an fp8 cache vLLM packs the latent
# vector beside it in 656 bytes: 512 values, four scales, and the rotary part in 16 bits (v1/kv_cache_interface.py).
PACKED_LATENT_BYTES = 656


def _indexer(fields: Fields) -> dict[str, int]:
    if not fields.has("index_head_dim"):
        return {}
    width = fields.whole("index_head_dim")
    return {
        "index_bytes": width + 4 * ceil(width / 128),
        "index_heads": fields.whole("index_n_heads"),
        "index_head_dim": width,
        "packed_bytes": PACKED_LATENT_BYTES,
    }


def _kv_heads(fields: Fields, *, heads: int) -> int:
    if fields.flag("multi_query") and not fields.flag("new_decoder_architecture"):
        return 1  # Falcon-7B and StarCoder
    return fields.whole("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num", default=heads)


def _windows(fields: Fields, family: Family, *, layers: int) -> tuple[int | None, int]:
    """The window in tokens and how many layers have it."""
    window = fields.find("sliding_window", "attention_chunk_size")
    if not isinstance(window, int) or isinstance(window, bool) or window < 1:
        return None, 0
    if fields.find("use_sliding_window") is False:
        return None, 0
    kinds = fields.words("layer_types")
    if kinds:
        return window, min(layers, sum(kind in {"sliding_attention", "chunked_attention"} for kind in kinds))
    if fields.has("max_window_layers") and fields.flag("use_sliding_window"):
        return window, max(0, layers - fields.whole("max_window_layers", least=0))
    every = fields.find("sliding_window_pattern")
    step = every if isinstance(every, int) and every > 0 else family.sliding_every
    return window, layers - layers // step if step else layers


def _linear_at(fields: Fields, *, layers: int) -> frozenset[int]:
    """Which layers have linear attention; one at least has not."""
    kinds = fields.words("layer_types")
    if kinds:
        return frozenset(
            [number for number, kind in enumerate(kinds[:layers]) if kind == "linear_attention"][: layers - 1]
        )
    if fields.has("full_attention_interval") and layers > 1:
        step = fields.whole("full_attention_interval")
        return frozenset(number for number in range(layers) if (number + 1) % step)
    return frozenset()


def _dense_at(fields: Fields, experts: Experts | None, *, layers: int) -> frozenset[int]:
    """The first layers of DeepSeek and GLM; all but every n-th elsewhere, or those that are listed."""
    if experts is None:
        return frozenset(range(layers))
    listed, step = fields.find("mlp_only_layers"), fields.find("decoder_sparse_step", "interleave_moe_layer_step")
    if fields.has("first_k_dense_replace") or not isinstance(step, int) or isinstance(step, bool) or step < 1:
        return frozenset(range(experts.dense_layers))
    only = {number for number in listed if isinstance(number, int)} if isinstance(listed, list) else set()
    return frozenset(number for number in range(layers) if (number + 1) % step or number in only)


def _read_experts(fields: Fields, *, layers: int) -> Experts | None:
    routed = fields.whole("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts", default=0, least=0)
    if routed <= 1:
        return None
    active = fields.whole("num_experts_per_tok", "experts_per_token", "moe_topk", "moe_top_k", "top_k_experts")
    if active > routed:
        raise BadModel(f"{fields.origin}: a token cannot go to {active} of {routed} experts.")
    size = fields.whole("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size", "ffn_hidden_size")
    shared, shared_size = _shared_experts(fields, size=size)
    return Experts(
        routed=routed,
        active=active,
        shared=shared,
        intermediate_size=size,
        shared_intermediate_size=shared_size,
        dense_layers=_dense_layers(fields, layers=layers),
    )


def _shared_experts(fields: Fields, *, size: int) -> tuple[int, int]:
    """How many, and their intermediate size together."""
    if fields.word("model_type") == "llama4_text":
        return 1, size
    if fields.flag("enable_moe_block"):  # Gemma 4's mixtures keep their ordinary MLP beside the experts
        return 1, fields.whole("intermediate_size")
    if fields.has("shared_expert_intermediate_size"):
        return 1, fields.whole("shared_expert_intermediate_size", least=0)
    count = fields.whole("n_shared_experts", "num_shared_experts", default=0, least=0)
    return count, count * size


def _dense_layers(fields: Fields, *, layers: int) -> int:
    if fields.has("first_k_dense_replace"):
        return min(layers, fields.whole("first_k_dense_replace", least=0))
    step = fields.find("decoder_sparse_step", "interleave_moe_layer_step")
    sparse = layers // step if isinstance(step, int) and not isinstance(step, bool) and step > 0 else layers
    only = fields.find("mlp_only_layers")
    return min(layers, layers - sparse + (len(only) if isinstance(only, list) else 0))


def _intermediate(fields: Fields, family: Family, *, hidden: int, experts: Experts | None) -> int:
    names = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
    if experts is not None and fields.has("intermediate_size_mlp"):
        return fields.whole("intermediate_size_mlp")
    if experts is not None and not fields.has(*names):
        return experts.intermediate_size
    default = family.expansion * hidden if family.expansion else None
    return fields.whole(*names, default=default)


def _positions(fields: Fields, family: Family) -> int:
    if family.learned_positions < 0:
        return 0
    return (
        fields.whole("max_position_embeddings", "n_positions", "n_ctx", default=0, least=0) + family.learned_positions
    )


def _max_context(fields: Fields) -> int:
    """As vLLM's `_get_and_verify_max_len` derives it: a rotary scaling other than Llama 3's multiplies.

    gpt-oss: 4096 x 32 = 131072. DeepSeek-V3: 4096 x 40 = 163840.
    """
    stated = fields.whole(
        "max_position_embeddings", "n_positions", "seq_length", "max_sequence_length", "max_seq_len", default=2048
    )
    scaling = fields.part("rope_scaling") if fields.has("rope_scaling") else fields.part("rope_parameters")
    kind = scaling.word("rope_type", "type")
    if "gemma3" in fields.word("model_type"):
        return stated  # Gemma 3 states the context after scaling
    if kind in {"", "default", "llama3", "longrope", "su", "mrope", "dynamic"} or not scaling.has("factor"):
        return stated
    factor = scaling.number("factor", default=1.0)
    base = scaling.whole("original_max_position_embeddings", default=stated) if kind == "yarn" else stated
    return max(1, int(base * factor))


def _position_bytes(fields: Fields, attention: Attention) -> int:
    """The rotary tables that vLLM keeps: a row of 16-bit sines and cosines for every position.

    layers/rotary_embedding: a linear scaling has a row for every position after it, mrope four for each. gemma-3-4b:
    131072 x 8 rows of 256 values are 0.5 GiB, and 0.06 for the layers with a window.
    """
    if fields.has("position_embedding_type") and "rotary" not in fields.word("position_embedding_type"):
        return 0
    scaling = fields.part("rope_scaling") if fields.has("rope_scaling") else fields.part("rope_parameters")
    rows = fields.whole("max_position_embeddings", "n_positions", default=2048)
    kind = scaling.word("rope_type", "type")
    width = attention.rope_head_dim or attention.head_dim
    turned = width * min(
        1.0, fields.number("partial_rotary_factor", default=scaling.number("partial_rotary_factor", default=1.0))
    )
    stretched = rows * scaling.number("factor", default=1.0) if kind == "linear" else float(rows)
    if kind == "mrope" or scaling.has("mrope_section"):
        stretched *= 4
    local = rows * turned if attention.sliding_layers and kind == "linear" else 0.0
    return round(2 * (stretched * turned + local))


def _dtype(fields: Fields, whole: Fields) -> str:
    stated = fields.word("torch_dtype", "dtype") or whole.word("torch_dtype", "dtype")
    return stated.removeprefix("torch.") if stated.removeprefix("torch.") in _BYTES else "bfloat16"


def _stored_bytes(counts: Counts, quantisation: Quantisation, *, dtype: str) -> int:
    """Bytes of all weights. fp32 checkpoints are loaded as 16 bit, which is what an engine does with them."""
    plain_bits = 16 if dtype == "float32" else 8 * _BYTES[dtype]
    bits = 0.0
    for part in ("attention", "mlp", "experts", "shared_experts"):
        plain = quantisation.plain_share(part)
        bits += getattr(counts, part) * (plain * plain_bits + (1 - plain) * quantisation.stored_bits)
    return round((bits + (counts.embeddings + counts.other) * plain_bits) / 8)


def _indexed_bytes(index: object) -> int | None:
    """The index's total; None when it has none."""
    metadata: object = index.get("metadata") if isinstance(index, dict) else None
    total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    if isinstance(total, float) and total.is_integer():
        total = int(total)
    if total is None:
        return None
    if isinstance(total, bool) or not isinstance(total, int) or not 0 < total < 10**15:
        raise BadModel(
            f"model.safetensors.index.json: metadata.total_size is {total!r}; a number of bytes is expected."
        )
    return total


def _architecture(whole: Fields, fields: Fields) -> str:
    listed = whole.words("architectures") or fields.words("architectures")
    return listed[0] if listed else whole.word("model_type", default="unknown")


def _notes(fields: Fields, family: Family, *, dtype: str) -> list[str]:
    notes: list[str] = []
    kind: Any = fields.word("model_type", default="(none)")
    if not family.known:
        notes.append(f"model_type {kind} is not one that atoll knows; it is counted as a Llama-like model.")
    if dtype == "float32":
        notes.append("The weights are stored as float32; engines load them as 16 bit, which is what is counted.")
    return notes
