"""Kernel times come back as they were measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.cost.kernels import MEASURED, Kernels, choose_system, load_table
from atoll.cost.operations import ExpertBlock, Heads
from atoll.inventory.catalog import all_gpus, find_gpu

H100 = Kernels(find_gpu("H100"))
# Rows of the tables themselves (aisimulate wheel, h100_sxm, vLLM 0.24.0): tokens, columns, inner, format, microseconds.
GEMMS = [
    (1, 7168, 5120, "bf16", 28.6),
    (64, 5120, 5120, "bf16", 24.0),
    (2048, 12288, 5120, "bf16", 290.5),
    (8192, 16384, 5120, "bf16", 1978.1),
    (1, 16384, 5120, "fp8", 33.6),
    (512, 12288, 5120, "fp8", 54.0),
    (4096, 7168, 5120, "fp8", 289.3),
]


@pytest.mark.parametrize(("tokens", "columns", "inner", "name", "microseconds"), GEMMS)
def test_gemms_take_what_was_measured(tokens, columns, inner, name, microseconds):
    assert H100.gemm_seconds(tokens, columns, inner, name) == pytest.approx(microseconds * 1e-6, rel=0.15)


# Heads, KV heads, sequences, context, microseconds: beyond the 50 MB on-chip cache, where the benchmark meets memory.
DECODES = [(32, 8, 32, 4095, 185.9), (32, 8, 32, 2047, 100.8), (40, 8, 128, 1023, 196.0), (20, 4, 128, 4095, 357.0)]


@pytest.mark.parametrize(("heads", "kv_heads", "sequences", "context", "microseconds"), DECODES)
def test_decode_attention_takes_what_was_measured(heads, kv_heads, sequences, context, microseconds):
    part = Heads(heads=heads, kv_heads=kv_heads, head_dim=128, window=None, count=1)
    found = H100.decode_attention_seconds(sequences, context, part, kv_bytes=2.0)
    assert found == pytest.approx(microseconds * 1e-6, rel=0.08)


# Heads, KV heads, tokens, microseconds (one prompt from its start, head size 128).
PREFILLS = [(32, 8, 1024, 36), (32, 8, 4096, 264), (64, 8, 8192, 1835), (8, 1, 8192, 221)]


@pytest.mark.parametrize(("heads", "kv_heads", "tokens", "microseconds"), PREFILLS)
def test_prompt_attention_takes_what_was_measured(heads, kv_heads, tokens, microseconds):
    part = Heads(heads=heads, kv_heads=kv_heads, head_dim=128, window=None, count=1)
    found = H100.prefill_attention_seconds(tokens, 0, part, kv_bytes=2.0)
    assert found == pytest.approx(microseconds * 1e-6, rel=0.12)


# gpt-oss-120b on H200, one GPU, vLLM 0.24.0, routing skewed by a power law: tokens, microseconds.
EXPERTS = [(1, 60), (8, 186), (64, 512), (1024, 1360), (8192, 3980)]


@pytest.mark.parametrize(("tokens", "microseconds"), EXPERTS)
def test_experts_take_what_was_measured(tokens, microseconds):
    block = ExpertBlock(hidden=2880, intermediate=2880, routed=128, active=4, tensor_parallel=1, count=36, gated=True)
    found = Kernels(find_gpu("H200")).expert_seconds(tokens, block, "mxfp4_wo")
    assert found == pytest.approx(microseconds * 1e-6, rel=0.05)


def test_a_window_bounds_what_attention_reads():
    wide = Heads(heads=64, kv_heads=8, head_dim=64, window=None, count=1)
    narrow = Heads(heads=64, kv_heads=8, head_dim=64, window=128, count=1)
    times = [H100.decode_attention_seconds(32, context, narrow, kv_bytes=2.0) for context in (128, 8192)]
    assert times[0] == pytest.approx(times[1], rel=0.01)
    assert times[1] < H100.decode_attention_seconds(32, 8192, wide, kv_bytes=2.0)


@pytest.mark.parametrize("kind", all_gpus(), ids=lambda kind: kind.name)
def test_every_card_of_the_catalogue_gets_times(kind):
    kernels = Kernels(kind)
    assert 0 < kernels.gemm_seconds(16, 4096, 4096, "bf16") < 1e-1
    assert kernels.measured == (kind.name in MEASURED)


def test_a_card_without_tables_scales_from_its_nearest_relative():
    assert [choose_system(find_gpu(name)) for name in ("H100 NVL", "H20-SXM-141GB", "A40", "L4", "RTX 5090")] == [
        "h100_sxm",
        "h200_sxm",
        "a100_sxm",
        "l40s",
        "rtx_pro_6000_server",
    ]
    pcie = Kernels(find_gpu("H100 PCIe"))  # 2.04 of 3.35 TB/s: reading weights takes 1.64 times as long
    ratio = pcie.gemm_seconds(1, 16384, 16384, "bf16") / H100.gemm_seconds(1, 16384, 16384, "bf16")
    assert ratio == pytest.approx(3.35 / 2.039, rel=0.02)


@given(tokens=st.integers(1, 20_000), columns=st.integers(64, 60_000), inner=st.integers(64, 60_000))
def test_no_gemm_beats_the_card(tokens, columns, inner):
    floor = 2.0 * tokens * columns * inner / 989e12
    assert H100.gemm_seconds(tokens, columns, inner, "bf16") > 0.9 * floor


@pytest.mark.parametrize("system", sorted(set(MEASURED.values())))
def test_every_shipped_table_names_its_source(system):
    assert "Apache-2.0" in load_table(system)["source"]
