"""How a vLLM command is written: its program, its switches, the syntax of its values."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import found, named_options, options
from atoll.doctor.checks.releases import compact
from atoll.doctor.command_edits import put_before, remove_option, replace_option
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.launch import is_shell
from atoll.doctor.rule import ERROR, INFO, SAFE, rule
from atoll.doctor.vllm import GivenOption, VllmCommand, show_version
from atoll.engines.vllm.options import (
    IMAGE_SERVES_SINCE,
    MODEL_FIRST_SINCE,
    MODERN_VALUES_SINCE,
    MODULE_STARTS_UP_TO,
)


@rule("VL003", ERROR, risk=SAFE)
def repeated_program(facts: Facts) -> Iterable[Finding]:
    for engine in facts.engines:
        stray = engine.command.stray
        if stray:
            words = " ".join(word.text for word in stray)
            option = GivenOption(name="", value=None, words=stray)
            image = engine.service.image
            own = image is not None and not image.is_vllms_own
            yield found(
                stray[0],
                f"the image already runs `vllm serve`; `{words}` is read as arguments",
                edits=remove_option(option) if not is_shell(stray[0].text) else (),
                risk=_OWN_BUILD if own else None,
            )


_OWN_BUILD = "The image is somebody's own build. If it starts otherwise than vLLM's, these words are what starts it."


@rule("VL004", INFO, risk=SAFE, habit=True)
def model_as_option(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--model"):
        command = engine.command
        old = command.version is not None and command.version < MODEL_FIRST_SINCE
        if _runs_serve(command) and not old and engine.release_told:
            what = "--model is announced for removal from `vllm serve`"
            yield found(option.word, what, edits=_model_first(option), risk=engine.doubt)


@rule("VL041", ERROR, risk="The engine serves the model that is named, and no longer its default one.")
def model_passed_over(facts: Facts) -> Iterable[Finding]:
    for engine in facts.engines:
        command, image = engine.command, engine.service.image
        starts_module = image is not None and "vllm-openai" in image.path and not command.program
        if not starts_module or command.version is None or command.version > MODULE_STARTS_UP_TO:
            continue
        word = command.model_word
        if word is None or not word.known or command.stray or command.has("--model") or command.open_ended:
            continue
        what = f"vLLM {show_version(command.version)}'s image passes over {word.text}: it wants --model"
        yield found(word, what, edits=put_before(word, "--model"))


def _runs_serve(command: VllmCommand) -> bool:
    """Whether `vllm serve` reads the words; for the module openai.api_server --model is the only way."""
    if command.program:
        return any(word.text == "serve" for word in command.program)
    return command.version is None or command.version >= IMAGE_SERVES_SINCE


def _model_first(option: GivenOption) -> Edits:
    """`--model X` becomes `X` when it is the first of the arguments; elsewhere the words are left alone."""
    if option.joined or len(option.words) != 2:
        return ()
    return remove_option(GivenOption(name=option.name, value=None, words=option.words[:1]))


@rule("VL005", ERROR, risk=SAFE)
def value_for_switch(facts: Facts) -> Iterable[Finding]:
    for engine, option in options(facts):
        if engine.command.table.kinds.get(option.name) != "switch" or option.path or not engine.release_told:
            continue
        value = option.value if option.joined else _following_boolean(engine.command, option)
        if value is None:
            continue
        off = value.lower() in {"false", "0", "no", "off"}
        wanted = _opposite(option.name, engine.command) if off else option.name
        edits = replace_option(option, wanted, None) if option.joined and wanted else ()
        fix = f"Write {wanted}." if wanted else "Drop it."
        what = f"{option.name} takes no value, and {value!r} is given"
        yield found(option.word, what, fix=fix, edits=edits, risk=engine.doubt)


def _following_boolean(command: VllmCommand, option: GivenOption) -> str | None:
    place = next(n for n, word in enumerate(command.words) if word is option.words[-1])
    following = command.words[place + 1].text if place + 1 < len(command.words) else ""
    return following if following in {"True", "False", "true", "false"} else None


def _opposite(name: str, command: VllmCommand) -> str | None:
    other = "--" + name[5:] if name.startswith("--no-") else "--no-" + name[2:]
    return other if command.table.known(other) else None


# Options whose values are written in another way since MODERN_VALUES_SINCE.
VALUES_CHANGED = ("--limit-mm-per-prompt", "--compilation-config", "--seed")


@rule("VL006", ERROR, risk=SAFE)
def old_value_syntax(facts: Facts) -> Iterable[Finding]:
    for engine, option in options(facts):
        command = engine.command
        if option.name not in VALUES_CHANGED or option.path not in {"", "level"}:
            continue
        old = command.version is not None and command.version < MODERN_VALUES_SINCE
        if old or not engine.release_told or not option.known or option.value is None:
            continue
        fixed = modern_value(option)
        if fixed is not None:
            name, value = fixed
            edits = replace_option(option, name, value) if name else remove_option(option)
            fix = f"Write {name} {value}." if name else f"Drop {option.name}."
            what = f"{option.name} {option.value} is the syntax of an older release"
            yield found(option.word, what, fix=fix, edits=edits, risk=engine.doubt)


def modern_value(option: GivenOption) -> tuple[str, str] | None:
    """Name and value as they are written today, ("", "") to drop it, None when it is right."""
    value = option.value or ""
    if option.path == "level":
        return f"{option.name}.mode", value
    if option.name == "--seed":
        return ("", "") if value == "None" else None
    if option.name == "--limit-mm-per-prompt":
        pairs = re.findall(r"(\w+)=(\d+)", value)
        return (option.name, compact({name: int(count) for name, count in pairs})) if pairs else None
    if re.fullmatch(r"\d", value):
        return option.name, compact({"mode": int(value)})
    plain = option.document()
    if isinstance(plain, dict) and "level" in plain:
        return option.name, compact({("mode" if key == "level" else key): item for key, item in plain.items()})
    return None
