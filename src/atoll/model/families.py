"""What the families of models do differently from Llama, by config.json's model_type.

Read from the model definitions in Hugging Face transformers 4.57 (models/*/modeling_*.py and configuration_*.py); the
counts that come out are held against published ones in tests/model/test_published_counts.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Defaults of a model_type; what config.json says itself wins."""

    known: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    gated: bool = True
    tied: bool = False
    layer_norms: int = 2  # norm vectors of hidden size in a layer
    norm_bias: bool = False
    final_norm: bool = True
    qk_norm: str | None = None  # "head": one vector of head_dim for queries, one for keys; "full": over all heads
    learned_positions: int = 0  # rows of the position table beyond max_position_embeddings; -1: no table
    head_bias: bool = False
    sliding_every: int | None = None  # every n-th layer attends to everything, the others to the window
    expansion: int | None = None  # intermediate size in hidden sizes, where config.json does not say


_ROTARY = -1
_PLAIN_BIASED = {"gated": False, "qkv_bias": True, "out_bias": True, "mlp_bias": True, "norm_bias": True}

_LLAMA = Family(learned_positions=_ROTARY)


def _rotary(**changes: object) -> Family:
    return Family(learned_positions=_ROTARY, **changes)  # type: ignore[arg-type]


FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "mixtral", "mistral3", "ministral", "yi", "phi3", "granite", "smollm3"), _LLAMA
    ),
    **dict.fromkeys(
        (
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "glm_moe_dsa",
            "glm4_moe_lite",
            "kimi_k2",
            "llama4_text",
            "dbrx",
            "mimo",
            "granitemoehybrid",
            "solar_open",
            "axk1",
        ),
        _LLAMA,
    ),
    "exaone": _rotary(),
    "exaone4": _rotary(qk_norm="head"),
    "exaone_moe": _rotary(qk_norm="head"),
    "hyperclovax": _rotary(layer_norms=4),
    "seed_oss": _rotary(qkv_bias=True),
    "minimax_m2": _rotary(qk_norm="full"),
    **dict.fromkeys(
        ("qwen2", "qwen2_moe", "qwen2_vl_text", "qwen2_5_vl_text", "qwen2_vl", "qwen2_5_vl"), _rotary(qkv_bias=True)
    ),
    **dict.fromkeys(("qwen3", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text"), _rotary(qk_norm="head")),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _rotary(qk_norm="head")),
    "gemma": _rotary(tied=True),
    "gemma2": _rotary(tied=True, layer_norms=4, sliding_every=2),
    **dict.fromkeys(("gemma3_text", "gemma3"), _rotary(tied=True, layer_norms=4, qk_norm="head", sliding_every=6)),
    "gemma4_text": _rotary(tied=True, layer_norms=4, qk_norm="head", sliding_every=6),
    "gpt_oss": _rotary(qkv_bias=True, out_bias=True, mlp_bias=True),
    "glm4": _rotary(layer_norms=4),
    "glm4_moe": _rotary(qkv_bias=True, qk_norm=None),
    "olmo2": _rotary(qk_norm="full"),
    "cohere": _rotary(tied=True, layer_norms=1),
    "stablelm": _rotary(norm_bias=True),
    "starcoder2": _rotary(tied=True, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True, norm_bias=True),
    "phi": _rotary(layer_norms=1, head_bias=True, **_PLAIN_BIASED),
    "gpt_neox": _rotary(expansion=4, **_PLAIN_BIASED),
    "falcon": _rotary(gated=False, tied=True, norm_bias=True, layer_norms=1, expansion=4),
    "bloom": _rotary(tied=True, expansion=4, **_PLAIN_BIASED),
    "gpt2": Family(tied=True, expansion=4, **_PLAIN_BIASED),  # type: ignore[arg-type]
    "opt": Family(tied=True, expansion=4, **(_PLAIN_BIASED | {"learned_positions": 2})),  # type: ignore[arg-type]
    "gpt_bigcode": Family(tied=True, expansion=4, **_PLAIN_BIASED),  # type: ignore[arg-type]
}
# What a multimodal config leaves out of its text_config because transformers has it as a default
# (configuration_{gemma3,llama,mistral}.py); Google's Gemma 3 and the LLaVA models are published so.
INNER_DEFAULTS: dict[str, dict[str, int]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "mistral": {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000},
}
UNKNOWN = Family(known=False, learned_positions=_ROTARY)


def find_family(model_type: str) -> Family:
    """The family of a model_type, or Llama's ways marked as not known."""
    return FAMILIES.get(model_type, UNKNOWN)
