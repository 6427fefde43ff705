"""What config.json says, and what it cannot say."""

import json
from pathlib import Path

import pytest

from atoll.errors import BadModel
from atoll.model.parse import card_from_plain, parse_card
from atoll.units import GIB

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "float16",
}


def card(**changes):
    return card_from_plain({**LLAMA, **changes}, name="x")


# Published: safetensors totals on these models' cards, Falcon's without its copy of the tied embedding.
OLDER = {
    "microsoft/phi-2": (
        {"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "num_attention_heads": 32,
         "num_key_value_heads": 32, "num_hidden_layers": 32, "vocab_size": 51200}, 2_779_683_840),
    "EleutherAI/gpt-neox-20b": (
        {"model_type": "gpt_neox", "hidden_size": 6144, "intermediate_size": 24576, "num_attention_heads": 64,
         "num_hidden_layers": 44, "vocab_size": 50432, "num_key_value_heads": None}, 20_554_567_680),
    "facebook/opt-6.7b": (
        {"model_type": "opt", "hidden_size": 4096, "ffn_dim": 16384, "intermediate_size": None,
         "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 50272, "max_position_embeddings": 2048,
         "num_key_value_heads": None}, 6_658_473_984),
    "tiiuae/falcon-7b": (
        {"model_type": "falcon", "hidden_size": 4544, "n_head": 71, "num_attention_heads": 71, "num_hidden_layers": 32,
         "vocab_size": 65024, "multi_query": True, "intermediate_size": None, "num_key_value_heads": None},
        6_921_720_704),
    "openai-community/gpt2": (
        {"model_type": "gpt2", "n_embd": 768, "hidden_size": None, "n_layer": 12, "num_hidden_layers": None,
         "n_head": 12, "num_attention_heads": None, "n_positions": 1024, "max_position_embeddings": None,
         "vocab_size": 50257, "intermediate_size": None, "num_key_value_heads": None}, 124_439_808),
    "bigcode/starcoder2-3b": (
        {"model_type": "starcoder2", "hidden_size": 3072, "intermediate_size": 12288, "num_attention_heads": 24,
         "num_key_value_heads": 2, "num_hidden_layers": 30, "vocab_size": 49152}, 3_030_371_328),
    "allenai/OLMo-2-1124-7B": (
        {"model_type": "olmo2", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
         "num_key_value_heads": 32, "num_hidden_layers": 32, "vocab_size": 100352}, 7_298_011_136),
}  # fmt: skip


@pytest.mark.parametrize("name", OLDER)
def test_other_families_count_as_published(name):
    changes, published = OLDER[name]
    assert card(**changes).parameters == pytest.approx(published, rel=0.005)


def test_an_unknown_architecture_is_counted_as_llama_and_says_so():
    strange = card(model_type="brandnew", architectures=["BrandNewForCausalLM"])
    assert strange.parameters == card().parameters
    assert strange.notes == ("model_type brandnew is not one that atoll knows; it is counted as a Llama-like model.",)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_size": None}, "config.json: hidden_size is missing."),
        ({"num_hidden_layers": 0}, "config.json: num_hidden_layers is 0; a whole number from 1 up is expected."),
        ({"num_hidden_layers": "many"}, "config.json: num_hidden_layers is 'many'; a whole number"),
        ({"vocab_size": True}, "config.json: vocab_size is True; a whole number"),
        ({"vocab_size": 10**12}, "config.json: vocab_size is 1000000000000; a whole number"),
        ({"num_key_value_heads": 5}, "config.json: 32 attention heads do not share 5 key-value heads evenly."),
        ({"hidden_size": 4097}, "config.json: hidden_size 4097 does not divide by 32 attention heads."),
        ({"num_experts": 4, "num_experts_per_tok": 8}, "config.json: a token cannot go to 8 of 4 experts."),
        ({"quantization_config": {"quant_method": "magic"}}, "config.json: quantization_config.quant_method 'magic'"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 99}},
            "config.json: quantization_config says 99 bits",
        ),
        (
            {"quantization_config": {"quant_method": "compressed-tensors"}},
            "config.json: quantization_config.config_groups names no weights.",
        ),
    ],
)
def test_missing_and_absurd_fields_are_one_sentence(changes, sentence):
    with pytest.raises(BadModel) as caught:
        card(**changes)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"text"', "[" * 100_000, "NaN", '{"a": 1}'])
