"""Every model that we ship, against what its maker published."""

import json
import re
from importlib.resources import files

import pytest

from atoll.errors import BadModel
from atoll.model.card import AttentionKind
from atoll.model.catalog import find_card, known_models, unsized_part
from atoll.model.parse import card_from_plain
from atoll.model.read import read_model

MODELS = sorted((files("atoll") / "data" / "models").iterdir(), key=lambda path: path.name)
DOCUMENTS = {path.name: json.loads(path.read_text()) for path in MODELS}

# Weights that a token meets, as published: Mixtral 12.9B (arXiv 2401.04088), DeepSeek-V3 37B (2412.19437), Kimi-K2 32B
# (2507.20534), Qwen3 22B, 3.3B and 35B (their model cards), Llama 4 Scout 17B (its model card).
ACTIVE = {
    "Mixtral-8x7B-v0.1": 12.9e9,
    "DeepSeek-V3": 37e9,
    "Kimi-K2-Instruct": 32e9,
    "Qwen3-235B-A22B": 22e9,
    "Qwen3-30B-A3B": 3.3e9,
    "Qwen3-Coder-480B-A35B-Instruct": 35e9,
    "Llama-4-Scout-17B-16E": 17e9,
}


@pytest.mark.parametrize("name", [name for name, document in DOCUMENTS.items() if "published" in document])
def test_parameters_are_those_that_were_published(name):
    document = DOCUMENTS[name]
    card = card_from_plain(document["config"], name=name)
    assert card.parameters == pytest.approx(document["published"]["parameters"], rel=0.005)


@pytest.mark.parametrize(("name", "published"), ACTIVE.items())
def test_active_parameters_are_those_that_were_published(name, published):
    card = find_card(name)
    assert card is not None
    assert card.active_parameters == pytest.approx(published, rel=0.03)


def test_every_shipped_config_names_its_source_and_parses():
    for name in known_models():
        card = find_card(name)
        assert card is not None
        assert card.name == name
        assert not any("not one that atoll knows" in note for note in card.notes), name
    assert all(document["source"] for document in DOCUMENTS.values())


@pytest.mark.parametrize(
    ("asked", "name", "weight_gb"),
    [
        ("Qwen/Qwen2.5-32B-Instruct", "Qwen/Qwen2.5-32B-Instruct", 65.5),
        ("qwen2.5-32b-instruct", "Qwen/Qwen2.5-32B-Instruct", 65.5),
        ("QWQ-32b", "Qwen/QwQ-32B", 65.5),
        ("Qwen/Qwen2.5-14B-Instruct-AWQ", "Qwen/Qwen2.5-14B-Instruct-AWQ", 9.98),  # 9.98 GB on the hub
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4", "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4", 41.6),  # 41.6 GB on the hub
        ("Qwen/Qwen3-235B-A22B-FP8", "Qwen/Qwen3-235B-A22B-FP8", 236.4),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "nvidia/Llama-3.1-8B-Instruct-FP8", 9.08),  # 9.08 GB on the hub
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 72.7),
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b", 13.76),  # 13.76 GB on the hub
        ("openai/gpt-oss-120b", "openai/gpt-oss-120b", 65.25),  # 65.25 GB on the hub
        ("deepseek-r1", "deepseek-ai/DeepSeek-R1", 673.0),
    ],
)
def test_names_are_found_with_and_without_organisation_and_in_any_case(asked, name, weight_gb):
    card = find_card(asked)
    assert card is not None
    assert card.name == name
    assert card.weight_bytes == pytest.approx(weight_gb * 1e9, rel=0.005)


def test_a_quantised_name_is_marked_as_read_from_the_name():
    card = find_card("Qwen/Qwen2.5-14B-Instruct-AWQ")
    assert card is not None
    assert card.notes == ("How the weights are quantised was taken from the name.",)
    assert (card.quantisation.method, card.quantisation.weight_bits, card.quantisation.group_size) == ("awq", 4, 128)


