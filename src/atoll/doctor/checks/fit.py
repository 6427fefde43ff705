"""Weights and KV cache against the GPUs that a service pins."""

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import PurePosixPath

from atoll.cost.memory import MemoryFit
from atoll.doctor.checks.memory import Placement, placements
from atoll.doctor.checks.places import Place, found, join
from atoll.doctor.command_edits import replace_option
from atoll.doctor.compose import Service
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.planned import of_sizes, planned_fix, with_fewer_idle_than
from atoll.doctor.rule import ERROR, INFO, WARNING, rule
from atoll.engines import find_engine
from atoll.engines.engine import SIZES
from atoll.model.card import Quantisation
from atoll.render.stack import MODELS_FOLDER
from atoll.units import show_bytes


@rule("MF001", ERROR)
def heads_do_not_divide(facts: Facts) -> Iterable[Finding]:
    for placed in placements(facts):
        why = _why_not_split(placed, as_stored=False)
        if why is not None:
            yield found(placed.split, why, fix=_other_sizes(placed))


def _why_not_split(placed: Placement, *, as_stored: bool) -> str | None:
    """Why the engine cannot split the model so, in its words: as its weights are stored, or however they are."""
    if placed.card is None:
        return None
    card = placed.card if as_stored else placed.card.replace(quantisation=Quantisation())
    why = find_engine(placed.engine).why_not_split(card, placed.tensor_parallel, expert_parallel=_whole_experts(placed))
    return why.rstrip(".") if why is not None else None


def _whole_experts(placed: Placement) -> bool:
    return bool(placed.flags.enable_expert_parallel)


def _other_sizes(placed: Placement) -> str:
    """The sizes that go, with the options that the engine has."""
    assert placed.card is not None
    rules, card, whole = find_engine(placed.engine), placed.card, _whole_experts(placed)
    legal = [size for size in SIZES if rules.why_not_split(card, size, expert_parallel=whole) is None]
    more = "" if whole or rules.why_whole_experts(card, placed.tensor_parallel) is None else _EXPERTS
    return f"A tensor-parallel size of {join([str(size) for size in legal])}{more}."


_EXPERTS = ", or --enable-expert-parallel, which leaves every expert whole"


@rule("MF002", WARNING)
def repeated_kv_heads(facts: Facts) -> Iterable[Finding]:
    for placed in placements(facts):
        card = placed.card
        if (
            card is not None
            and card.attention.kind == "full"
            and card.kv_heads < placed.tensor_parallel
            and not placed.ours
        ):
            fix = planned_fix(facts, placed.place.file, of_sizes(range(1, card.kv_heads + 1)))
            if fix is not None:
                what = f"{card.name} has {card.kv_heads} KV heads for {placed.tensor_parallel} GPUs"
                yield found(placed.split, what, fix=fix)


@rule("MF003", ERROR)
def groups_do_not_divide(facts: Facts) -> Iterable[Finding]:
    for placed in placements(facts):
        why = _why_not_split(placed, as_stored=True)
        if why is not None and _why_not_split(placed, as_stored=False) is None:  # else MF001 says it
            yield found(placed.split, why, fix=_other_sizes(placed))


@rule("MF004", ERROR)
def weights_do_not_fit(facts: Facts) -> Iterable[Finding]:
    for placed in placements(facts):
        fit = placed.fit()
        if fit is None or fit.fits or placed.kind is None or fit.short_bytes < fit.margin_bytes:
            continue
        yield found(
            placed.place,
            f"{placed.name} needs {show_bytes(fit.weight_bytes)} for weights and {show_bytes(fit.activation_bytes)} for"
            f" activations on each {placed.kind.name}; vLLM may use {show_bytes(fit.budget_bytes)}",
        )


@rule("MF005", ERROR, risk="Requests that are longer are refused.")
def longest_does_not_fit(facts: Facts) -> Iterable[Finding]:
    for placed in placements(facts):
        fit, longest = placed.fit(), placed.longest
        if fit is None or not fit.fits or longest is None:
            continue
        if fit.possible_longest >= longest:
            continue
        place, edits = _length_place(placed, fit.longest)
        yield found(
            place,
            f"{placed.name} holds {fit.longest:,} tokens of KV cache, less than one request of {longest:,}",
            edits=edits,
        )


