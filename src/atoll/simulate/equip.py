"""A layout's replicas as virtual engines: scheduler limits, KV blocks and step times, as planned for real ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.cost.memory import MemoryFit, fit_memory, why_not_warm_up
from atoll.cost.profile import MachineProfile
from atoll.cost.step import StepModel, StepTimer
from atoll.engines import find_engine
from atoll.engines.engine import BLOCK_TOKENS, SchedulerLimits
from atoll.engines.spec import EngineSpec
from atoll.errors import InputError, NothingFits
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard


@dataclass(frozen=True, kw_only=True, slots=True)
class Equipment:
    """What simulate_layout needs besides the layout: a timer, a number of KV blocks and limits for each replica."""

    timers: tuple[StepTimer, ...]
    kv_blocks: tuple[int, ...]
    limits: tuple[SchedulerLimits, ...]
    max_model_len: int  # the longest request that all of the engines take


def equip_layout(layout: Layout, card: ModelCard, *, profile: MachineProfile | None = None) -> Equipment:
    """Timers, KV blocks and scheduler limits of every replica.

    Replicas over like GPUs and like links share a timer, which remembers what it has worked out.

    Raises:
        UnknownGpu: the box names a card that the catalogue does not have.
        NothingFits: the model does not fit on a replica, or not with `max_model_len`; or it cannot be split so.
        InputError: the engine would not start with these options, or a replica stands on cards of several kinds.
    """
    _check_options(layout, card)
    specs = [EngineSpec.of(layout, replica, card) for replica in layout.replicas]
    fits = [fit_memory(spec) for spec in specs]
    for number, (spec, fit) in enumerate(zip(specs, fits, strict=True)):
        _check(spec, fit, layout, number)
    timers: list[StepModel] = []
    for spec in specs:
        timers.append(_known_or_new(timers, StepModel(spec, profile=profile)))
    blocks = tuple(fit.blocks_with(layout.flags.max_model_len) for fit in fits)
    return Equipment(
        timers=tuple(timers),
        kv_blocks=blocks,
        limits=tuple(spec.limits for spec in specs),
        max_model_len=min(layout.flags.max_model_len or card.max_context, *(BLOCK_TOKENS * count for count in blocks)),
    )


def _check_options(layout: Layout, card: ModelCard) -> None:
    """What the engine itself would refuse at start."""
    engine = find_engine(layout.engine)
    why = engine.why_not_flags(layout.flags, max_model_len=card.max_context)
    if why is not None:
        raise InputError(f"{layout.name}: {why}.")
    for size in sorted({replica.tensor_parallel for replica in layout.replicas}):
        why = engine.why_not_split(card, size, expert_parallel=bool(layout.flags.enable_expert_parallel))
        if why is not None:
            raise NothingFits(f"{layout.name}: {why.rstrip('.')}; {engine.explain_sizes(card)}.")


def _check(spec: EngineSpec, fit: MemoryFit, layout: Layout, number: int) -> None:
    """An engine that cannot hold one longest request does not start; without max_model_len we take what it can hold."""
    if not fit.fits:
        raise NothingFits(fit.reason or f"{spec.card.name} does not fit on replica {number} of {layout.name}.")
    asked = layout.flags.max_model_len
    if asked is not None and fit.longest < asked:
        raise NothingFits(
            f"{layout.name}: the KV cache of replica {number} holds {fit.longest:,} tokens, and one request may have"
            f" {asked:,}; set max_model_len to {fit.longest} or less."
        )
    why = why_not_warm_up(spec, fit)
    if why is not None:
        raise NothingFits(f"{layout.name}: replica {number} would not start. {why}")


def _known_or_new(known: Sequence[StepModel], made: StepModel) -> StepModel:
    for timer in known:
        same_split = (timer.tensor_parallel, timer.pipeline_parallel) == (made.tensor_parallel, made.pipeline_parallel)
        if same_split and timer.kind == made.kind and timer.reduce == made.reduce:
            return timer
    return made
