"""Matrices as tensor parallelism cuts them."""

import pytest

from atoll.cost.operations import (
    Gemm,
    attention_heads,
    distinct_experts,
    expert_block,
    layer_gemms,
    weight_bytes_per_value,
    weight_format,
)
from atoll.model.card import Quantisation
from atoll.model.read import read_model

QWEN = read_model("Qwen/Qwen2.5-32B-Instruct")
OSS = read_model("openai/gpt-oss-120b")


def test_qwen_over_two_gpus():
    assert layer_gemms(QWEN, 2) == (
        Gemm(name="qkv", columns=3584, inner=5120, count=64),
        Gemm(name="o", columns=5120, inner=2560, count=64),
        Gemm(name="gate_up", columns=27648, inner=5120, count=64),
        Gemm(name="down", columns=5120, inner=13824, count=64),
    )


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-32B-Instruct", "meta-llama/Llama-3.1-70B", "Qwen/Qwen3-8B"])
def test_the_matrices_and_the_vocabulary_are_all_the_weights(name):
    card = read_model(name)
    dense = sum(gemm.columns * gemm.inner * gemm.count for gemm in layer_gemms(card, 1))
    vocabulary = (1 if card.tied_embeddings else 2) * card.vocab_size * card.hidden_size
    assert dense + vocabulary == pytest.approx(card.parameters, rel=0.001)


def test_the_experts_are_most_of_a_mixture():
    block = expert_block(OSS, 1)
    experts = 3 * block.hidden * block.intermediate * block.routed * block.count
    dense = sum(gemm.columns * gemm.inner * gemm.count for gemm in layer_gemms(OSS, 1))
    vocabulary = 2 * OSS.vocab_size * OSS.hidden_size
    assert experts + dense + vocabulary == pytest.approx(OSS.parameters, rel=0.01)


def test_kv_heads_are_repeated_when_there_are_fewer_than_gpus():
    assert [part.kv_heads for part in attention_heads(QWEN, 8)] == [1]
    assert [part.kv_heads for part in attention_heads(QWEN, 16)] == [1]


def test_half_the_layers_of_gpt_oss_look_back_128_tokens():
    assert sorted((part.window or 0, part.count) for part in attention_heads(OSS, 1)) == [(0, 18), (128, 18)]


def test_eight_tokens_choosing_four_of_128_experts_hit_28_of_them():
    assert distinct_experts(8, 128, 4) == pytest.approx(28.7, abs=0.1)
    assert distinct_experts(1, 128, 4) == pytest.approx(4)
    assert distinct_experts(10_000, 128, 4) == pytest.approx(128)


@pytest.mark.parametrize(
    ("quantisation", "has_fp8", "expected"),
    [
        (Quantisation(), True, "bf16"),
        (Quantisation(method="fp8", weight_bits=8, activation_bits=8), True, "fp8"),
        (Quantisation(method="fp8", weight_bits=8, activation_bits=8, block_size=(128, 128)), True, "fp8_block"),
        (Quantisation(method="fp8", weight_bits=8, activation_bits=8), False, "int8_wo"),  # Marlin on Ampere
        (Quantisation(method="awq", weight_bits=4, group_size=128), True, "int4_wo"),
        (Quantisation(method="gptq", weight_bits=8, group_size=128), True, "int8_wo"),
        (Quantisation(method="mxfp4", weight_bits=4, group_size=32), True, "mxfp4_wo"),
    ],
)
def test_formats_that_the_gemms_run_in(quantisation, has_fp8, expected):
    assert weight_format(quantisation, has_fp8=has_fp8) == expected


def test_fp8_on_a_plain_checkpoint():
    assert weight_format(Quantisation(), override="fp8") == "fp8"
    assert weight_bytes_per_value("mxfp4_wo") == pytest.approx(0.53125)
