"""Dockerfiles: what the image that they build runs, with its lines."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from atoll.doctor.compose import Service
from atoll.doctor.form import Lettered, listing, mapping, scalar
from atoll.doctor.letters import Letter
from atoll.doctor.shell import read_script
from atoll.doctor.substitution import interpolate
from atoll.doctor.tree import Node, Source, cut_out, read_yaml
from atoll.doctor.words import Word, split_words, word_list
from atoll.errors import BadDocument


@dataclass(frozen=True, kw_only=True)
class Instruction(Lettered):
    """One instruction: its name in capitals and the characters after it."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Built:
    """What the last stage makes: the image that it comes from in the end, and what it sets."""

    image: Node | None
    entrypoint: Node | None = None
    command: Node | None = None
    environment: Mapping[str, Node] = field(default_factory=dict)
    copied: Mapping[str, str] = field(default_factory=dict)  # path in the image -> in the context


def instructions_of(source: Source) -> Iterator[Instruction]:
    """The instructions of a Dockerfile; comments, here-documents and what is none left out."""
    letters: list[Letter] = []
    name, start, line, ends_at = "", 0, 0, None
    for number, text in enumerate(source.lines, start=1):
        offset, bare = source.start(number), text.strip()
        if ends_at is not None:
            ends_at = None if bare == ends_at else ends_at
            continue
        if bare.startswith("#") or (not bare and not name):
            continue
        first = 0
        if not name:
            head = re.match(r"\s*([A-Za-z]+)\s+", text)
            if head is None:
                continue
            name, start, line, first = head[1].upper(), offset + head.start(1), number, head.end()
        body = text.rstrip()
        continued = body.endswith("\\")
        body = body[:-1] if continued else body
        letters += [Letter(char, offset + first + place) for place, char in enumerate(body[first:])]
        if continued:
            letters.append(Letter(" ", offset + len(body)))
            continue
        yield Instruction(name=name, letters=tuple(letters), source=source, start=start, line=line)
        document = re.search(r"<<-?['\"]?(\w+)['\"]?", body) if name in {"RUN", "COPY", "ADD"} else None
        ends_at = document[1] if document is not None else None
        letters, name = [], ""
    if name:
        yield Instruction(name=name, letters=tuple(letters), source=source, start=start, line=line)


@dataclass
class _Stage:
    base: str
    image: Node | None
    entrypoint: Node | None = None
    command: Node | None = None
    environment: dict[str, Node] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)


def read_dockerfile(source: Source, arguments: Mapping[str, str] | None = None, target: str | None = None) -> Built:
    """What the image is made of.

    Args:
        source: the Dockerfile.
        arguments: of the build, over the defaults of its ARGs.
        target: the stage that is built; None for the last.
    """
    known: dict[str, str] = {}
    stages: dict[str, _Stage] = {}
    here: _Stage | None = None
    for one in instructions_of(source):
        if one.name == "ARG":
            name, _, default = one.text.partition("=")
            known[name.strip()] = (arguments or {}).get(name.strip(), default.strip().strip("\"'"))
        elif one.name == "FROM":
            here = _from(one, known, stages)
        elif here is not None:
            _set(here, one, known)
    chosen = stages.get((target or "").lower(), here) if target else here
    if chosen is None:
        return Built(image=None)
    return Built(
        image=chosen.image,
        entrypoint=chosen.entrypoint,
        command=chosen.command,
        environment=chosen.environment,
        copied=chosen.copied,
    )


def _from(one: Instruction, known: Mapping[str, str], stages: dict[str, _Stage]) -> _Stage:
    words = [word for word in split_words(one.letters, one.source, script=False) if not word.text.startswith("--")]
    name = words[0].text if words else ""
    filled = interpolate(name, known)
    base = stages.get(filled.lower())
    if base is not None:
        made = _Stage(filled, base.image, base.entrypoint, base.command, dict(base.environment), dict(base.copied))
    else:
        made = _Stage(filled, _image_node(words[0], filled) if words else None)
    if len(words) > 2 and words[1].text.lower() == "as":
        stages[words[2].text.lower()] = made
    return made


def _image_node(word: Word, filled: str) -> Node:
    place = Node(
        source=word.source, line=word.line, start=word.start, end=word.end, tag="str", text=filled, raw=word.text
    )
    return place if filled == word.text else scalar(place, filled)


def _set(stage: _Stage, one: Instruction, known: Mapping[str, str]) -> None:
    if one.name == "ENTRYPOINT":
        stage.entrypoint, stage.command = _command(one), None
    elif one.name == "CMD":
        stage.command = _command(one)
    elif one.name == "ENV":
        stage.environment |= _variables(one, known)
    elif one.name in {"COPY", "ADD"} and "--from" not in one.text:
        words = [part for part in one.text.split() if not part.startswith("--")]
        for origin in words[:-1]:
            place = words[-1]
            if place.endswith("/") or place == "." or len(words) > 2:
                place = posixpath.join(place, posixpath.basename(origin))
            stage.copied[place] = origin


def _command(one: Instruction) -> Node:
    """`["a", "b"]` as a list; the shell form as the words of its first command."""
    text = one.text.strip()
    if text.startswith("[") and one.letters:
        try:
            roots = read_yaml(cut_out(one.source, one.letters[0].offset, one.letters[-1].offset + 1))
        except BadDocument:
            roots = ()
        if roots and roots[0].is_list:
            return listing(roots[0], roots[0].items)
    commands = read_script(one.letters, one.source).commands
    return word_list(commands[0].words if commands else (), one.node)


def _variables(one: Instruction, known: Mapping[str, str]) -> dict[str, Node]:
    """`ENV A=b C="d e"`, or the old `ENV A b`."""
    words: Sequence[Word] = split_words(one.letters, one.source, script=False)
    if words and "=" not in words[0].text:
        rest = " ".join(word.text for word in words[1:])
        return {words[0].text: scalar(one.node, interpolate(rest, known))}
    pairs = (word.text.partition("=") for word in words)
    return {name: scalar(one.node, interpolate(text, known)) for name, equals, text in pairs if equals}


def service_of_dockerfile(source: Source) -> Service | None:
    """The container that an image runs which no Compose file builds; None when it is no engine."""
    built = read_dockerfile(source)
    if built.image is None:
        return None
    near = scalar(built.image, "image")
    values = {"image": built.image, "entrypoint": built.entrypoint, "command": built.command}
    node = mapping(near, {**values, "environment": mapping(near, built.environment) if built.environment else None})
    service = Service(
        name=posixpath.basename(source.folder) if source.folder not in {"", "."} else "image",
        node=node,
        name_node=near,
        project=source.path,
        env_file={},
    )
    return service if service.serves_llm or service.vllm is not None else None
