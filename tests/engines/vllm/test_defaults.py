import pytest

from atoll.engines.vllm.defaults import batch_defaults, fill_flags
from atoll.inventory.catalog import find_gpu
from atoll.layout.layout import EngineFlags


@pytest.mark.parametrize(
    ("version", "gpu", "expected"),
    [
        ("0.32.0", "H100-NVL-94GB", (8192, 1024)),
        ("0.32.0", "H100-SXM-80GB", (8192, 1024)),
        ("0.32.0", "H200-SXM-141GB", (8192, 1024)),
        ("0.32.0", "A100-SXM-80GB", (2048, 256)),
        ("0.8.5", "A100-SXM-80GB", (8192, 1024)),  # the exception for the A100 came with 0.9
        ("0.32.0", "RTX-4090-24GB", (2048, 256)),
        ("0.32.0", "L40S-48GB", (2048, 256)),
        ("0.32.0", "B200-SXM-180GB", (16384, 1024)),
        ("0.20.2", "B200-SXM-180GB", (8192, 1024)),  # the largest tier came with 0.28
        ("0.32.0", None, (2048, 256)),
    ],
)
def test_batch_sizes_by_version_and_card(version, gpu, expected):
    assert batch_defaults(version, find_gpu(gpu) if gpu else None) == expected


def test_what_was_asked_for_stays_and_the_rest_is_filled_in():
    h100 = find_gpu("H100-NVL-94GB")
    filled = fill_flags(EngineFlags(max_num_seqs=32), "0.32.0", h100)
    assert (filled.max_num_batched_tokens, filled.max_num_seqs) == (8192, 32)
    small = fill_flags(EngineFlags(max_num_batched_tokens=512), "0.32.0", h100)
    assert (small.max_num_batched_tokens, small.max_num_seqs) == (512, 512)


def test_without_chunks_a_whole_prompt_fits_into_a_step():
    h100 = find_gpu("H100-NVL-94GB")
    flags = EngineFlags(enable_chunked_prefill=False)
    assert fill_flags(flags, "0.8.5", h100, max_model_len=32768).max_num_batched_tokens == 32768
    assert fill_flags(flags, "0.8.5", h100, max_model_len=32768).max_num_seqs == 256
    assert (
        fill_flags(flags.replace(max_model_len=4096), "0.32.0", h100, max_model_len=32768).max_num_batched_tokens
        == 8192
    )
