"""Values of vLLM's options: legal by the release's own list, possible together, and fitting the model."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache

from atoll.doctor.checks.places import found, join, named_options, options
from atoll.doctor.command_edits import replace_option
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, INFO, SAFE, WARNING, rule
from atoll.doctor.vllm import GivenOption, is_listed
from atoll.engines.vllm.options import Option, known_versions, options_of
from atoll.engines.vllm.parsers import REASONING_PARSERS, TOOL_PARSERS

# (least, most) of what a number may be, whatever the release; vllm/config and the checks of its parser.
_RANGES: Mapping[str, tuple[float, float]] = {
    "--tensor-parallel-size": (1, 10_000),
    "--pipeline-parallel-size": (1, 10_000),
    "--data-parallel-size": (1, 100_000),
    "--max-num-seqs": (1, 10**7),
    "--max-num-batched-tokens": (1, 10**9),
    "--port": (0, 65_535),
    "--swap-space": (0, 10**6),
    "--cpu-offload-gb": (0, 10**6),
    "--max-loras": (1, 10**6),
    "--max-num-queued-reqs": (0, 10**9),
}
_WORDS = {"--max-num-batched-tokens": {"auto"}}


@rule("VL031", ERROR, risk=SAFE)
def illegal_value(facts: Facts) -> Iterable[Finding]:
    for engine, option in options(facts):
        if option.path or not option.known or option.value is None:
            continue
        if option.name == "--gpu-memory-utilization":
            yield from _no_share(option)
        elif option.name in _RANGES:
            yield from _out_of_range(option, *_RANGES[option.name])
        elif engine.release_told and is_listed(engine.command.version):
            yield from _no_choice(option, options_of(engine.command.release).get(option.name))


def _no_share(option: GivenOption) -> Iterable[Finding]:
    share = option.number()
    if share is None:
        yield found(option.word, f"{option.name} {option.value} is no number", fix="Write a share such as 0.9.")
    elif not 0 < share <= 1:
        percent = 50 <= share < 100
        edits = replace_option(option, option.name, f"{share / 100:g}") if percent else ()
        fix = f"Write {share / 100:g}." if percent else "Write a share above 0 and up to 1, such as 0.9."
        yield found(option.word, f"{option.name} is {option.value}; it is a share, at most 1", fix=fix, edits=edits)


def _out_of_range(option: GivenOption, least: float, most: float) -> Iterable[Finding]:
    if (option.value or "") in _WORDS.get(option.name, ()):
        return
    number = option.number() if option.integer() is None else option.integer()
    if number is None:
        yield found(option.word, f"{option.name} {option.value} is no number", fix="Write a number.")
    elif not least <= number <= most:
        limit = f"at least {least:g}" if number < least else f"at most {most:g}"
        yield found(option.word, f"{option.name} {option.value} must be {limit}", fix=f"Write {limit}.")


def _no_choice(option: GivenOption, listed: Option | None) -> Iterable[Finding]:
    choices = listed.choices if listed is not None else None
    if choices is None or listed is None or not listed.takes_value:
        return
    for value in option.value.split() if listed.several and option.value else (option.value or "",):
        if value not in choices:
            near = [
                one for one in get_close_matches(value, choices, n=1, cutoff=0.7) if _figures(one) == _figures(value)
            ]
            few = join(list(choices)) if len(choices) <= 8 else f"{', '.join(choices[:8])}, ..."
            yield found(
                option.word,
                f"{option.name} {value} is none of its values",
                fix=f"Write {near[0]}." if near else f"It takes {few}.",
            )


def _figures(text: str) -> list[str]:
    """A slip of letters keeps them: float8 is no float."""
    return re.findall(r"\d+", text)


@rule("VL032", WARNING)
def no_room_left(facts: Facts) -> Iterable[Finding]:
    for _, option in named_options(facts, "--gpu-memory-utilization"):
        share = option.number()
        if share is not None and 0.98 <= share <= 1:
            yield found(option.word, f"{option.name} {option.value} leaves nothing for NCCL and CUDA graphs")


@rule("VL033", ERROR)
def lacks_its_partner(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--enable-auto-tool-choice"):
        if not engine.command.has("--tool-call-parser") and not _may_hold_more(engine):
            yield found(option.word, f"{option.name} needs --tool-call-parser")
    for engine, option in named_options(facts, *_PARSERS):
        mine, others, plugin, kind = _PARSERS[option.name]
        value = option.value or ""
        if value in mine or engine.command.has(plugin) or not option.known or _has_choices(engine, option):
            continue
        near = get_close_matches(value.replace("-", "_").lower(), sorted(mine), n=1, cutoff=0.8)
        if near or value in others:
            yield found(
                option.word,
                f"vLLM has no {kind} parser {value}",
                fix=f"Write {near[0]}." if near else f"One of its {kind} parsers: {', '.join(sorted(mine)[:6])}, ...",
            )
    for engine, option in named_options(facts, "--lora-modules"):
        if not engine.command.has("--enable-lora") and not _may_hold_more(engine):
            yield found(option.word, f"{option.name} needs --enable-lora")


# An option -> its parsers, those of the other kind (which are taken for it), what brings more, its kind.
_PARSERS = {
    "--tool-call-parser": (TOOL_PARSERS, REASONING_PARSERS, "--tool-parser-plugin", "tool"),
    "--reasoning-parser": (REASONING_PARSERS, TOOL_PARSERS, "--reasoning-parser-plugin", "reasoning"),
}


def _has_choices(engine: ServedEngine, option: GivenOption) -> bool:
    """Whether the release's option list names the values: VL031 says what is none of them."""
    listed = options_of(engine.command.release).get(option.name) if engine.command.version_known else None
    return listed is not None and listed.choices is not None