def _length_place(placed: Placement, tokens: int) -> tuple[Place, Edits]:
    command = placed.service.vllm if placed.service is not None else None
    option = command.option("--max-model-len") if command is not None else None
    if option is None:
        return placed.place, ()
    shorter = max(1024, tokens // 1024 * 1024 // 2)
    return option.word, replace_option(option, option.name, str(shorter)) if tokens > 2048 else ()


@rule("MF006", WARNING)
def sequences_do_not_fit(facts: Facts) -> Iterable[Finding]:
    known = list(placements(facts))
    for placed in known:
        fit = _roomiest_fit(placed, known)
        if fit is None or not fit.fits or placed.ours:
            continue
        load = facts.load_at(placed.place.file)
        length = round((load.prompt_tokens or 0) + (load.output_tokens or 0) / 2) or 1024
        seqs = placed.max_num_seqs
        if load.users is not None:
            twins = sum(other.card == placed.card for other in known)
            seqs = min(seqs, ceil(load.users / twins))
        elif placed.flags.max_num_seqs is None:
            continue
        if fit.kv_tokens * _HARMLESS < seqs * length:
            yield found(
                placed.place,
                f"{placed.name} holds {fit.kv_tokens:,} tokens of KV cache; {seqs} requests of {length:,}"
                f" tokens need {seqs * length:,}",
            )


def _roomiest_fit(placed: Placement, known: Sequence[Placement]) -> MemoryFit | None:
    """Of a layout, whose replicas have their flags in common, that of the replica with the most room.

    Seats for the smallest would leave the others idle: Qwen2.5-32B-AWQ on an L40S with room for 39 requests and an H100
    with room for 97, 1000 users: 64 seats are simulated at 530 tokens/s, 32 at 517.
    """
    if placed.service is not None:
        return placed.fit()
    fits = [other.fit() for other in known if other.service is None and other.place.file == placed.place.file]
    return max((fit for fit in fits if fit is not None), key=lambda fit: fit.kv_tokens, default=None)


# Requests are of all ages, so they hold their prompt and half their answer. And with up to twice as many seats as the
# cache holds, the scheduler lets them wait for blocks: gemma-3-27b on 4 x V100, 256 users of 1024/512 tokens, room for
# 230 of them: 256 seats are simulated at 175 s an answer and a TTFT of 13 s, 128 at 179 s and 91 s.
_HARMLESS = 2


def _is_of_stack(facts: Facts, path: str) -> bool:
    """Whether other models' layouts lie beside it, in a stack's folder: what it leaves idle is theirs."""
    folder = PurePosixPath(path).parent
    others = [other for other, _ in facts.layouts if PurePosixPath(other.path).parent == folder]
    return folder.name == MODELS_FOLDER and len(others) > 1


@rule("MF007", INFO)
def idle_gpus(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        services = project.gpu_services
        used = [_used(facts, service) for service in services]
        box = facts.box_of(services[0]) if services else None
        if (
            box is None
            or None in used
            or any(placed.ours for placed in placements(facts) if placed.service in services)
        ):
            continue
        taken = {gpu for gpus in used for gpu in gpus or ()}
        idle = [str(index) for index in box.indices if index not in taken]
        if idle:
            yield found(services[0], f"no service uses GPU {join(idle)}")
    for source, layout in facts.layouts:
        alone = next((placed.place for placed in placements(facts) if placed.place.file == source.path), None)
        if not layout.idle_gpus or alone is None or _is_of_stack(facts, source.path):
            continue
        fix = planned_fix(facts, source.path, with_fewer_idle_than(len(layout.idle_gpus)))
        if fix is not None:
            yield found(alone, f"no replica uses GPU {join([str(index) for index in layout.idle_gpus])}", fix=fix)


def _used(facts: Facts, service: Service) -> tuple[int, ...] | None:
    """The GPUs that a service works with; of all GPUs an engine takes the first that its flags ask for."""
    gpus, needed = facts.gpus_of(service), service.vllm.world_size if service.vllm is not None else None
    taken_whole = service.gpus is None or not service.gpus.all or needed is None
    return gpus if gpus is None or taken_whole else gpus[:needed]
