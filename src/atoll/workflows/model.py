"""A model's facts, and what fits where."""

from collections.abc import Iterator, Sequence
from typing import Any

from atoll.cost.memory import fit_memory, kv_bytes_per_token, users_that_fit
from atoll.documents import Document
from atoll.engines import find_engine
from atoll.engines.spec import DEFAULT_ENGINE, EngineSpec
from atoll.inventory.catalog import GpuKind, all_gpus, find_gpu
from atoll.layout.layout import EngineFlags
from atoll.model.card import Attention, Experts, ModelCard, Quantisation
from atoll.model.read import read_model
from atoll.workflows.engine_options import NOTHING, EngineOptions

TABLE_SIZES = (1, 2, 4, 8)  # of the table of what fits; one box seldom holds more


class Fit(Document):
    """What is left for the KV cache when `tensor_parallel` cards of a kind serve the model."""

    gpu: str
    tensor_parallel: int
    fits: bool
    weight_bytes: int  # on each card
    kv_bytes: int  # on each card
    kv_tokens: int  # of the replica
    users: int  # sequences of `context` tokens at the same time
    context: int
    why: str | None = None


class ModelReport(Document):
    """What `atoll model` says."""

    name: str
    architecture: str
    parameters: int
    active_parameters: int
    weight_bytes: int
    weight_source: str
    kv_bytes_per_token: int
    kv_dtype: str
    layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    max_context: int
    dtype: str
    quantisation: Quantisation
    attention: Attention
    experts: Experts | None = None
    legal_tensor_parallel: tuple[int, ...]
    context: int
    gpu_memory_utilization: float
    fits: tuple[Fit, ...]
    notes: tuple[str, ...] = ()


def report_model(
    name_or_path: str,
    *,
    gpu: str | None = None,
    context: int | None = None,
    hub: bool = False,
    options: EngineOptions = NOTHING,
) -> ModelReport:
    """Read a model and say what fits on one kind of GPU, or on each that the catalogue has.

    Args:
        name_or_path: see model.read.read_model.
        gpu: a GPU kind; without, all of them.
        context: tokens of each user's sequence; 4096 or the model's own, if that is less.
        hub: ask the Hugging Face hub for what is not known here.
        options: the engine's; vLLM's own defaults without.

    Raises:
        UnknownModel, BadModel, UnknownGpu.
        InputError: options with which the engine would not start, such as a KV dtype that it does not have.
    """
    wanted = options.flags()
    card = read_model(name_or_path, hub=hub)
    kinds = (find_gpu(gpu),) if gpu is not None else all_gpus()
    length = context or min(4096, card.max_context)
    return ModelReport(
        **_facts(card, kv_dtype=wanted.kv_cache_dtype),
        context=length,
        gpu_memory_utilization=wanted.gpu_memory_utilization
        or find_engine(DEFAULT_ENGINE).memory_utilization(options.version),
        fits=tuple(_fits(card, kinds, wanted, options, context=length)),
    )


def _facts(card: ModelCard, *, kv_dtype: str) -> dict[str, Any]:
    return {
        "name": card.name,
        "architecture": card.architecture,
        "parameters": card.parameters,
        "active_parameters": card.active_parameters,
        "weight_bytes": card.weight_bytes,
        "weight_source": card.weight_source,
        "kv_bytes_per_token": kv_bytes_per_token(card, kv_dtype),
        "kv_dtype": card.quantisation.kv_dtype or card.dtype if kv_dtype == "auto" else kv_dtype,
        "layers": card.layers,
        "hidden_size": card.hidden_size,
        "intermediate_size": card.intermediate_size,
        "vocab_size": card.vocab_size,
        "attention_heads": card.attention_heads,
        "kv_heads": card.kv_heads,
        "head_dim": card.head_dim,
        "max_context": card.max_context,
        "dtype": card.dtype,
        "quantisation": card.quantisation,
        "attention": card.attention,
        "experts": card.experts,
        "legal_tensor_parallel": find_engine(DEFAULT_ENGINE).legal_tensor_parallel(card),
        "notes": card.notes,
    }


def _fits(
    card: ModelCard, kinds: Sequence[GpuKind], flags: EngineFlags, options: EngineOptions, *, context: int
) -> Iterator[Fit]:
    engine = find_engine(DEFAULT_ENGINE)
    sizes = engine.legal_tensor_parallel(card, TABLE_SIZES)
    for kind in kinds:
        for size in sizes:
            spec = EngineSpec.on(
                card,
                kind,
                tensor_parallel=size,
                pipeline_parallel=options.pp or 1,
                flags=flags,
                engine_version=options.version,
            )
            fit = fit_memory(spec, context=context)
            why = engine.why_not_on(card, kind) or fit.reason
            yield Fit(
                gpu=kind.name,
                tensor_parallel=size,
                fits=why is None,
                weight_bytes=fit.weight_bytes,
                kv_bytes=fit.kv_bytes,
                kv_tokens=fit.kv_tokens,
                users=users_that_fit(fit, context) if why is None else 0,
                context=context,
                why=why,
            )
