"""How vLLM can split a model, and the reason when it cannot.

The rules are those of vLLM 0.32, each named where it is raised there. Whether the parts then fit into a GPU is
cost.memory's question.
"""

from collections.abc import Iterable, Sequence

from atoll.engines.engine import SIZES
from atoll.inventory.catalog import GpuKind
from atoll.model.card import AttentionKind, ModelCard

pipeline_parallel = True


def why_not_split(card: ModelCard, tensor_parallel: int, *, expert_parallel: bool = False) -> str | None:
    """Why vLLM cannot split this model's layers over so many GPUs; None when it can.

    With expert parallelism each GPU holds whole experts, so that their width need not divide.

    Worked: Qwen2.5-32B has 40 heads and 8 key-value heads: 1, 2, 4 and 8 GPUs are possible, 3 and 5 are not (5 GPUs
    would get 8 heads each, but 8 key-value heads do not divide by 5).
    """
    if tensor_parallel == 1:
        return None
    named = _intermediate_widths(card, whole_experts=expert_parallel)
    # GLM-4.5-Air in 4 bits ran over eight GPUs with whole experts, its shared one cut inside a group.
    whole = {"shared_experts"} if expert_parallel else set()
    widths = tuple(named.values())
    quantised = tuple(width for part, width in named.items() if _is_quantised(card, part) and part not in whole)
    problems = (
        _heads(card, tensor_parallel),
        _kv_heads(card, tensor_parallel),
        _widths(widths, tensor_parallel),
        _vocabulary(card, tensor_parallel),
        _groups(card, quantised, tensor_parallel),
        _blocks(card, quantised, tensor_parallel),
    )
    problem = next((text for text in problems if text is not None), None)
    if problem is None:
        return None
    return f"{card.name} cannot be split over {tensor_parallel} GPUs: {problem}."


def why_whole_experts(card: ModelCard, tensor_parallel: int) -> str | None:
    """Why the model can be split so only with --enable-expert-parallel, the end of a sentence; None when it needs none.

    For weights in fp8 blocks vLLM's own words advise it (docs/serving/expert_parallel_deployment.md); for 4-bit groups
    GLM-4.5-Air AWQ over 8 GPUs was measured so (tests/data/validation/measured2.csv).
    Worked: Qwen3-235B-A22B-FP8 over 8 GPUs would have slices of 1536 / 8 = 192 channels, one block and a half.
    """
    if card.experts is None or why_not_split(card, tensor_parallel, expert_parallel=True) is not None:
        return None
    if tensor_parallel == 1:
        return None
    width = (card.experts.intermediate_size,)
    return _blocks(card, width, tensor_parallel) or _groups(card, width, tensor_parallel)


def legal_tensor_parallel(card: ModelCard, sizes: Iterable[int] = SIZES) -> tuple[int, ...]:
    """Those of the sizes that vLLM can split the model into, in rising order."""
    return tuple(sorted(size for size in sizes if why_not_split(card, size) is None))


def explain_sizes(card: ModelCard, sizes: Sequence[int] = SIZES) -> str:
    """`legal sizes are 1, 2, 4 and 8`, the end of a sentence that refuses another one."""
    legal = [str(size) for size in legal_tensor_parallel(card, sizes)]
    joined = legal[0] if len(legal) == 1 else ", ".join(legal[:-1]) + " and " + legal[-1]
    whole = [str(size) for size in sizes if why_whole_experts(card, size) is not None]
    more = f", and {' or '.join(whole)} with --enable-expert-parallel" if whole else ""
    return (f"legal sizes are {joined}" if len(legal) > 1 else f"the only legal size is {joined}") + more


def why_not_on(card: ModelCard, kind: GpuKind) -> str | None:
    """Why this kind of GPU cannot run the model; None when it can.

    `get_min_capability` of each quantisation in layers/quantization/, and 7.0 for vLLM as such (its installation page).
    """
    method = card.quantisation.method
    least = max(7.0, _LEAST_CAPABILITY.get(method or "", 7.0))
    if float(kind.compute_capability) >= least:
        return None
    what = f"{method} weights need" if method and least > 7.0 else "vLLM needs"
    return f"{what} compute capability {least}, {kind.name} has {kind.compute_capability}."


# gptq as its Marlin kernels need it; fp8 and mxfp4 weights run through Marlin where the card has no such arithmetic.
_LEAST_CAPABILITY = {"awq": 7.5, "gptq": 7.5, "fp8": 7.5, "mxfp4": 8.0, "nvfp4": 7.5, "compressed-tensors": 7.5}


def _heads(card: ModelCard, size: int) -> str | None:
    """config/model.py `verify_with_parallel_config`."""
    if card.attention_heads % size:
        return f"its {card.attention_heads} attention heads do not divide by {size}"
    return None


def _kv_heads(card: ModelCard, size: int) -> str | None:
    """The assertion in every attention layer: heads are shared out, or whole heads are copied."""
    if card.attention.kind is AttentionKind.MLA:
        return None
    kv_heads = card.kv_heads
    if kv_heads >= size and kv_heads % size:
        return f"its {kv_heads} key-value heads do not divide by {size}"
    if kv_heads < size and size % kv_heads:
        return f"{size} is no multiple of its {kv_heads} key-value heads, which would have to be copied evenly"
    return None


def _widths(widths: Sequence[int], size: int) -> str | None:
    """distributed/utils.py `divide`, of the layers between."""
    for width in widths:
        if width % size:
            return f"its intermediate size {width} does not divide by {size}"
    return None


def _vocabulary(card: ModelCard, size: int) -> str | None:
    """layers/vocab_parallel_embedding.py pads to a multiple of 64 and then divides."""
    padded = -(-card.vocab_size // 64) * 64
    return f"its vocabulary, padded to {padded}, does not divide by {size}" if padded % size else None


def _groups(card: ModelCard, widths: Sequence[int], size: int) -> str | None:
    """Marlin's check (layers/quantization/utils/marlin_utils.py): a slice of the input channels holds whole groups."""
    group, method = card.quantisation.group_size, card.quantisation.method
    if group is None or method in {"mxfp4", "nvfp4"}:  # those are padded instead
        return None
    for width in widths:
        if (width // size) % group:
            return f"{width} / {size} intermediate channels are no whole number of {method} groups of {group}"
    return None


def _blocks(card: ModelCard, widths: Sequence[int], size: int) -> str | None:
    """layers/quantization/fp8.py: "not divisible by weight quantization block_n"."""
    if card.quantisation.block_size is None:
        return None
    rows = card.quantisation.block_size[0]
    for width in widths:
        if (width // size) % rows:
            return f"{width} / {size} intermediate channels are no whole number of fp8 blocks of {rows}"
    return None


def _intermediate_widths(card: ModelCard, *, whole_experts: bool = False) -> dict[str, int]:
    """Of the MLPs that the model has and that are cut, by their part: dense ones, experts, shared experts."""
    if card.experts is None:
        return {"mlp": card.intermediate_size}
    widths = {} if whole_experts else {"experts": card.experts.intermediate_size}
    if card.experts.dense_layers:
        widths["mlp"] = card.intermediate_size
    if card.experts.shared_intermediate_size:
        widths["shared_experts"] = card.experts.shared_intermediate_size
    return widths


def _is_quantised(card: ModelCard, part: str) -> bool:
    """Whether any layer of the part is; what the checkpoint leaves alone may be cut anywhere."""
    return card.quantisation.plain_share(part) < 1.0
