"""Step 1: every layout that can be, its flags by formula; and what cannot be, with the reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from atoll.cost.memory import MemoryFit
from atoll.engines.spec import mixed_kinds
from atoll.inventory.box import Box, LinkKind
from atoll.inventory.catalog import GpuKind
from atoll.layout.layout import Replica
from atoll.plan.choice import Choice
from atoll.plan.draft import Question, draft_choice, flag_choices
from atoll.plan.enumerate import (
    Candidate,
    Rejected,
    Split,
    join_kinds,
    kind_name,
    list_candidates,
    list_splits,
    pin,
    pipeline_splits,
    shape_name,
)
from atoll.plan.rank import rank_choices
from atoll.units import show_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Possible:
    """What can be, best first by formula, and what cannot."""

    drafts: tuple[Choice, ...]
    illegal: tuple[Rejected, ...]  # splits that the engine cannot do
    too_big: tuple[Rejected, ...]  # what does not fit


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """The cards of one kind, and what can be done with them."""

    kind: GpuKind
    box: Box
    splits: tuple[Split, ...]  # that the engine can do
    illegal: tuple[Rejected, ...]
    fitting: tuple[Split, ...] = ()
    too_big: tuple[Rejected, ...] = ()


def find_candidates(question: Question) -> Possible:
    """Every layout worth looking at under the flags that the formula likes best."""
    parts = [_sort_out(question, part) for part in _parts(question)]
    stages = question.wanted.pipeline_parallel
    needed = stages is None and not any(part.fitting for part in parts)
    if (needed or (stages or 1) > 1) and question.workbench.rules.pipeline_parallel:
        parts = [_in_stages(question, part) for part in parts]
    elif stages is None and question.workbench.rules.pipeline_parallel:
        parts = [_beside_stages(question, part) for part in parts]
    tried = [draft_choice(question, candidate) for candidate in _list_all(question, parts)]
    fitting = tuple(split for part in parts for split in part.fitting)
    return Possible(
        drafts=rank_choices((one for one in tried if one is not None), question.goal, question.workbench),
        illegal=(*(one for part in parts for one in part.illegal), *_no_room(question, fitting)),
        too_big=(*_across_kinds(question, parts), *_named_too_big(parts)),
    )


def _parts(question: Question) -> Iterator[_Part]:
    """One for each kind of card, in the box's order."""
    bench = question.workbench
    for kind in dict.fromkeys(bench.kinds.values()):
        cards = {gpu: one for gpu, one in bench.kinds.items() if one == kind}
        asked = question.wanted.tensor_parallel or 1
        alone = len(cards) == len(bench.kinds)
        splits, illegal = list_splits(bench.card, cards, question.workbench.rules, wanted=question.wanted)
        too_wide = asked > len(cards) and not alone  # _across_kinds says why
        yield _Part(kind=kind, box=bench.box.only(cards), splits=splits, illegal=() if too_wide else illegal)


def _sort_out(question: Question, part: _Part, splits: Sequence[Split] | None = None) -> _Part:
    """With the splits that fit with some flags, and the others with the reason."""
    fitting: list[Split] = []
    rejected: list[Rejected] = []
    for split in part.splits if splits is None else splits:
        why = _why_not(question, part.box, split)
        if why is None:
            fitting.append(split)
        else:
            rejected.append(Rejected(name=split.name, why=why))
    return replace(part, fitting=tuple(fitting), too_big=(*rejected, *part.too_big))


def _in_stages(question: Question, part: _Part) -> _Part:
    """With pipeline stages too."""
    layers = question.workbench.card.layers
    wanted = question.wanted.pipeline_parallel
    splits = pipeline_splits(part.splits, most=len(part.box.gpus), layers=layers)
    return _sort_out(question, part, tuple(one for one in splits if wanted in {None, one.pipeline_parallel}))


