"""How a command line comes to start vLLM: through an image's entrypoint, a module, a shell, a wrapper."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from atoll.doctor.shell import ShellCommand, read_script
from atoll.doctor.tree import Node
from atoll.doctor.vllm import VllmCommand
from atoll.doctor.words import Word, script_words

_SHELLS = re.compile(r"^(?:/usr)?(?:/bin/)?(?:ba|da|a|z)?sh$")


def is_shell(text: str) -> bool:
    return _SHELLS.match(text) is not None


_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_BEFORE_PROGRAM = {"exec", "nohup", "env", "command", "tini", "--", "dumb-init", "/bin/tini", "/usr/bin/tini"}
_SEVERAL = re.compile(r"^--?[A-Za-z][\w.-]*\s+\S")  # an option and its value in one word


def read_command(
    entrypoint: Sequence[Word] | None,
    command: Sequence[Word],
    *,
    image_serves: bool,
    given: Mapping[str, str] | None = None,
) -> VllmCommand | None:
    """The vLLM command of a container, its version not told; None when it does not start vLLM.

    Args:
        entrypoint: the words of `entrypoint:`; None when the image's own stands.
        command: the words of `command:` (or `args:`).
        image_serves: the image's own entrypoint is `vllm serve`.
        given: the container's variables, which a shell in it finds.
    """
    found = first_started(commands_in(command if entrypoint is None else [*entrypoint, *command], given))
    if entrypoint is None and image_serves:
        stray = _stray(command)
        found = replace(found, stray=stray) if stray and found is not None else None
        found = found or made_of(command[len(stray) :], stray=stray)
    return found


def made_of(
    words: Sequence[Word],
    *,
    program: Sequence[Word] = (),
    environment: Mapping[str, Word] | None = None,
    stray: Sequence[Word] = (),
    unsplit: Sequence[Word] = (),
) -> VllmCommand:
    """A command of these arguments, the version not told; an option and its value in one word are read as two."""
    apart = [_split(word) if _SEVERAL.match(word.text) else (word,) for word in words]
    return VllmCommand(
        words=tuple(word for part in apart for word in part),
        version=None,
        version_known=False,
        program=tuple(program),
        environment=dict(environment or {}),
        stray=tuple(stray),
        unsplit=(*unsplit, *(word for word, part in zip(words, apart, strict=True) if len(part) > 1)),
    )


def _split(word: Word) -> tuple[Word, ...]:
    return script_words(replace(word, letters=word.letters or ()))


def first_started(commands: Iterable[ShellCommand]) -> VllmCommand | None:
    """The first of the simple commands that starts vLLM, with what the ones before it export."""
    return next((found for command in commands if (found := started_by(command)) is not None), None)


def started_by(command: ShellCommand) -> VllmCommand | None:
    """The vLLM command that a simple command is; None when it is another program."""
    words: tuple[Word, ...] = command.words
    unsplit: tuple[Word, ...] = ()
    if words and re.search(r"\s", words[0].text):
        words, unsplit = (*_split(words[0]), *words[1:]), words[:1]
    place = 0
    while place < len(words) and (_ASSIGNMENT.match(words[place].text) or words[place].text in _BEFORE_PROGRAM):
        place += 1
    environment = {**command.exported, **_assignments((*command.assigned, *words[:place]))}
    for at in range(place, len(words)):
        text = words[at].text
        following = words[at + 1].text if at + 1 < len(words) else ""
        if text.rpartition("/")[2] == "vllm" and following == "serve":
            rest, program = words[at + 2 :], words[at : at + 2]
        elif text.startswith("vllm.entrypoints.") and text.endswith("api_server"):
            rest, program = words[at + 1 :], words[place : at + 1]
        else:
            continue
        return made_of(rest, program=program, environment=environment, unsplit=unsplit)
    return None


def commands_in(words: Sequence[Word], given: Mapping[str, str] | None = None) -> tuple[ShellCommand, ...]:
    """The simple commands of a command line: one, or those of the script that `sh -c` is given.

    Args:
        words: the command line.
        given: the variables that a shell in it finds.
    """
    for place, word in enumerate(words[:-1]):
        if is_shell(word.text):
            flags = [n for n in range(place + 1, len(words) - 1) if re.fullmatch(r"-[a-z]*c[a-z]*", words[n].text)]
            if flags:
                script = words[flags[0] + 1]
                return read_script(script.letters, script.source, words[flags[0] + 3 :], given=given).commands
    return (ShellCommand(words=tuple(words)),)


def with_config(command: VllmCommand, config: Node | None) -> VllmCommand:
    """The command with the options of its --config file before its own, as vLLM reads them (FlexibleArgumentParser)."""
    if config is None:
        return command
    written = command.model_word
    words = [
        word
        for name, value in config.pairs()
        if name != "model" or written is None
        for word in config_words(name, value, config)
    ]
    return replace(command, words=(*words, *command.words))


def config_words(name: str, value: Node, config: Node) -> Iterator[Word]:
    """`--name value`; a bare switch for true, nothing for false, the value alone for the model."""
    place = config.key(name) or value
    if value.tag == "bool" and value.text != "true":
        return
    if name != "model":
        yield word_at(place, f"--{name}")
    if value.is_list:
        yield from (word_at(item, item.text or "") for item in value.items)
    elif value.is_map:
        yield word_at(value, json.dumps(value.plain()))
    elif value.tag != "bool":
        yield word_at(value, value.text or "")


def word_at(node: Node, text: str) -> Word:
    return Word(text=text, source=node.source, line=node.line, start=node.start, end=node.end)


def _stray(command: Sequence[Word]) -> tuple[Word, ...]:
    """`vllm serve`, `serve`, `python -m ...api_server` or `bash -c` in place of arguments of the image's entrypoint."""
    texts = [word.text for word in command[:3]]
    if texts and is_shell(texts[0]):
        return tuple(command[:2])
    if texts[:2] == ["vllm", "serve"]:
        return tuple(command[:2])
    if texts[:1] == ["serve"]:
        return tuple(command[:1])
    if texts and re.fullmatch(r"(/usr/bin/)?python3?", texts[0]) and "vllm" in " ".join(texts):
        return tuple(command[:3])
    return ()


def _assignments(words: Sequence[Word]) -> dict[str, Word]:
    return {word.text.partition("=")[0]: word for word in words if _ASSIGNMENT.match(word.text)}
