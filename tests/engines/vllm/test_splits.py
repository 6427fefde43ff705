"""How models can be split, as vLLM would have it."""

import pytest

from atoll.engines.vllm.splits import explain_sizes, legal_tensor_parallel, why_not_on, why_not_split, why_whole_experts
from atoll.inventory.catalog import find_gpu
from atoll.model.catalog import find_card


def model(name):
    card = find_card(name)
    assert card is not None
    return card


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("Qwen2.5-32B-Instruct", (1, 2, 4, 8)),
        ("Qwen2.5-7B-Instruct", (1, 2, 4)),  # 28 heads
        ("Qwen2.5-0.5B-Instruct", (1, 2)),  # 14 heads
        ("Llama-3.1-70B-Instruct", (1, 2, 4, 8, 16)),  # KV heads copied twice over 16
        ("Llama-3.2-3B", (1, 2, 4, 8)),  # 24 heads, but 8 KV heads do not divide by 3
        ("phi-4", (1, 2)),  # 10 KV heads: not over 4, and 8 is no multiple of 10
        ("DeepSeek-R1", (1, 2, 4, 8, 16)),
        ("gpt-oss-120b", (1, 2, 4, 8, 16)),
        ("Qwen2.5-14B-Instruct-AWQ", (1, 2, 4)),  # 13824 / 8 is 13.5 groups of 128
        ("Qwen2.5-14B-Instruct", (1, 2, 4, 8)),
        ("Qwen2.5-72B-Instruct-AWQ", (1, 2, 4, 8)),  # padded by Qwen so that 8 is possible
        ("Qwen3-235B-A22B-FP8", (1, 2, 4)),  # 1536 / 8 = 192 is no whole number of blocks of 128
        ("Qwen3-30B-A3B-FP8", (1, 2)),
        ("Qwen3-30B-A3B", (1, 2, 4, 8, 16)),
    ],
)
def test_legal_sizes(name, legal):
    assert legal_tensor_parallel(model(name)) == legal


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("Qwen2.5-32B-Instruct", 3, "its 40 attention heads do not divide by 3"),
        ("Qwen2.5-32B-Instruct", 5, "its 8 key-value heads do not divide by 5"),
        ("Qwen2.5-7B-Instruct", 7, "7 is no multiple of its 4 key-value heads"),
        ("Qwen2.5-14B-Instruct-AWQ", 8, "13824 / 8 intermediate channels are no whole number of awq groups of 128"),
        ("Qwen3-30B-A3B-FP8", 4, "768 / 4 intermediate channels are no whole number of fp8 blocks of 128"),
    ],
)
def test_the_reason_is_one_sentence_with_the_numbers(name, size, reason):
    why = why_not_split(model(name), size)
    assert why is not None
    assert why.startswith(f"{model(name).name} cannot be split over {size} GPUs: {reason}")
    assert why.endswith(".")


def test_one_gpu_is_always_legal():
    assert why_not_split(model("phi-4"), 1) is None


def test_the_legal_sizes_in_words():
    assert explain_sizes(model("Qwen2.5-32B-Instruct")) == "legal sizes are 1, 2, 4 and 8"


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("Qwen2.5-7B-Instruct", "P100-PCIe-16GB", "vLLM needs compute capability 7.0, P100-PCIe-16GB has 6.0."),
        ("Qwen2.5-7B-Instruct-AWQ", "V100-SXM-32GB", "awq weights need compute capability 7.5, V100-SXM-32GB has 7.0."),
        ("gpt-oss-20b", "T4-16GB", "mxfp4 weights need compute capability 8.0, T4-16GB has 7.5."),
        ("gpt-oss-20b", "A100-SXM-40GB", None),
        ("Qwen2.5-7B-Instruct", "V100-SXM-32GB", None),
    ],
)
def test_cards_that_are_too_old(name, kind, reason):
    assert why_not_on(model(name), find_gpu(kind)) == reason


# Whole experts


def test_experts_whose_slices_would_cut_a_block_stay_whole():
    card = model("Qwen3-235B-A22B-FP8")
    assert why_not_split(card, 8) is not None
    assert why_not_split(card, 8, expert_parallel=True) is None
    assert why_whole_experts(card, 8) == "1536 / 8 intermediate channels are no whole number of fp8 blocks of 128"
    assert why_whole_experts(card, 4) is None
    assert explain_sizes(card).startswith("legal sizes are 1, 2 and 4, and 8 or 16 with --enable-expert-parallel")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen3-235B-A22B-FP8", 3),  # heads that do not divide are no matter of the experts
        ("Qwen3-30B-A3B", 8),  # no blocks
        ("Qwen2.5-14B-Instruct-AWQ", 8),  # no experts
        ("DeepSeek-R1", 8),  # 2048 / 8 are two blocks
    ],
)
def test_others_need_no_expert_parallelism_or_are_not_helped_by_it(name, size):
    assert why_whole_experts(model(name), size) is None