def _beside_stages(question: Question, part: _Part) -> _Part:
    """With as many stages as a group has cards too, where cards reach each other through the host's memory alone.

    A group sends every layer's sums that way, stages one vector of a token between them: 70B in 4 bits made 234
    tokens/s over two stages of RTX 4090.
    """
    if part.kind.pcie_peer_to_peer or any(link.kind is LinkKind.NV for link in part.box.links):
        return part
    sizes = [split.tensor_parallel for split in part.splits if split.tensor_parallel > 1]
    stages = [Split(tensor_parallel=1, pipeline_parallel=size) for size in sizes]
    wanted = question.wanted.tensor_parallel in {None, 1}
    fitting = _sort_out(question, part, stages if wanted else ()).fitting
    return replace(part, fitting=(*part.fitting, *fitting))


def _list_all(question: Question, parts: Sequence[_Part]) -> Iterator[Candidate]:
    """Those of each kind of card, and of several kinds together."""
    for part in parts:
        for candidate in list_candidates(part.box, part.fitting, wanted=question.wanted):
            alone = len(parts) == 1
            yield candidate if alone else replace(candidate, name=kind_name(candidate.name, part.kind.name))
    usable = [(part.kind.name, part.box, part.fitting) for part in parts if part.fitting]
    yield from join_kinds(usable, wanted=question.wanted)


def _across_kinds(question: Question, parts: Sequence[_Part]) -> Iterator[Rejected]:
    """Groups that only cards of several kinds would make."""
    if len(parts) == 1:
        return
    most = max(len(part.box.gpus) for part in parts)
    asked = question.wanted.tensor_parallel
    if asked is not None and asked > len(question.workbench.box.gpus):
        have = len(question.workbench.box.gpus)
        yield Rejected(name=f"TP{asked}", why=f"Tensor parallel {asked} needs {asked} GPUs; this box has {have}.")
    splits, _ = list_splits(
        question.workbench.card, question.workbench.kinds, question.workbench.rules, wanted=question.wanted
    )
    why = mixed_kinds(part.kind.name for part in parts)
    yield from (Rejected(name=f"1x{split.name}", why=why) for split in splits if split.gpus > most)


def _named_too_big(parts: Sequence[_Part]) -> Iterator[Rejected]:
    for part in parts:
        for one in part.too_big:
            yield one if len(parts) == 1 else replace(one, name=kind_name(one.name, part.kind.name))


def _why_not(question: Question, box: Box, split: Split) -> str | None:
    """The reason when even small batches leave no room, or its cards reach no other."""
    replica = pin(box, (split,)).replicas[0]
    if split.gpus > 1 and question.workbench.kind(replica).is_slice:
        return "MIG slices have no peer access and NCCL does not run across them; an engine takes one."
    fit = _roomiest(question, replica, "fp8" if question.may_quantise_kv else None)
    if not fit.fits:
        return f"{(fit.reason or '').rstrip('.')}."
    if fit.longest >= question.goal.longest:
        return None
    packed = question.can_quantise_kv and _roomiest(question, replica, "fp8").longest >= question.goal.longest
    return (
        f"The context is too long: a request of {question.goal.longest:,} tokens does not fit into the"
        f" {fit.longest:,} tokens of KV cache that {show_bytes(fit.kv_bytes)} on each GPU hold"
        f"{'; with --kv-cache-dtype fp8 it would' if packed else ''}."
    )


def _roomiest(question: Question, replica: Replica, kv_dtype: str | None) -> MemoryFit:
    fits = (question.workbench.fit(replica, flags) for flags in flag_choices(question, 1, kv_dtype))
    return max(fits, key=lambda fit: fit.pool_blocks)


def _no_room(question: Question, fitting: Sequence[Split]) -> Iterator[Rejected]:
    """`--replicas 5` on four GPUs."""
    wanted, most = question.wanted.replicas, len(question.workbench.box.gpus)
    if wanted is None or not fitting:
        return
    least = min(fitting, key=lambda split: split.gpus)
    if wanted * least.gpus > most:
        why = f"{wanted} replicas need at least {wanted * least.gpus} GPUs; this box has {most}."
        yield Rejected(name=shape_name((least,) * wanted), why=why)
