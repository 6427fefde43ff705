"""What vLLM takes of a GPU's memory for itself, by version; cost.memory makes the account.

Rules are read in its source, figures off its start-up logs: tests/data/memory/memory.csv and logs.json hold them, and
docs/validation.md says how near we come.
"""

from atoll.engines.engine import MemoryFacts, PoolFacts
from atoll.engines.vllm.scheduler import caches_prefixes, graph_sizes, is_async
from atoll.engines.vllm.versions import parse_version
from atoll.inventory.catalog import GpuKind
from atoll.layout.layout import EngineFlags
from atoll.model.card import ModelCard
from atoll.units import GIB

# "non-torch memory" of one GPU in the logs: 0.13 to 0.14 GiB under 0.11 to 0.16, 0.24 to 0.26 under 0.19.
LIBRARIES_BYTES, LIBRARIES_BYTES_BEFORE = round(0.25 * GIB), round(0.14 * GIB)
LARGER_LIBRARIES_SINCE = (0, 17)
# With tensor parallelism NCCL's and the all-reduce kernels' buffers come on top: 0.41 GiB on H100 under 0.11, 0.1 to
# 0.75 on GeForce cards. Since 0.17 Hopper and data-centre Blackwell reduce and normalise in one FlashInfer kernel
# (config/vllm.py `enable_allreduce_rms_fusion`), whose workspace makes it 1.8 to 1.95 under 0.19.
GROUP_BYTES, FUSED_BYTES = round(0.41 * GIB), round(1.85 * GIB)
FUSED_SINCE = (0, 17)
STAGES_BYTES = round(0.07 * GIB)  # pipeline stages alone

# "CUDA graph memory": under 0.19 straight in the number of layers, to 0.3 GiB, for dense models of 28 to 80 layers, and
# 1.5 for mixtures, with the 51 sizes up to 512. The second model runner, by default since 0.29, takes less: 0.23 GiB
# for Llama-3.1-8B under 0.30. Part of the budget since 0.21, as vLLM's own log line says; on top of it before.
GRAPH_BYTES, GRAPH_BYTES_A_LAYER = round(0.25 * GIB), round(0.019 * GIB)
GRAPH_BYTES_EXPERTS = round(1.5 * GIB)
GRAPH_SIZES = 51
LEANER_GRAPH_BYTES, LEANER_GRAPH_BYTES_EXPERTS = round(0.3 * GIB), round(1.2 * GIB)
SECOND_RUNNER_SINCE = (0, 29)
# The first engine (V0, until 0.8) took less for its graphs too; its "non-torch memory" counts the CUDA context.
SECOND_ENGINE_SINCE = (0, 8)
LIBRARIES_BYTES_V0 = round(0.38 * GIB)
GRAPHS_BUDGETED_SINCE = (0, 21)

# Bytes for each (sequence, vocabulary entry) while the sampler is profiled (v1/sample/ops/topk_topp_sampler.py). Sorted
# until 0.16, 38.1 in the logs of 0.11 to 0.16; a Triton kernel since 0.17 and FlashInfer's since 0.21: bf16 logits,
# their fp32 copy, probabilities and noise or mask, 2 + 4 + 4 + 4, as in the logs of 0.19; 9 in the one log of 0.30.
# FlashInfer's was used before where it was installed: by the images of 0.8, and of 0.11.0, after which vllm#26859 made
# it a choice. Five load tests of that image had as many requests going as it leaves room for; one log of three has it.
SAMPLER_BYTES_SORTED, SAMPLER_BYTES, SAMPLER_BYTES_SECOND_RUNNER = 38.1, 14.0, 9.0
SORTED_SINCE, SORTED_UNTIL, TRITON_UNTIL = (0, 9), (0, 17), (0, 21)
FLASHINFER_SINCE, FLASHINFER_UNTIL = (0, 11), (0, 11, 1)

# gpt-oss-20b over two H100 under 0.19 started at 0.90 of the memory and ran out of it at 0.95 while the sampler was
# warmed up, with 2.4 GiB left by the account; models in 16 bits and fp8 started with less. The experts' weights are
# laid out anew once they are loaded, and what that leaves behind in torch's pool is nowhere in the log.
REPACKED_BYTES = round(3.0 * GIB)

GROUPS_SINCE = (0, 9, 2)  # the hybrid KV cache manager
SLACK_SINCE, MORE_SLACK_SINCE = (0, 12), (0, 18)
CONCURRENCY_PRINTED_SINCE = (0, 21)
STATE_A_SEAT_SINCE = (0, 20)
STEPS_AHEAD_SINCE = (0, 27)


