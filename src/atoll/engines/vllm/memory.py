"""What vLLM takes of a GPU's memory for itself, by version; cost.memory makes the account.

The figures were read off its log lines; tests/data/memory/logs.json holds them, and a test says how near we come.
"""

from atoll.engines.engine import MemoryFacts
from atoll.engines.vllm.versions import parse_version
from atoll.layout.layout import EngineFlags
from atoll.model.card import ModelCard
from atoll.units import GIB

# "non-torch memory" in the logs: 0.07 to 0.26 GiB on one GPU; with tensor parallelism NCCL's buffers come on top,
# 0.95 GiB on four.
ONE_GPU_BYTES = round(0.25 * GIB)
NCCL_BYTES = round(0.75 * GIB)
# "CUDAGraph memory": 0.23 to 0.67 GiB for dense models, 1.2 for a mixture of experts. Part of the budget since 0.21
# ("CUDA graph memory profiling is enabled (default since v0.21.0)"); before, it came on top of it.
GRAPH_BYTES = round(0.3 * GIB)
GRAPH_BYTES_EXPERTS = round(1.2 * GIB)
GRAPHS_BUDGETED_SINCE = (0, 21)
# Bytes for each (sequence, vocabulary entry) while the sampler is profiled: bf16 logits, their fp32 copy and the
# probabilities. Older versions sorted them instead (v1/sample/ops/topk_topp_sampler.py): bf16 logits, fp32 copy, sorted
# fp32 values and 64-bit indices, 2 + 4 + 4 + 8. On 2 x H100 PCIe under 0.8.5 that leaves DeepSeek-R1-Distill-Llama-70B
# 15 thousand tokens of cache; half of 200 requests at 16 a second started within 0.8 s there (logs.json).
SAMPLER_BYTES = 10
SAMPLER_BYTES_SORTED = 18
SAMPLER_SORTS_UNTIL = (0, 16)


def memory_facts(flags: EngineFlags, version: str, card: ModelCard) -> MemoryFacts:
    """Bytes on each GPU, of this version under these flags."""
    release = parse_version(version)
    budgeted = not flags.enforce_eager and release >= GRAPHS_BUDGETED_SINCE
    graphs = GRAPH_BYTES if card.experts is None else GRAPH_BYTES_EXPERTS
    return MemoryFacts(
        one_gpu_bytes=ONE_GPU_BYTES,
        group_bytes=NCCL_BYTES,
        graph_bytes=graphs if budgeted else 0,
        sampler_bytes=SAMPLER_BYTES_SORTED if release < SAMPLER_SORTS_UNTIL else SAMPLER_BYTES,
    )
