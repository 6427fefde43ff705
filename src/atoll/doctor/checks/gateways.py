"""Doors other than nginx, whatever they are written in: where they lead, and how long they wait."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import found, join
from atoll.doctor.checks.timeouts import needed_wait_s
from atoll.doctor.compose import Service
from atoll.doctor.door import Backend, Door, Wait
from atoll.doctor.edits import Edits, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.leads import Lead
from atoll.doctor.rule import ERROR, SAFE, WARNING, rule


@rule("PX007", ERROR, risk="Requests go to another port.")
def asks_another_port(facts: Facts) -> Iterable[Finding]:
    for door, backend, service in _reached(facts):
        listening = service.listen_port
        if listening is None or backend.port in {listening, None} or service.host_network or service.on_host:
            continue
        if service.name != backend.host and backend.host not in service.names:
            continue  # by a published port, which is right
        yield found(
            backend.node,
            f"{door.kind} asks {service.name} on port {backend.port}; it listens on {listening}",
            edits=_with_port(backend, listening),
        )


def _reached(facts: Facts) -> Iterator[tuple[Door, Backend, Service]]:
    """The engines that doors lead to."""
    for door in facts.doors:
        for backend in door.backends:
            service = facts.behind(door, backend)
            if service is not None and service.serves_llm:
                yield door, backend, service


def _with_port(backend: Backend, listening: int) -> Edits:
    node = backend.node
    text = node.raw or ""
    if node.text != text or not node.source.fixable:
        return ()
    changed = text if text.isdecimal() else re.sub(rf":{backend.port}(?=/|$)", f":{listening}", text)
    changed = str(listening) if text.isdecimal() else changed
    quote = node.style if node.style in {"'", '"'} else ""
    return replace_value(node, f"{quote}{changed}{quote}") if changed != text else ()


@rule("PX008", ERROR, risk=SAFE)
def cuts_long_answers(facts: Facts) -> Iterable[Finding]:
    told: set[int] = set()
    for door in facts.doors:
        if not _leads_to_llm(facts, door):
            continue
        for wait in door.waits:
            if id(wait.node) in told or not 0 < wait.seconds < needed_wait_s(facts, wait.node.file):
                continue
            told.add(id(wait.node))
            what = f"{door.kind} gives up after {wait.seconds:g} s ({wait.setting})"
            yield found(wait.node, what, edits=_longer(wait))


def _longer(wait: Wait) -> Edits:
    return replace_value(wait.node, wait.edits_to) if wait.edits_to is not None else ()


def _leads_to_llm(facts: Facts, door: Door) -> bool:
    if door.kind == "LiteLLM":
        return True
    if not door.backends:  # the limits of all that it serves
        around = facts.projects_around(door.node.source)
        return any(service.serves_llm for project in around for service in project.services)
    known = [backend for backend in door.backends if facts.behind(door, backend) is not None]
    return any(facts.lead_of_backend(door, backend) is Lead.MODEL for backend in known or door.backends)


@rule("PX009", WARNING)
def key_written_out(facts: Facts) -> Iterable[Finding]:
    for door in facts.doors:
        for key in door.keys:
            yield found(key, f"{door.kind}'s master key is written out")


@rule("PX010", ERROR)
def asks_another_model(facts: Facts) -> Iterable[Finding]:
    for door, backend, service in _reached(facts):
        names = _served_names(service)
        if backend.model is None or backend.model_node is None or not names or backend.model in names:
            continue
        yield found(
            backend.model_node, f"{door.kind} asks {service.name} for {backend.model}; it serves {join(sorted(names))}"
        )


def _served_names(service: Service) -> set[str]:
    """The names under which vLLM serves; none where they cannot all be told."""
    command = service.vllm
    if command is None or command.open_ended or command.has("--enable-lora", "--lora-modules"):
        return set()
    option = command.option("--served-model-name")
    if option is None:
        return {command.model} if command.model is not None else set()
    return {word.text for word in option.words[1:]} or {option.value or ""} if option.known else set()
