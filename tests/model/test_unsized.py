"""What cannot be sized is refused by the part that is in the way; what looks alike is sized."""

import pytest

from atoll.cost.memory import kv_bytes_per_token
from atoll.errors import BadModel
from atoll.model.catalog import find_card
from atoll.model.parse import card_from_plain

PLAIN = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*"}, "state-space (Mamba) layers"),
        ({"model_type": "jamba", "mamba_d_state": 16}, "state-space (Mamba) layers"),
        ({"model_type": "xlm-roberta", "type_vocab_size": 1}, "layers that look both ways and keep no cache"),
        ({"model_type": "granitemoehybrid", "layer_types": ["mamba", "attention"]}, "state-space (Mamba) layers"),
        ({"model_type": "falcon_h1", "mamba_d_state": 256}, "state-space (Mamba) layers"),
        ({"model_type": "nemotron-nas", "block_configs": [{}]}, "layers of different shapes"),
        ({"model_type": "kimi_linear", "linear_attn_config": {"kda_layers": [1]}}, "Kimi Delta Attention"),
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, "short-convolution layers"),
        ({"model_type": "step3_text", "share_q_dim": 2048}, "multi-matrix factorisation attention"),
        ({"model_type": "deepseek_v4", "compress_ratios": [0, 4]}, "compressed sparse attention"),
    ],
)
def test_the_sentence_names_the_part(changes, part):
    with pytest.raises(BadModel, match="cannot size yet") as refused:
        card_from_plain({**PLAIN, **changes}, name="x")
    assert part in str(refused.value)


def test_deepseek_v32_keeps_an_index_beside_its_vector():
    """A layer: 576 x 2 bytes and 132 of the indexer; in an fp8 cache 656 and 132 (vllm/v1/kv_cache_interface.py)."""
    card = find_card("deepseek-ai/DeepSeek-V3.2")
    assert card is not None
    assert kv_bytes_per_token(card) == 61 * (1152 + 132)
    assert kv_bytes_per_token(card, "fp8") == 61 * (656 + 132)
    assert card.parameters == pytest.approx(671.9e9, rel=0.001)  # 685 B on the hub with the layer that predicts ahead


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("zai-org/GLM-5", 744),
        ("zai-org/GLM-4.5-Air", 106),
        ("zai-org/GLM-4.6", 353),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 80),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8.29),
        ("Qwen/Qwen3-VL-8B-Instruct", 8.77),
        ("LGAI-EXAONE/EXAONE-4.0-32B", 32.0),
        ("HuggingFaceTB/SmolLM3-3B", 3.08),
        ("MiniMaxAI/MiniMax-M2", 230),
        ("Qwen/Qwen3-Embedding-8B", 7.57),
    ],
)
def test_as_many_parameters_as_their_makers_publish(name, billions):
    card = find_card(name)
    assert card is not None
    assert card.parameters / 1e9 == pytest.approx(billions, rel=0.01)
