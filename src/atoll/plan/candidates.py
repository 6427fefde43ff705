"""Step 1: every layout that can be, its flags by formula; and what cannot be, with the reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from atoll.cost.memory import MemoryFit
from atoll.layout.layout import Replica
from atoll.plan.choice import Choice
from atoll.plan.draft import Question, draft_choice, flag_choices, order_of
from atoll.plan.enumerate import (
    Candidate,
    Rejected,
    Split,
    list_candidates,
    list_splits,
    pin,
    pipeline_splits,
    shape_name,
)
from atoll.units import show_bytes

_MIXED = "A replica would stand on cards of different kinds, and the slowest would hold up the others."


@dataclass(frozen=True, kw_only=True, slots=True)
class Possible:
    """What can be, best first by formula, and what cannot."""

    drafts: tuple[Choice, ...]
    illegal: tuple[Rejected, ...]  # splits that the engine cannot do
    too_big: tuple[Rejected, ...]  # what does not fit


def find_candidates(question: Question) -> Possible:
    """Every layout worth looking at under the flags that the formula likes best."""
    box, card = question.workbench.box, question.workbench.card
    splits, illegal = list_splits(card, question.workbench.kinds, question.limits, wanted=question.wanted)
    fitting, too_big = _sort_out(question, splits)
    if not fitting and splits and question.limits.pipeline_parallel:
        staged = tuple(pipeline_splits(splits, most=len(box.gpus), layers=card.layers))
        fitting, more = _sort_out(question, staged)
        too_big = (*more, *too_big)
    found = list(list_candidates(box, fitting, wanted=question.wanted))
    mixed = [candidate for candidate in found if _mixes_kinds(question, candidate)]
    tried = [draft_choice(question, candidate) for candidate in found if candidate not in mixed]
    drafts = sorted((one for one in tried if one is not None), key=lambda one: order_of(question, one))
    return Possible(
        drafts=tuple(drafts),
        illegal=(*illegal, *_no_room(question, fitting)),
        too_big=(*too_big, *(Rejected(name=one.name, why=_MIXED) for one in mixed)),
    )


def _sort_out(question: Question, splits: Sequence[Split]) -> tuple[tuple[Split, ...], tuple[Rejected, ...]]:
    """Those that fit with some flags, and the others with the reason."""
    fitting: list[Split] = []
    rejected: list[Rejected] = []
    for split in splits:
        why = _why_not(question, split)
        if why is None:
            fitting.append(split)
        else:
            rejected.append(Rejected(name=split.name, why=why))
    return tuple(fitting), tuple(rejected)


def _why_not(question: Question, split: Split) -> str | None:
    """The reason when even small batches leave no room; sized by the roomiest cards of the box."""
    candidate = pin(question.workbench.box, (split,))
    replica = candidate.replicas[0]
    fit = _roomiest(question, replica, "fp8" if question.may_quantise_kv else None)
    if not fit.fits:
        return f"{(fit.reason or '').rstrip('.')}."
    if fit.kv_tokens >= question.goal.longest:
        return None
    packed = question.can_quantise_kv and _roomiest(question, replica, "fp8").kv_tokens >= question.goal.longest
    return (
        f"The context is too long: a request of {question.goal.longest:,} tokens does not fit into the"
        f" {fit.kv_tokens:,} tokens of KV cache that {show_bytes(fit.kv_bytes)} on each GPU hold"
        f"{'; with --kv-cache-dtype fp8 it would' if packed else ''}."
    )


def _roomiest(question: Question, replica: Replica, kv_dtype: str | None) -> MemoryFit:
    fits = (question.workbench.fit(replica, flags) for flags in flag_choices(question, 1, kv_dtype))
    return max(fits, key=lambda fit: fit.kv_tokens)


def _mixes_kinds(question: Question, candidate: Candidate) -> bool:
    kinds = question.workbench.kinds
    return any(len({kinds[gpu].name for gpu in replica.gpus}) > 1 for replica in candidate.replicas)


def _no_room(question: Question, fitting: Sequence[Split]) -> Iterator[Rejected]:
    """`--replicas 5` on four GPUs."""
    wanted, most = question.wanted.replicas, len(question.workbench.box.gpus)
    if wanted is None or not fitting:
        return
    least = min(fitting, key=lambda split: split.gpus)
    if wanted * least.gpus > most:
        why = f"{wanted} replicas need at least {wanted * least.gpus} GPUs; this box has {most}."
        yield Rejected(name=shape_name((least,) * wanted), why=why)
