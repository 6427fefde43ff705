"""What fits, against what vLLM printed when it started."""

import json
from pathlib import Path

import pytest

from atoll.cost.memory import fit_memory, kv_bytes_per_token, pipeline_stages, users_that_fit, why_not_start
from atoll.engines.spec import EngineSpec
from atoll.inventory.catalog import find_gpu
from atoll.layout.layout import EngineFlags
from atoll.model.catalog import find_card
from atoll.units import GIB
from stand_ins.specs import spec_of

LOGS = json.loads((Path(__file__).parents[1] / "data" / "memory" / "logs.json").read_text())["logs"]
SETTINGS = ("tensor_parallel", "engine_version", "gpu_memory_utilization", "max_num_batched_tokens", "max_num_seqs")
H100 = find_gpu("H100-SXM-80GB")
NVL = find_gpu("H100-NVL-94GB")


def model(name):
    card = find_card(name)
    assert card is not None
    return card


def logged(log):
    return fit_of(model(log["model"]), find_gpu(log["gpu"]), **{key: log[key] for key in SETTINGS})


def fit_of(card, kind, *, context=None, **settings):
    return fit_memory(spec_of(card, kind, **settings), context=context)


LOGGED = [log for log in LOGS if not log.get("derived")]


@pytest.mark.parametrize("log", LOGGED, ids=lambda log: f"{log['model']}-{log['engine_version']}")
def test_kv_memory_is_near_what_vllm_logged(log):
    """To 3.5 % of the budget; to 6.5 % for a mixture of experts, whose fp8 kernels keep workspaces that we do not know."""
    fit = logged(log)
    share = 0.065 if model(log["model"]).experts else 0.035
    assert abs(fit.kv_bytes / GIB - log["kv_gib"]) <= share * fit.budget_bytes / GIB


@pytest.mark.parametrize("log", [log for log in LOGS if log["weight_gib"]], ids=lambda log: log["model"])
def test_weights_are_within_2_percent_of_model_loading_took(log):
    assert logged(log).weight_bytes / GIB == pytest.approx(log["weight_gib"], rel=0.02)


@pytest.mark.parametrize("log", [log for log in LOGS if log["kv_tokens"]], ids=lambda log: log["model"])
def test_a_gib_of_kv_cache_holds_as_many_tokens_as_vllm_says(log):
    """To 1.2 %: with several GPUs the log shows one worker's memory, but the worker with the least decides."""
    fit = logged(log)
    assert fit.kv_tokens / fit.kv_bytes == pytest.approx(log["kv_tokens"] / (log["kv_gib"] * GIB), rel=0.012)


def test_the_worked_example():
    fit = fit_of(model("Llama-3.1-8B"), H100, gpu_memory_utilization=0.92)
    assert fit.kv_bytes / GIB == pytest.approx(56.1, abs=0.1)
    assert fit.kv_tokens == pytest.approx(460_496, rel=0.005)


@pytest.mark.parametrize(
    ("name", "kv_dtype", "published"),
    [
        ("Qwen2.5-32B-Instruct", "auto", 262_144),
        ("Qwen2.5-32B-Instruct", "fp8", 131_072),
        ("Llama-3.1-8B", "auto", 131_072),
        ("DeepSeek-V3", "auto", 70_272),  # 635,648 tokens in 41.6 GiB: 70,271 (vLLM 0.11.2, TP 8 on H200)
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "auto", 65_536),
        ("Qwen/Qwen3.5-27B", "auto", 16 * 2 * 4 * 256 * 2),
    ],
)
def test_kv_bytes_per_token(name, kv_dtype, published):
    assert kv_bytes_per_token(model(name), kv_dtype) == published


def test_kv_heads_are_copied_beyond_their_number():
    """Qwen2.5-7B has 4 KV heads: eight GPUs hold one head each, as four do, so no token is saved by the other four."""
    card = model("Qwen2.5-7B-Instruct")
    four, eight = (fit_of(card, H100, tensor_parallel=size) for size in (4, 8))
    assert four.kv_bytes_per_token == eight.kv_bytes_per_token