def test_text_that_is_no_config_is_a_bad_model(text):
    with pytest.raises(BadModel):
        parse_card(text, name="x", origin="broken/config.json")


@pytest.mark.parametrize(
    "changes", [{"hybrid_override_pattern": "MEM*"}, {"layer_types": ["mamba", "attention"]}, {"mamba_d_state": 16}]
)
def test_state_space_models_are_refused_rather_than_counted_wrongly(changes):
    with pytest.raises(BadModel, match="has state-space"):
        card(**changes)


def test_the_index_knows_better():
    index = json.dumps({"metadata": {"total_size": 13_476_838_400}, "weight_map": {}})
    read = parse_card(json.dumps(LLAMA), name="x", index=index)
    assert (read.weight_bytes, read.weight_source) == (13_476_838_400, "index")
    assert parse_card(json.dumps(LLAMA), name="x", index="{}").weight_source == "config"


def test_an_absurd_index_is_named():
    with pytest.raises(BadModel, match="total_size is -5"):
        parse_card(json.dumps(LLAMA), name="x", index='{"metadata": {"total_size": -5}}')


def test_the_sidecar_of_modelopt_is_read():
    sidecar = json.dumps({"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}})
    read = parse_card(json.dumps(LLAMA), name="x", sidecar=sidecar)
    assert (read.quantisation.method, read.quantisation.kv_dtype) == ("fp8", "fp8")


def test_float32_checkpoints_are_loaded_as_16_bit():
    read = card(torch_dtype="float32")
    assert read.weight_bytes == 2 * read.parameters
    assert "float32" in read.notes[0]


LINEAR = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
REST = 2 * (2 * 32000 * 4096 + 65 * 4096)  # embeddings and norms, 16 bit


@pytest.mark.parametrize(
    ("config", "method", "bits", "group", "weight_bytes"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq", 4, 128, LINEAR * 4.15625 / 8 + REST),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq", 8, 128, LINEAR * 8.1875 / 8 + REST),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "gptq", 4, None, LINEAR * 4 / 8 + REST),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8, None, LINEAR + REST),
        ({"quant_method": "fbgemm_fp8"}, "fp8", 8, None, LINEAR + REST),
        ({"quant_method": "mxfp4"}, "mxfp4", 4, 32, LINEAR * 4.25 / 8 + REST),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", 4, 16, LINEAR * 4.5 / 8 + REST),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4.127, None, LINEAR * 4.127 / 8 + REST),
        (
            {"quant_method": "compressed-tensors",
             "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}}},
            "compressed-tensors", 4, 128, LINEAR * 4.15625 / 8 + REST,
        ),
        (
            {"quant_method": "compressed-tensors",
             "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"},
                                           "input_activations": {"num_bits": 8, "type": "float"}}}},
            "fp8", 8, None, LINEAR + REST,
        ),
    ],
)  # fmt: skip
def test_quantisation_methods_and_what_they_weigh(config, method, bits, group, weight_bytes):
    read = card(quantization_config=config)
    found = read.quantisation
    assert (found.method, found.weight_bits, found.group_size) == (method, bits, group)
    assert read.weight_bytes == pytest.approx(weight_bytes, rel=1e-9)


def test_parts_left_at_full_precision_are_not_shrunk():
    plain, fp8 = card(), card(quantization_config={"quant_method": "fp8"})
    skipping = card(
        quantization_config={"quant_method": "fp8", "modules_to_not_convert": ["re:.*self_attn.*", "lm_head"]}
    )
    assert skipping.quantisation.skips == ("attention",)
    assert fp8.weight_bytes < skipping.weight_bytes < plain.weight_bytes
    assert skipping.weight_bytes - fp8.weight_bytes == 32 * 4 * 4096 * 4096


def test_norms_and_routers_in_the_list_of_exceptions_mean_nothing():
    listed = [f"model.layers.{n}.{part}" for n in range(32) for part in ("post_attention_layernorm", "mlp.gate")]
    read = card(quantization_config={"quant_method": "fp8", "modules_to_not_convert": listed})
    assert read.quantisation.skips == ()


