"""The memory arithmetic that several checks share, with vLLM's own defaults."""

from atoll.cost.memory import MemoryFit, fit_memory
from atoll.doctor.facts import Engine, Facts
from atoll.doctor.vllm import show_version


def default_max_num_seqs(facts: Facts, engine: Engine) -> int | None:
    """VLLM's own default for these cards: 1024 from 70 GiB up but for the A100, else 256; None for an unknown card."""
    gpus = facts.gpus_of(engine.service)
    kind = facts.kind(gpus[0] if gpus else None)
    if kind is None:
        return None
    return 1024 if kind.memory_bytes >= 70 * 2**30 and "A100" not in kind.name else 256


def default_batched_tokens(facts: Facts, engine: Engine) -> int:
    """VLLM's default for these cards; 8192, the H100 class's, where they are not known."""
    gpus = facts.gpus_of(engine.service)
    kind = facts.kind(gpus[0] if gpus else None)
    if kind is None:
        return 8192
    if kind.memory_bytes >= 160 * 10**9:
        return 16384
    return 8192 if kind.memory_bytes >= 70 * 2**30 and "A100" not in kind.name else 2048


def fit_of(facts: Facts, engine: Engine, *, tensor_parallel: int | None = None) -> MemoryFit | None:
    """How the memory of one of its GPUs is shared out; None when model, GPU or a flag is not known."""
    command, card = engine.command, engine.card
    gpus = facts.gpus_of(engine.service)
    kind = facts.kind(gpus[0] if gpus else None)
    tp, pp, share = tensor_parallel or command.tensor_parallel, command.pipeline_parallel, command.memory_utilization
    if card is None or kind is None or tp is None or pp is None or share is None:
        return None
    seqs = command.integer("--max-num-seqs", default_max_num_seqs(facts, engine))
    tokens = command.integer("--max-num-batched-tokens", default_batched_tokens(facts, engine))
    if seqs is None or tokens is None or command.has("--kv-cache-memory-bytes", "--cpu-offload-gb"):
        return None
    return fit_memory(
        card,
        kind,
        tensor_parallel=tp,
        pipeline_parallel=pp,
        max_num_batched_tokens=tokens,
        max_num_seqs=seqs,
        gpu_memory_utilization=share,
        kv_dtype=command.text("--kv-cache-dtype") or "auto",
        quantization=command.text("--quantization"),
        enforce_eager=command.has("--enforce-eager"),
        engine_version=show_version(command.table.version),
    )