def test_mla_keeps_its_vector_whole_on_every_gpu():
    card = model("DeepSeek-V2-Lite")
    assert (
        fit_of(card, H100, tensor_parallel=1).kv_bytes_per_token
        == fit_of(card, H100, tensor_parallel=8).kv_bytes_per_token
    )


def test_a_sliding_window_makes_room_for_more_and_longer_requests():
    card = model("gemma-2-27b")
    full = card.replace(attention=card.attention.replace(sliding_window=None, sliding_layers=0))
    windowed, plain = fit_of(card, H100, context=8192), fit_of(full, H100, context=8192)
    assert windowed.kv_tokens == pytest.approx(plain.kv_tokens / (0.5 + 0.5 * 4112 / 8192), rel=0.001)


def test_pipeline_stages_share_layers():
    card = model("Llama-3.1-70B-Instruct")
    one, two = fit_of(card, H100, tensor_parallel=4), fit_of(card, H100, tensor_parallel=4, pipeline_parallel=2)
    assert two.weight_bytes == pytest.approx(one.weight_bytes / 2, rel=0.02)
    assert two.kv_bytes_per_token == one.kv_bytes_per_token / 2


def test_what_does_not_fit_says_how_much_is_missing():
    fit = fit_of(model("Qwen2.5-72B-Instruct"), NVL, max_num_seqs=64)
    assert (fit.fits, fit.kv_blocks, fit.kv_tokens) == (False, 0, 0)
    assert fit.short_bytes > 50e9
    assert fit.reason is not None
    assert "Qwen/Qwen2.5-72B-Instruct does not fit: 145 GB of weights" in fit.reason
    assert "on one H100-NVL-94GB." in fit.reason
    assert users_that_fit(fit, 1000) == 0


def test_users_that_fit_counts_whole_blocks():
    fit = fit_of(model("Qwen2.5-32B-Instruct"), NVL, tensor_parallel=2)
    assert users_that_fit(fit, 4096) == fit.kv_tokens // 4096
    assert users_that_fit(fit, 1) == users_that_fit(fit, 16)


def test_quantising_while_loading_halves_the_linear_layers():
    card = model("Llama-3.1-70B-Instruct")
    plain, fp8 = (
        fit_of(card, H100, tensor_parallel=4),
        fit_of(card, H100, tensor_parallel=4, quantization="fp8"),
    )
    assert fp8.weight_bytes / plain.weight_bytes == pytest.approx(0.515, abs=0.01)


def test_cuda_graphs_are_in_the_budget_since_0_21():
    card = model("Llama-3.1-8B")
    old, new = (fit_of(card, H100, engine_version=version) for version in ("0.20.2", "0.22.0"))
    assert (old.outside_bytes, new.outside_bytes) == (old.graph_bytes, 0)
    assert old.kv_bytes - new.kv_bytes == pytest.approx(new.graph_bytes, rel=0.1)
    assert fit_of(card, H100, enforce_eager=True).graph_bytes == 0


def test_graphs_beside_the_budget_have_to_fit_on_the_card():
    """Refused at 0.95 of the memory and started at 0.90: rows L34 and L35 of tests/data/memory/memory.csv."""
    card = model("openai/gpt-oss-20b")
    tight, loose = (
        spec_of(
            card, H100, tensor_parallel=2, gpu_memory_utilization=share, max_model_len=8192, engine_version="0.19.0"
        )
        for share in (0.95, 0.90)
    )
    assert "CUDA graphs" in (why_not_start(tight, fit_memory(tight)) or "")
    assert why_not_start(loose, fit_memory(loose)) is None


def test_a_state_for_every_seat():
    """As vLLM says: max_num_seqs (1024) exceeds available Mamba cache blocks."""
    card = model("Qwen/Qwen3.5-27B")
    asked = spec_of(card, NVL, engine_version="0.25.1", max_model_len=262144)
    fit = fit_memory(asked)
    assert fit.most_seats == pytest.approx(614, rel=0.02)  # vllm-project/recipes#831
    assert "max_num_seqs 1024 is more than" in (why_not_start(asked, fit) or "")
    few = spec_of(card, NVL, engine_version="0.25.1", max_model_len=262144, max_num_seqs=256)
    assert why_not_start(few, fit_memory(few)) is None
    assert fit_memory(few).longest == 262144