def memory_facts(
    flags: EngineFlags,
    version: str,
    card: ModelCard,
    kind: GpuKind,
    *,
    tensor: int = 1,
    pipeline: int = 1,
    from_image: bool = True,
) -> MemoryFacts:
    """Bytes on each GPU, of this version under these flags; what else is installed is known of its own images alone."""
    release = parse_version(version)
    triton = SORTED_UNTIL <= release < TRITON_UNTIL
    return MemoryFacts(
        context_bytes=_context_bytes(release, kind, tensor=tensor, pipeline=pipeline),
        graph_bytes=_graph_bytes(release, flags, card, kind),
        graphs_budgeted=release >= GRAPHS_BUDGETED_SINCE,
        warm_up_bytes=REPACKED_BYTES if card.quantisation.method == "mxfp4" else 0,
        sampler_bytes=_sampler_bytes(release, from_image=from_image),
        sampler_rows=kind.sm_count or 128 if triton else 0,  # a buffer for every program of the kernel
        expert_rounding=_expert_rounding(release, kind),
        pool=_pool_facts(release, flags, version, card),
    )


def _context_bytes(release: tuple[int, int, int], kind: GpuKind, *, tensor: int, pipeline: int) -> int:
    alone = LIBRARIES_BYTES if release >= LARGER_LIBRARIES_SINCE else LIBRARIES_BYTES_BEFORE
    if release < SECOND_ENGINE_SINCE:
        alone = LIBRARIES_BYTES_V0
    if tensor == 1:
        return alone + (STAGES_BYTES if pipeline > 1 else 0)
    fused = (
        release >= FUSED_SINCE and pipeline == 1 and kind.timed and kind.compute_capability.split(".")[0] in {"9", "10"}
    )
    return alone + (FUSED_BYTES if fused else GROUP_BYTES)


def _graph_bytes(release: tuple[int, int, int], flags: EngineFlags, card: ModelCard, kind: GpuKind) -> int:
    sizes = len(graph_sizes(flags, kind))
    mixture = card.experts is not None
    if release >= SECOND_RUNNER_SINCE or release < SECOND_ENGINE_SINCE:
        whole = LEANER_GRAPH_BYTES_EXPERTS if mixture else LEANER_GRAPH_BYTES
    else:
        whole = GRAPH_BYTES_EXPERTS if mixture else GRAPH_BYTES + card.layers * GRAPH_BYTES_A_LAYER
    return round(whole * min(1.0, sizes / GRAPH_SIZES))


def _sampler_bytes(release: tuple[int, int, int], *, from_image: bool) -> float:
    installed = from_image and FLASHINFER_SINCE <= release < FLASHINFER_UNTIL
    sorts = SORTED_SINCE <= release < SORTED_UNTIL and not installed
    if release < SECOND_ENGINE_SINCE or sorts:
        return SAMPLER_BYTES_SORTED
    return SAMPLER_BYTES if release < SECOND_RUNNER_SINCE else SAMPLER_BYTES_SECOND_RUNNER


def _expert_rounding(release: tuple[int, int, int], kind: GpuKind) -> tuple[int, int]:
    """To what the mxfp4 kernels that are chosen by default pad (`mxfp4_round_up_hidden_size_and_intermediate_size`).

    FlashInfer's on data-centre Blackwell, Marlin's elsewhere: gpt-oss-20b over two H100 under 0.19 took 7.01 GiB, with
    1536 x 3072 for 1440 x 2880 it is 7.06.
    """
    if kind.compute_capability.startswith("10."):
        return (256 if release < (0, 30) else 128), 256
    return 128, 256


def _pool_facts(release: tuple[int, int, int], flags: EngineFlags, version: str, card: ModelCard) -> PoolFacts:
    """A prefix cache keeps a second state of each sequence."""
    return PoolFacts(
        groups=release >= GROUPS_SINCE,
        padding_slack=1.5 if release >= MORE_SLACK_SINCE else 1.25 if release >= SLACK_SINCE else 1.0,
        states_a_sequence=2 if caches_prefixes(flags, version, card) else 1,
        steps_ahead=2 if release >= STEPS_AHEAD_SINCE and is_async(flags, version) else 1,
        state_a_seat=release >= STATE_A_SEAT_SINCE and not flags.enforce_eager,
        prints_concurrency=release >= CONCURRENCY_PRINTED_SINCE,
    )
