"""One replica of a layout -> the engine that stands in for it: limits, KV blocks and step times as planned for it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.cost.profile import MachineProfile
from atoll.cost.step import StepTimer
from atoll.emulate.ask import Served
from atoll.emulate.sampling import MOST_LOGPROBS
from atoll.engines import find_engine, served_name
from atoll.engines.engine import BLOCK_TOKENS, SchedulerLimits
from atoll.engines.spec import kind_of
from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.model.purpose import purpose_of
from atoll.simulate.blocks import BlockPool
from atoll.simulate.equip import equip_layout
from atoll.simulate.scheduler import Scheduler


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """All that the engine is built from."""

    served: Served
    limits: SchedulerLimits
    kv_blocks: int
    prefix_caching: bool
    timer: StepTimer
    version: str  # of the vLLM that is stood in for
    fingerprint: str
    words: str  # one line for the log

    def scheduler(self) -> Scheduler:
        return Scheduler(self.limits, BlockPool(self.kv_blocks, prefix_caching=self.prefix_caching))


def blueprint_of(layout: Layout, number: int, card: ModelCard, *, profile: MachineProfile | None = None) -> Blueprint:
    """What stands in for replica `number` of the layout.

    Raises:
        InputError: there is no such replica, or its GPUs are not of one known kind.
        NothingFits: the model does not fit, as the engine itself would find out at start.
    """
    if not 0 <= number < len(layout.replicas):
        raise InputError(f"{layout.name} has replicas 0-{len(layout.replicas) - 1}; there is no replica {number}.")
    replica = layout.replicas[number]
    alone = layout.replace(replicas=(replica,), router=layout.router.replace(weights=None))
    equipment = equip_layout(alone, card, profile=profile)
    (limits,), (kv_blocks,) = equipment.limits, equipment.kv_blocks
    extra = layout.flags.extra
    prefix_caching = find_engine(layout.engine).caches_prefixes(layout.flags, layout.engine_version, card)
    names = _values("--served-model-name", extra) or (served_name(card),)
    return Blueprint(
        served=Served(
            names=names,
            root=layout.model,
            max_model_len=equipment.max_model_len,
            vocab_size=card.vocab_size,
            hidden_size=card.hidden_size,
            kind=_kind(card, extra),
            prompt_tokens_details="--enable-prompt-tokens-details" in extra,
            request_id_headers="--enable-request-id-headers" in extra,
            tokens_as_ids="--return-tokens-as-token-ids" in extra,
            always_usage="--enable-force-include-usage" in extra,
            max_logprobs=int(_one("--max-logprobs", extra) or MOST_LOGPROBS),
            root_path=(_one("--root-path", extra) or "").rstrip("/"),
            adapters=_adapters(extra),
            tokenizer_info="--enable-tokenizer-info-endpoint" in extra,
            block_tokens=BLOCK_TOKENS if prefix_caching else None,
            reasons=any(word.startswith("--reasoning-parser") for word in extra),
        ),
        limits=limits,
        kv_blocks=kv_blocks,
        prefix_caching=prefix_caching,
        timer=equipment.timers[0],
        version=layout.engine_version,
        fingerprint=f"emulated-{layout.engine_version}-tp{replica.tensor_parallel}",
        words=(
            f"replica {number} of {layout.name}: {card.name} on {len(replica.gpus)} x {kind_of(layout, replica).name},"
            f" TP {replica.tensor_parallel}, {limits.max_num_seqs} sequences, {limits.max_num_batched_tokens} tokens a"
            f" step, KV cache {kv_blocks * BLOCK_TOKENS:,} tokens"
        ),
    )


def _values(option: str, extra: Sequence[str]) -> tuple[str, ...]:
    """The values of an option among the further arguments; it may have several."""
    found: list[str] = []
    for place, word in enumerate(extra):
        if word.startswith(f"{option}="):
            found = [word.partition("=")[2]]
        elif word == option:
            rest = list(extra[place + 1 :])
            end = next((at for at, value in enumerate(rest) if value.startswith("--")), len(rest))
            found = rest[:end]
    return tuple(found)


def _one(option: str, extra: Sequence[str]) -> str | None:
    return next(iter(_values(option, extra)), None)


def _adapters(extra: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """LoRA adapters as vLLM's command line names them: NAME=PATH, or JSON with `name` and `path`."""
    found = []
    for word in _values("--lora-modules", extra):
        if word.startswith("{"):
            plain = json.loads(word)
            found.append((str(plain["name"]), str(plain["path"])))
        else:
            name, _, path = word.partition("=")
            found.append((name, path))
    return tuple(found)


def _kind(card: ModelCard, extra: Sequence[str]) -> str:
    """Whether the model gives text, vectors or an order: by vLLM's options, else by its name."""
    converted = _values("--convert", extra) or _values("--task", extra)
    if converted:
        return {"embed": "embed", "classify": "rank", "score": "rank"}.get(converted[0], "generate")
    purpose = purpose_of(card.name)
    return "embed" if purpose == "generate" and _values("--runner", extra) == ("pooling",) else purpose