def test_groups_of_layers_as_older_versions_print_them():
    """gemma-3-27b under 0.19: 19.53 GiB are 36,560 tokens, in seven groups of ten layers."""
    pool = fit_of(model("gemma-3-27b-it"), H100, engine_version="0.19.0").pool
    assert (len(pool.groups), pool.block_bytes) == (7, 10 * 16 * 2 * 16 * 128 * 2)
    assert pool.printed_once(pool.count(round(19.53 * GIB))) == 36_560


def test_states_and_tokens_share_pages():
    """Qwen3.6-35B-A3B with an fp8 and a prefix cache under 0.24: 5.98 GiB are 4.333 requests of 131,072 tokens."""
    flags = EngineFlags(kv_cache_dtype="fp8", max_num_seqs=1, extra=("--enable-prefix-caching",))
    spec = EngineSpec.on(model("Qwen/Qwen3.6-35B-A3B"), H100, flags=flags, engine_version="0.24.0")
    pool = fit_memory(spec).pool
    assert pool.groups[0].block_tokens == 2096
    assert pool.printed(pool.count(round(5.98 * GIB)), max_model_len=131_072) == 567_978


@pytest.mark.parametrize(("version", "states"), [("0.19.0", 1), ("0.28.0", 1), ("0.29.0", 2)])
def test_models_with_states_cache_no_prefixes_by_default_before_0_29(version, states):
    """1,487 blocks of Qwen3.5-27B under 0.19 were 33.04 requests of 32,768 tokens: 42 blocks of tokens, 3 of states."""
    spec = spec_of(model("Qwen/Qwen3.5-27B"), H100, engine_version=version)
    pool = fit_memory(spec).pool
    assert spec.prefix_caching is (states == 2)
    assert pool.used_by(32_768) == 42 + 3 * states
    assert round(1487 / pool.used_by(32_768), 2) == (33.04 if states == 1 else 30.98)


def test_qwen3_next_keeps_its_states_in_16_bits():
    """`Setting attention block size to 544 tokens`, `Padding mamba page size by 1.49%`: 1,097,728 bytes of 1,114,112."""
    card = model("Qwen/Qwen3-Next-80B-A3B-Instruct")
    assert card.attention.linear_state_bytes == 1_097_728
    assert fit_memory(spec_of(card, H100, engine_version="0.16.0")).pool.groups[0].block_tokens == 544


def test_stages_share_layers_as_vllm_does_and_the_tightest_decides():
    assert [stage.layers for stage in pipeline_stages(46, 4)] == [11, 12, 12, 11]
    assert [stage.layers for stage in pipeline_stages(47, 4)] == [12, 12, 12, 11]
    card = model("Qwen2.5-72B-Instruct")
    whole, halves, quarters = (fit_of(card, H100, pipeline_parallel=count) for count in (1, 2, 4))
    assert halves.weight_bytes == pytest.approx(whole.weight_bytes / 2, rel=0.001)
    assert quarters.activation_bytes == whole.activation_bytes  # the last stage, which samples, is the tightest
    assert quarters.weight_bytes > whole.weight_bytes / 4  # and turns vectors into words


def test_the_image_of_0_11_0_samples_with_flashinfer():
    """70B in 4 bits over stages of two RTX 4090: 19 requests of 1.4 thousand tokens were going, not 12."""
    card = model("Qwen2.5-32B-Instruct")
    ours, others = (EngineSpec.on(card, H100, engine_version="0.11.0", from_image=image) for image in (True, False))
    assert (ours.memory.sampler_bytes, others.memory.sampler_bytes) == (14.0, 38.1)
    assert EngineSpec.on(card, H100, engine_version="0.11.1").memory.sampler_bytes == 38.1
