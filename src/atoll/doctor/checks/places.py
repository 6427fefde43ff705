"""Where a finding stands: the small words that every check uses."""

import re
from collections.abc import Iterator

from atoll.doctor.compose import Service
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.finding import Finding
from atoll.doctor.nginx import Directive
from atoll.doctor.tree import Node
from atoll.doctor.vllm import GivenOption, VllmCommand
from atoll.doctor.words import Word, script_words, words_of

Place = Node | Word | Directive | Service


def found(place: Place, what: str, *, fix: str = "", why: str = "", edits: Edits = ()) -> Finding:
    """A finding at this place; what is left out is taken from the rule's page."""
    return Finding(file=place.file, line=place.line, what=what, fix=fix, why=why, edits=edits)


def options(facts: Facts) -> Iterator[tuple[ServedEngine, GivenOption]]:
    """Every option of every vLLM command, once where services share a command through an anchor."""
    seen: set[tuple[str, int]] = set()
    for engine in facts.engines:
        for option in engine.command.options:
            place = (option.word.file, option.word.start)
            if place not in seen:
                seen.add(place)
                yield engine, option


def named_options(facts: Facts, *names: str) -> Iterator[tuple[ServedEngine, GivenOption]]:
    """Those of these long names."""
    return ((engine, option) for engine, option in options(facts) if option.name in names and not option.path)


def option_place(command: VllmCommand, name: str, otherwise: Service) -> Place:
    """Where an option stands; the service when it is not written."""
    option = command.option(name)
    return option.word if option is not None else otherwise


def installed(service: Service, package: str) -> Iterator[Word]:
    """The words of a service's command that pin this Python package: `litellm[proxy]==1.2.3`."""
    pinned = re.compile(rf"^{re.escape(package)}(\[[\w,-]*\])?==")
    for word in (*words_of(service.get("entrypoint")), *words_of(service.get("command"))):
        script = script_words(word) if " " in word.text else (word,)
        yield from (inner for inner in script if pinned.match(inner.text))


def join(names: list[str] | tuple[str, ...]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def made_by_atoll(facts: Facts, place: Place) -> bool:
    """Whether it belongs to a rendered bundle: the layout that decided such things lies beside it."""
    folder = place.file.rpartition("/")[0]
    return any(source.path.rpartition("/")[0] == folder for source, _ in facts.layouts)
