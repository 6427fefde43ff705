"""Seconds of one engine step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.cost.overheads import shipped_overheads
from atoll.cost.profile import MachineProfile
from atoll.cost.step import PieceLines, StepBatch, StepModel
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.catalog import GpuKind
from atoll.model.card import Attention, Experts, ModelCard, Quantisation
from stand_ins.specs import spec_of

H100 = GpuKind(
    name="H100-SXM-80GB",
    architecture="hopper",
    compute_capability="9.0",
    memory_bytes=85_520_809_984,
    memory_bytes_per_s=3.35e12,
    bf16_flops=989e12,
    fp8_flops=1979e12,
    nvlinks=18,
    nvlink_bytes_per_s=25e9,
    pcie_generation=5,
    source="NVIDIA H100 data sheet",
)
H100_NVL = H100.replace(
    name="H100-NVL-94GB", memory_bytes=100_000_000_000, memory_bytes_per_s=3.94e12, bf16_flops=835e12, nvlinks=12
)
QWEN32 = ModelCard(
    name="Qwen/Qwen2.5-32B-Instruct",
    architecture="Qwen2ForCausalLM",
    parameters=32_763_876_352,
    active_parameters=32_763_876_352,
    weight_bytes=65_527_752_704,
    layers=64,
    hidden_size=5120,
    intermediate_size=27648,
    vocab_size=152064,
    attention=Attention(heads=40, kv_heads=8, head_dim=128),
    max_context=32768,
)
OSS = QWEN32.replace(
    name="gpt-oss-like",
    layers=36,
    hidden_size=2880,
    intermediate_size=2880,
    vocab_size=201088,
    attention=Attention(heads=64, kv_heads=8, head_dim=64, sliding_window=128, sliding_layers=18),
    experts=Experts(routed=128, active=4, intermediate_size=2880),
    quantisation=Quantisation(method="mxfp4", weight_bits=4),
)


def box(kind: GpuKind, n: int, *, pairs: bool) -> Box:
    links = tuple(
        Link(a=a, b=b, kind=LinkKind.NV, nvlinks=kind.nvlinks)
        if not pairs or a // 2 == b // 2
        else Link(a=a, b=b, kind=LinkKind.NODE)
        for a in range(n)
        for b in range(a + 1, n)
    )
    return Box(gpus=tuple(Gpu(index=i, name=kind.name) for i in range(n)), links=links)


def step_model(card, kind, *, profile=None, **settings):
    return StepModel(spec_of(card, kind, **settings), profile=profile)


MODELS = {
    "one": step_model(QWEN32, H100),
    "pair": step_model(QWEN32, H100_NVL, tensor_parallel=2, box=box(H100_NVL, 4, pairs=True), gpus=(0, 1)),
    "sync": step_model(QWEN32, H100, engine_version="0.8.5", enforce_eager=True),
    "moe": step_model(OSS, H100, tensor_parallel=2),
    "stages": step_model(QWEN32, H100, tensor_parallel=2, pipeline_parallel=2),
    "slow host": step_model(QWEN32, H100, tensor_parallel=8, profile=MachineProfile(host_step_s=8e-3)),
}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60, deadline=None)
@given(
    decodes=st.integers(1, 300),
    mean=st.integers(0, 140_000),
    odd=st.integers(0, 299),
    steps=st.integers(1, 3000),
)
def test_many_decode_steps_equal_stepping_one_by_one_exactly(name, decodes, mean, odd, steps):
    model, context = MODELS[name], decodes * mean + odd % decodes
    together = model.decode_seconds(decodes, context, steps)
    assert together.shape == (steps,)
    for i in {0, 1, steps // 3, steps // 2, steps - 1} & set(range(steps)):
        single = model.seconds(StepBatch(decodes=decodes, decode_context=context + i * decodes))
        assert single == together[i]


@pytest.mark.parametrize("name", MODELS)
def test_the_operations_add_up_to_the_step(name):
    batch = StepBatch(prefills=((512, 0), (100, 900)), decodes=20, decode_context=20_000)
    parts = MODELS[name].breakdown(batch)
    assert sum(parts.values()) == pytest.approx(MODELS[name].seconds(batch))
    assert all(seconds >= -1e-12 for seconds in parts.values())


@settings(max_examples=60, deadline=None)
@given(decodes=st.integers(1, 256), context=st.integers(0, 200_000), more=st.integers(1, 50_000))
def test_a_longer_context_never_takes_less(decodes, context, more):
    model = MODELS["pair"]
    batch = StepBatch(decodes=decodes, decode_context=context)
    longer = StepBatch(decodes=decodes, decode_context=context + more)
    assert model.seconds(longer) >= model.seconds(batch)


def test_graph_sizes_are_those_that_vllm_captures():
    assert spec_of(QWEN32, H100, max_num_seqs=32).steps.graph_sizes == (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
    assert spec_of(QWEN32, H100).steps.graph_sizes[-1] == 512
    assert spec_of(QWEN32, H100, enforce_eager=True).steps.graph_sizes == ()


def test_lines_with_a_floor_are_the_greater_of_both():
    lines = PieceLines.through([0, 10, 20], [1, 2, 4]).at_least(3)
    assert [lines.at(x) for x in (0, 10, 14, 15, 20, 30)] == [3, 3, 3, 3, 4, pytest.approx(6)]
    assert lines.run(0, 5, 5).tolist() == [lines.at(x) for x in (0, 5, 10, 15, 20)]


def test_routing_takes_its_time_in_every_layer_with_experts_but_not_of_mxfp4():
    one, plain = StepBatch(decodes=1, decode_context=1000), OSS.replace(quantisation=Quantisation())
    routing = step_model(plain, H100, tensor_parallel=8).breakdown(one)["routing"]
    assert routing == pytest.approx(plain.layers * shipped_overheads().expert_layer_s)
    assert 20e-6 < shipped_overheads().expert_layer_s < 60e-6
    assert MODELS["moe"].breakdown(one)["routing"] == 0
    assert "routing" not in MODELS["one"].breakdown(one)


def test_eight_ranks_over_pcie_wait_longer_for_each_other_than_behind_a_switch():
    """TP 8 on RTX PRO 6000, one user: 185 all-reduces a token, some 50 us of waiting before each."""
    overheads = shipped_overheads()
    assert overheads.skew_s(8, over_pcie=True) > 10 * overheads.skew_s(8)
    assert overheads.skew_s(2, over_pcie=True) == overheads.skew_s(2)


def test_micro_batches_of_unequal_size_wait_for_each_other():
    one = StepBatch(decodes=64, decode_context=64_000)
    plain = shipped_overheads()
    spec = spec_of(QWEN32, H100, pipeline_parallel=2)
    always_full = StepModel(spec, overheads=plain.replace(pipeline_wait=0.0)).breakdown(one)
    for name, seconds in StepModel(spec, overheads=plain).breakdown(one).items():
        if name not in {"lm_head", "host"}:
            assert seconds == pytest.approx((1 + plain.pipeline_wait) * always_full[name])


def test_layers_that_keep_a_state_take_time_of_prompts_alone():
    """Half of the layers, less attention; what the states take longer grows with the prompt and is split over GPUs."""
    hybrid = QWEN32.replace(attention=QWEN32.attention.replace(linear_layers=32))
    free = shipped_overheads().replace(state_token_s=0.0)
    times = {}
    for split in (1, 2):
        spec = spec_of(hybrid, H100, tensor_parallel=split)
        with_states, without = StepModel(spec), StepModel(spec, overheads=free)
        decode = StepBatch(decodes=8, decode_context=8000)
        assert with_states.seconds(decode) == without.seconds(decode)
        prompt = StepBatch(prefills=((2048, 0),))
        times[split] = with_states.seconds(prompt) - without.seconds(prompt)
    assert times[1] == pytest.approx(2 * times[2])
    assert times[1] == pytest.approx(2048 * 32 * shipped_overheads().state_token_s * 1.6 / 3.35, rel=0.05)


def test_without_graphs_a_step_lasts_as_long_as_its_kernels_take_to_launch():
    """Qwen3-32B in 4 bits on an A100 without graphs: 38 ms a token with 4 users and with 32, against 62 GB of 16 bits."""
    least = QWEN32.layers * shipped_overheads().eager_layer_s
    small = QWEN32.replace(hidden_size=1024, intermediate_size=2048)
    model = StepModel(spec_of(small, H100, enforce_eager=True))
    for batch in (StepBatch(decodes=4, decode_context=4000), StepBatch(prefills=((16, 0),))):
        assert model.seconds(batch) == pytest.approx(least, rel=0.1)
        assert sum(model.breakdown(batch).values()) == pytest.approx(model.seconds(batch))
    assert model.decode_seconds(4, 4000, 3) == pytest.approx([least] * 3, rel=0.1)
    long = StepBatch(prefills=((8192, 0),))
    graphs, none = (StepModel(spec_of(QWEN32, H100, enforce_eager=eager)) for eager in (False, True))
    assert none.seconds(long) == graphs.seconds(long)


def test_seconds_are_finite_for_an_empty_step():
    assert np.isfinite(MODELS["one"].seconds(StepBatch()))


def test_a_checkpoint_that_asks_for_an_fp8_cache_gets_one():
    """vLLM reads kv_cache_scheme and kv_cache_quant_algo for `auto`; what is asked for outright comes first."""
    plain, options = QWEN32, QWEN32.replace(quantisation=Quantisation(kv_dtype="fp8"))

    def attention(card, kv_cache_dtype):
        model = step_model(card, H100, tensor_parallel=2, kv_cache_dtype=kv_cache_dtype)
        return model.breakdown(StepBatch(decodes=64, decode_context=64 * 4000))["attention_decode"]

    assert attention(options, "auto") == attention(plain, "fp8") < 0.8 * attention(plain, "auto")
    assert attention(options, "bfloat16") == attention(plain, "auto")
