"""Where a finding stands: the small words that every check uses."""

import re
from collections.abc import Iterator, Sequence

from atoll.doctor.command_edits import add_option
from atoll.doctor.compose import Project, Service
from atoll.doctor.edits import Edits, remove_item, remove_key, replace_value
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.finding import Finding
from atoll.doctor.nginx import Directive
from atoll.doctor.parts import Setting
from atoll.doctor.tree import Node
from atoll.doctor.vllm import GivenOption, VllmCommand
from atoll.doctor.words import Word, script_words, words_of
from atoll.errors import InputError
from atoll.render.stack import MODELS_FOLDER
from atoll.units import parse_seconds

Place = Node | Word | Directive | Service


def found(
    place: Place,
    what: str,
    *,
    fix: str = "",
    why: str = "",
    edits: Edits = (),
    risk: str | None = None,
    alike: str = "",
) -> Finding:
    """A finding at this place; what is left out is taken from the rule and its page.

    Args:
        place: where it stands.
        what: is wrong.
        fix: what to do, where the page's advice does not fit.
        why: what follows, likewise.
        edits: that do it.
        risk: what these edits change of what serves, where it is more (or less) than the rule says.
        alike: what findings that are told as one have in common, where their words differ.
    """
    return Finding(file=place.file, line=place.line, what=what, fix=fix, why=why, edits=edits, risk=risk, alike=alike)


def options(facts: Facts) -> Iterator[tuple[ServedEngine, GivenOption]]:
    """Every option of every vLLM command, once where services of one release share a command through an anchor."""
    seen: set[tuple[object, ...]] = set()
    for engine in facts.engines:
        for option in engine.command.options:
            place = (option.word.file, option.word.start, engine.command.version, engine.release_told)
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


def counted(count: int, noun: str) -> str:
    """`1 GPU`, `2 GPUs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def made_by_atoll(facts: Facts, place: Place) -> bool:
    """Whether it belongs to a rendered bundle: the layout that decided such things lies beside it."""
    folder = place.file.rpartition("/")[0]
    layouts = {folder, f"{folder}/{MODELS_FOLDER}" if folder else MODELS_FOLDER}  # of one model, or of a stack
    return any(source.path.rpartition("/")[0] in layouts for source, _ in facts.layouts)


def add_to_command(engine: ServedEngine, *words: str) -> Edits:
    """These words after the last one of an engine's `command:`."""
    return add_option(engine.command.words, words, engine.service.get("command"))


def serving(facts: Facts, *, by_hand: bool = False) -> Iterator[tuple[Project, Service]]:
    """The containers on an answer's way: engines, proxies, nginx before them.

    Args:
        facts: what was gathered.
        by_hand: those of a `docker run` in a script too, which nobody promised to keep running.
    """
    routed = {id(route.config.service) for route in facts.routes}
    for project in facts.projects:
        kept = project.origin in {"compose", "inspect", "unit", *(["script"] if by_hand else [])}
        for service in project.services if kept else ():
            if service.on_host:
                continue
            if service.serves_llm or id(service) in routed:
                yield project, service


def engines(facts: Facts, *, by_hand: bool = False) -> Iterator[tuple[Project, Service]]:
    """The containers that run vLLM; `by_hand` as for `serving`."""
    return ((project, service) for project, service in serving(facts, by_hand=by_hand) if service.vllm is not None)


def seconds_of(node: Node | None, default: float) -> float | None:
    """The seconds of a duration; `default` when it is not written, None when it cannot be told."""
    if node is None:
        return default
    try:
        return parse_seconds(node.text or "") if node.known else None
    except InputError:
        return None


def with_ids(service: Service | None, group: Sequence[int]) -> Edits:
    """These GPUs in place of those that a service's request names, when it names as many by number."""
    request = service.gpus if service is not None else None
    if request is None or len(request.id_nodes) != len(group) or any(":" in (n.text or "") for n in request.id_nodes):
        return ()
    return tuple(
        edit
        for node, gpu in zip(request.id_nodes, group, strict=True)
        if node.text != str(gpu)
        for edit in replace_value(node, f'"{gpu}"')
    )


def remove_setting(service: Service | None, setting: Setting) -> Edits:
    """Take a variable out of `environment`, list or mapping; the whole of it when there is no other."""
    node = service.get("environment") if service is not None else None
    if service is None or node is None:
        return ()
    entry = node.entries.get(setting.name)
    if setting.node not in node.items and (entry is None or entry.value is not setting.node):
        return ()  # it came out of a file or out of the command
    if len(node.items) + len(node.entries) == 1:
        return remove_key(service.node, "environment")
    return remove_key(node, setting.name) if node.is_map else remove_item(setting.node)


def of_kind(facts: Facts, kind: str) -> Iterator[Node]:
    """The Kubernetes objects of this kind."""
    return (manifest for manifest in facts.manifests if manifest.string("kind") == kind)


def number_in(node: Node | None, default: float) -> float:
    """The whole number of a field; `default` for anything else."""
    return float(node.text) if node is not None and node.text and re.fullmatch(r"\d+", node.text) else default