def _may_hold_more(engine: ServedEngine) -> bool:
    """Whether a variable without a value, or a file of options, may hold the option that is missed."""
    command = engine.command
    return any(not word.known for word in command.words) or (command.has("--config") and engine.service.config is None)


_QUANTIZATIONS = {  # a checkpoint's method -> what may be said for it (platforms and quantization/__init__ of 0.32.0)
    "awq": {"awq", "awq_marlin", "auto_awq", "moe_wna16", "ipex", "inc"},
    "gptq": {"gptq", "gptq_marlin", "auto_gptq", "gptq_bitblas", "moe_wna16", "ipex", "inc"},
    "fp8": {"fp8", "fbgemm_fp8", "ptpc_fp8"},
    "compressed-tensors": {"compressed-tensors"},
    "bitsandbytes": {"bitsandbytes"},
    "mxfp4": {"mxfp4", "gpt_oss_mxfp4"},
}
_NEEDS_ITS_CHECKPOINT = {"awq", "awq_marlin", "gptq", "gptq_marlin", "compressed-tensors", "modelopt", "quark", "hqq"}


@rule("VL034", ERROR)
def other_quantization(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--quantization"):
        if engine.card is None or not option.known or option.value in {None, "None"}:
            continue
        own, given = engine.card.quantisation.method, option.value or ""
        if own in _QUANTIZATIONS and given not in _QUANTIZATIONS[own]:
            yield found(option.word, f"{engine.card.name} is {own}, and --quantization says {given}")
        elif own is None and given in _NEEDS_ITS_CHECKPOINT:
            yield found(option.word, f"{engine.card.name} is not quantised, and --quantization says {given}")


@rule("VL035", ERROR)
def longer_than_the_model(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--max-model-len"):
        length, card, command = option.integer(), engine.card, engine.command
        allowed = engine.service.environment.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN")
        if length is None or card is None or (allowed is not None and allowed.value not in {"0", "false"}):
            continue
        stretched = command.has("--rope-scaling", "--rope-theta") or any(
            other.name == "--hf-overrides" for other in command.options
        )
        if length > card.max_context and not stretched:
            yield found(option.word, f"--max-model-len {length:,} is above the {card.max_context:,} of {card.name}")


@rule("VL036", INFO)
def release_not_told(facts: Facts) -> Iterable[Finding]:
    came_and_went = _came_and_went()
    for engine in facts.engines:
        image = engine.service.image
        if engine.release_told:
            continue
        gone = [option for option in engine.command.options if option.name in came_and_went]
        names = list(dict.fromkeys(option.name for option in gone))
        if names:
            said = (
                f"which vLLM {image.text} carries is not known"
                if image is not None
                else "which release of vLLM this is, is not known"
            )
            yield found(gone[0].word, f"{said}; some releases refuse {join(names)}")


@cache
def _came_and_went() -> frozenset[str]:
    """Options that a later release lacks than one that had them."""
    made: set[str] = set()
    before: set[str] = set()
    for version in known_versions():
        now = set(options_of(version))
        made |= before - now
        before |= now
    return frozenset(made)