def test_qwens_and_nvidias_fp8_differ():
    qwen, nvidia = find_card("Qwen/Qwen3-32B-FP8"), find_card("nvidia/Qwen3-32B-FP8")
    assert qwen is not None
    assert nvidia is not None
    assert (qwen.quantisation.block_size, qwen.quantisation.kv_dtype) == ((128, 128), None)
    assert (nvidia.quantisation.block_size, nvidia.quantisation.kv_dtype) == (None, "fp8")


def test_another_organisations_copy_says_whose_config_it_is():
    card = find_card("unsloth/Llama-3.3-70B-Instruct")
    assert card is not None
    assert card.name == "unsloth/Llama-3.3-70B-Instruct"
    assert "meta-llama/Llama-3.3-70B-Instruct" in card.notes[0]


def test_72b_quantised_has_its_own_padded_width():
    """29568 channels do not divide into groups of 128 over 8 GPUs; Qwen padded them to 29696 and says so."""
    plain, awq = find_card("Qwen/Qwen2.5-72B-Instruct"), find_card("Qwen/Qwen2.5-72B-Instruct-AWQ")
    assert plain is not None
    assert awq is not None
    assert (plain.intermediate_size, awq.intermediate_size) == (29568, 29696)


@pytest.mark.parametrize(
    ("name", "window", "sliding", "layers"),
    [
        ("Mistral-7B-v0.1", 4096, 32, 32),
        ("Mistral-7B-Instruct-v0.3", None, 0, 32),
        ("gemma-2-9b", 4096, 21, 42),
        ("gemma-3-27b-it", 1024, 52, 62),
        ("gpt-oss-120b", 128, 18, 36),
        ("Qwen2.5-32B-Instruct", None, 0, 64),
    ],
)
def test_sliding_windows(name, window, sliding, layers):
    card = find_card(name)
    assert card is not None
    assert (card.attention.sliding_window, card.attention.sliding_layers, card.layers) == (window, sliding, layers)


def test_hybrid_models_keep_keys_in_every_fourth_layer_only():
    card = find_card("Qwen/Qwen3.5-27B")
    assert card is not None
    assert (card.layers, card.attention.linear_layers, card.kv_layers) == (64, 48, 16)
    assert card.attention.linear_state_bytes == 4 * 48 * 128 * 128 + 2 * 10240 * 3


def test_latent_attention():
    card = find_card("DeepSeek-V3")
    assert card is not None
    assert card.attention.kind is AttentionKind.MLA
    assert (card.attention.kv_lora_rank, card.attention.rope_head_dim, card.head_dim) == (512, 64, 192)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", "state-space (Mamba) layers"),
        ("ai21labs/AI21-Jamba-Mini-1.7", "state-space (Mamba) layers"),
        ("tiiuae/Falcon-H1-34B-Instruct", "state-space (Mamba) layers"),
        ("ibm-granite/granite-4.0-h-small", "state-space (Mamba) layers"),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1_5", "layers of different shapes (from architecture search)"),
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", "Kimi Delta Attention layers"),
        ("LiquidAI/LFM2-8B-A1B", "short-convolution layers"),
        ("stepfun-ai/step3", "multi-matrix factorisation attention"),
        ("google/gemma-4-E4B-it", "embeddings in every layer"),
        ("BAAI/bge-m3", "layers that look both ways and keep no cache (an embedding or reranking encoder)"),
    ],
)
def test_a_known_model_that_cannot_be_sized_is_refused_by_the_part_that_is_missing(name, part):
    with pytest.raises(BadModel, match=re.escape(f"{name} has {part}, which atoll cannot size yet.")):
        read_model(name)


def test_no_name_is_both_sized_and_refused():
    assert [name for name in known_models() if unsized_part(name)] == []


@pytest.mark.parametrize("name", ["", "no-such-model", "Qwen/", "/", "-AWQ", "Qwen2.5-32B-Instruct-AWQ-AWQ"])
def test_unknown_names_are_unknown(name):
    assert find_card(name) is None