def test_the_language_model_and_the_encoder_of_a_multimodal_config():
    nested = {
        "model_type": "llava",
        "text_config": LLAMA,
        "vision_config": {"hidden_size": 1024},
        "torch_dtype": "bfloat16",
    }
    read = card_from_plain(nested, name="x")
    assert read.encoder is not None
    assert read.parameters == card().parameters + read.encoder.parameters
    assert read.layers == card().layers


def test_an_encoder_is_as_large_as_its_log_says():
    """Mistral-Small-3.1 took 0.85 GiB more than its language model and rotary tables; row L27 of memory.csv."""
    folder = Path(__file__).parents[1] / "data" / "memory" / "configs" / "Mistral-Small-3.1-24B"
    read = parse_card((folder / "config.json").read_text(), name="x")
    assert read.encoder is not None
    assert (read.weight_bytes + read.position_bytes) / GIB == pytest.approx(44.76, abs=0.02)


@pytest.mark.parametrize(
    "listed",
    [
        ["re:.*self_attn.*"],
        ["model.layers.*.self_attn*"],
        ["self_attn"],
        [f"model.layers.{layer}.self_attn" for layer in range(32)],
        [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(32) for name in "qkvo"],
    ],
)
def test_exceptions_are_understood_as_every_tool_writes_them(listed):
    read = card(quantization_config={"quant_method": "fp8", "ignore": ["lm_head", *listed]})
    assert read.quantisation.plain_shares == (("attention", 1.0),)


def test_an_encoders_layers_are_not_the_language_models():
    listed = [f"vision_tower.transformer.layers.{layer}.attention.q_proj" for layer in range(32)]
    read = card(quantization_config={"quant_method": "fp8", "ignore": listed})
    assert read.quantisation.plain_shares == ()


def test_some_layers_of_a_part_are_left_out_by_their_share():
    listed = [f"model.layers.{layer}.mlp.down_proj" for layer in (0, 31)]
    read = card(quantization_config={"quant_method": "fp8", "ignore": listed})
    assert read.quantisation.plain_share("mlp") == pytest.approx(2 / 96)
    assert read.quantisation.skips == ()


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({}, 4096),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}}, 131072),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "max_position_embeddings": 131072}, 131072),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}, 4096),
    ],
)
def test_the_longest_context_is_derived_as_vllm_does(changes, context):
    assert card(**changes).max_context == context


def test_head_dim_may_be_set_apart_from_the_hidden_size():
    nemo = card(hidden_size=5120, num_attention_heads=32, num_key_value_heads=8, head_dim=128)
    assert nemo.head_dim == 128


# As Google publishes them: what transformers has as a default is left out. Totals as on the hub.
GEMMA_3 = {
    "google/gemma-3-4b-it": (
        {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}, 4_300_079_472),
    "google/gemma-3-27b-it": (
        {"head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504, "num_attention_heads": 32,
         "num_hidden_layers": 62, "num_key_value_heads": 16}, 27_432_406_640),
}  # fmt: skip


@pytest.mark.parametrize("name", GEMMA_3)
def test_gemma_3_leaves_out_what_transformers_knows(name):
    inner, published = GEMMA_3[name]
    text = {
        **inner,
        "model_type": "gemma3_text",
        "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    }
    read = card_from_plain({"model_type": "gemma3", "text_config": text, "vision_config": {}}, name=name)
    assert read.parameters == pytest.approx(published, rel=0.001)
    assert read.max_context == 131072  # stated after scaling


def test_a_top_level_field_has_no_default():
    with pytest.raises(BadModel, match=r"^config.json: num_attention_heads is missing"):
        card(num_attention_heads=None)


@pytest.mark.parametrize("wrap", [{}, {"quant_method": "modelopt"}, {"producer": {"name": "modelopt"}}])
def test_modelopts_own_file_inside_config_json(wrap):
    stated = {**wrap, "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}
    read = card(quantization_config=stated).quantisation
    assert (read.method, read.kv_dtype) == ("nvfp4", "fp8")


def test_a_quantisation_that_is_only_a_word_is_refused():
    with pytest.raises(BadModel, match="an object with quant_method is expected"):
        card(quantization_config="awq")
