"""How much an engine does at once: sequences, steps, length, queue."""

from collections.abc import Iterable

from atoll.cost.memory import MemoryFit
from atoll.doctor.checks.memory import fit_of, usual_flags
from atoll.doctor.checks.places import add_to_command, counted, found, join, made_by_atoll, named_options
from atoll.doctor.checks.timeouts import read_timeout
from atoll.doctor.command_edits import remove_option, replace_option
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, INFO, SAFE, WARNING, rule
from atoll.engines.vllm.options import (
    AUTO_LENGTH_SINCE,
    ON_BY_DEFAULT_SINCE,
)


@rule("VL009", WARNING)
def few_sequences(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--max-num-seqs"):
        seqs = option.integer()
        if seqs is None or seqs < 1 or not option.known or made_by_atoll(facts, engine.service):
            continue
        twins = max(1, len(_siblings(facts, engine)))
        users = facts.load_at(engine.service.file).users
        if users is not None:
            if seqs * twins < users:
                yield found(option.word, f"{counted(twins * seqs, 'answer')} at once for {counted(users, 'user')}")
        elif seqs < 64 and not _kv_is_the_limit(facts, engine, seqs):
            kind = facts.kind_of(engine.service)
            usual = usual_flags(engine.command, kind).max_num_seqs
            default = f"the default is {usual}" if kind else "the default is 256, or 1024 on cards of 70 GiB and more"
            yield found(option.word, f"each instance runs only {counted(seqs, 'answer')} at once; {default}")


def _siblings(facts: Facts, engine: ServedEngine) -> tuple[ServedEngine, ...]:
    return tuple(other for other in facts.engines if other.command.model == engine.command.model)


def _kv_is_the_limit(facts: Facts, engine: ServedEngine, seqs: int) -> bool:
    """Whether the KV cache holds no more sequences of the longest length than that."""
    fit = fit_of(facts, engine)
    length = engine.command.integer("--max-model-len")
    return fit is not None and length is not None and fit.kv_tokens < 2 * seqs * length


@rule("VL010", INFO)
def large_steps(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--max-num-batched-tokens"):
        tokens = option.integer()
        usual = usual_flags(engine.command, facts.kind_of(engine.service)).max_num_batched_tokens or 0
        if tokens is not None and tokens > 2 * usual and not made_by_atoll(facts, engine.service):
            yield found(option.word, f"{option.name} {tokens} is far above the default here, {usual}")


@rule("VL011", ERROR, risk=SAFE)
def steps_too_small(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--max-num-batched-tokens"):
        tokens, command = option.integer(), engine.command
        if tokens is None:
            continue
        seqs, length = command.integer("--max-num-seqs"), command.integer("--max-model-len")
        if not command.has("--max-model-len") and engine.card is not None:
            length = engine.card.max_context
        chunking = [command.option(name) for name in ("--no-enable-chunked-prefill", "--disable-chunked-prefill")]
        if seqs is not None and tokens < seqs:
            yield found(
                option.word,
                f"--max-num-batched-tokens {tokens} is below --max-num-seqs {seqs}",
                edits=replace_option(option, option.name, str(max(seqs, 8192))),
            )
        elif any(chunking) and length and tokens < length:
            yield found(
                option.word,
                f"--max-num-batched-tokens {tokens} is below --max-model-len {length} with chunked prefill off",
                edits=tuple(edit for off in chunking if off is not None for edit in remove_option(off)),
            )


@rule("VL012", INFO, risk=SAFE, habit=True)
def says_the_default(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--enable-chunked-prefill", "--enable-prefix-caching"):
        old = engine.command.version is not None and engine.command.version < ON_BY_DEFAULT_SINCE
        if option.value is None and not old and engine.release_told:
            what = f"{option.name} is on by default"
            yield found(option.word, what, edits=remove_option(option), risk=engine.doubt)


_SHORTENS = "vLLM shortens the longest request to what its KV cache holds."


@rule("VL013", WARNING, risk=_SHORTENS)
def no_length_limit(facts: Facts) -> Iterable[Finding]:
    for engine in facts.engines:
        if engine.command.has("--max-model-len") or engine.card is None:
            continue
        fit, shortens = fit_of(facts, engine), engine.command.table.version >= AUTO_LENGTH_SINCE
        if fit is None or not fit.fits or _suits_its_load(facts, engine, fit):
            continue
        if fit.kv_tokens < 2 * engine.card.max_context:
            yield found(
                engine.service,
                f"{engine.name} asks for the model's {engine.card.max_context:,} tokens; its KV cache holds"
                f" {fit.kv_tokens:,}",
                edits=add_to_command(engine, "--max-model-len", "auto") if shortens and engine.release_told else (),
                risk=f"{_SHORTENS} {engine.doubt or ''}".rstrip(),
            )


def _suits_its_load(facts: Facts, engine: ServedEngine, fit: MemoryFit) -> bool:
    """Whether the start is certain, whatever the arithmetic may be wrong by, and the load is known.

    Blocks are taken as tokens come, not for the longest request that may be sent: how many run at once is then
    MF006's question, and the limit would change nothing.
    """
    load, card = facts.load_at(engine.service.file), engine.card
    known = card is not None and load.prompt_tokens is not None and load.output_tokens is not None
    return known and card is not None and fit.sure_longest >= card.max_context


@rule("VL017", INFO, habit=True)
def no_admission_limit(facts: Facts) -> Iterable[Finding]:
    for route in facts.upstream_routes:
        engines = [engine for engine in facts.engines if engine.service in route.services]
        limits = ("--max-num-queued-reqs", "--max-num-queued-tokens")
        unlimited = [engine for engine in engines if not engine.command.has(*limits)]
        known = all(engine.release_told and engine.command.table.known(limits[0]) for engine in engines)
        if len(engines) > 1 and unlimited and known and not made_by_atoll(facts, engines[0].service):
            names = join([engine.name for engine in unlimited])
            yield found(unlimited[0].service, f"{names} queue without a limit")


_COMMENTS = "Streams carry comment lines while a request waits; a client that cannot skip them fails."


@rule("VL019", INFO, risk=_COMMENTS)
def silent_queue(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        timeout = read_timeout(route)
        if timeout is None or timeout > 120:
            continue
        for engine in facts.engines:
            command = engine.command
            if engine.service not in route.services or command.has("--sse-keep-alive-interval"):
                continue
            if engine.release_told and command.table.known("--sse-keep-alive-interval"):
                said = f"{engine.name} sends nothing while a request waits"
                edits = add_to_command(engine, "--sse-keep-alive-interval", "15")
                what = f"{said}; nginx cuts after {timeout:g} s of silence"
                yield found(engine.service, what, edits=edits, risk=f"{_COMMENTS} {engine.doubt or ''}".rstrip())
