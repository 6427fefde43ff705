"""vLLM's environment variables, and what several engines and their files must agree on."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from atoll.doctor.checks.connections import engine_keep_alive_s, idle_fault, kept_s
from atoll.doctor.checks.places import found, join, option_place, remove_setting
from atoll.doctor.command_edits import replace_option
from atoll.doctor.compose import Service
from atoll.doctor.edits import Edits, replace_value
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.finding import Finding
from atoll.doctor.other_engines import listens_at
from atoll.doctor.parts import Port
from atoll.doctor.rule import ERROR, WARNING, rule
from atoll.doctor.vllm import show_version
from atoll.engines.vllm.options import known_versions
from atoll.engines.vllm.versions import parse_version


@rule("VL014", ERROR)
def memory_promised_twice(facts: Facts) -> Iterable[Finding]:
    sharing = [engine for engine in facts.engines if _share(engine) is not None]
    for place, engine in enumerate(sharing):
        crowds = {gpu: _crowd(facts, gpu, engine, sharing[:place]) for gpu in _cards(facts, engine)}
        crowded = [gpu for gpu, crowd in crowds.items() if len(crowd) > 1 and sum(map(_share_or_0, crowd)) > 0.95]
        if crowded:
            crowd = crowds[crowded[0]]
            names, shares = [one.name for one in crowd], [f"{_share_or_0(one):g}" for one in crowd]
            yield found(
                option_place(engine.command, "--gpu-memory-utilization", engine.service),
                f"{join(names)} take {join(shares)} of {join(sorted(crowded))}",
            )


def _share(engine: ServedEngine) -> float | None:
    """The part of each card that it takes; None when its cache is sized in bytes, or the number is not known."""
    return None if engine.command.has("--kv-cache-memory-bytes") else engine.command.memory_utilization


def _share_or_0(engine: ServedEngine) -> float:
    return _share(engine) or 0.0


def _cards(facts: Facts, engine: ServedEngine) -> tuple[str, ...]:
    request = engine.service.gpus
    if request is not None and request.all:
        return ("every GPU",)
    return tuple(f"GPU {name}" for name in facts.gpu_names(engine.service))


def _crowd(facts: Facts, gpu: str, engine: ServedEngine, others: list[ServedEngine]) -> list[ServedEngine]:
    """The engine and those of its project on this card that one `up` starts with it."""
    here = [
        other
        for other in others
        if other.service.project == engine.service.project
        and other.service.together_with(engine.service)
        and gpu in _cards(facts, other)
    ]
    return [*here, engine]


@rule("VL020", WARNING)
def engine_closes_first(facts: Facts) -> Iterable[Finding]:
    for route in facts.upstream_routes:
        kept, engine = kept_s(route), engine_keep_alive_s(route)
        if not route.engines or kept is None or kept < engine:
            continue
        first = route.engines[0]
        setting = first.environment.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE")
        verb = "closes" if len(route.engines) == 1 else "close"
        names = join([service.name for service in route.engines])
        what = f"{names} {verb} idle connections after {engine:g} s; nginx keeps them for {kept:g} s"
        yield replace(found(setting.node if setting is not None else first, what), fault=idle_fault(route))


@cache
def _known_variables() -> dict[str, tuple[str, str]]:
    text = files("atoll").joinpath("data/doctor_vllm_environment.json").read_text(encoding="utf-8")
    return {name: (first, last) for name, (first, last) in json.loads(text)["names"].items()}


@cache
def _newest_with_variables() -> str:
    text = files("atoll").joinpath("data/doctor_vllm_environment.json").read_text(encoding="utf-8")
    versions: list[str] = json.loads(text)["versions"]
    return versions[-1]


@rule("VL021", WARNING, risk="The variable is gone; another program in the container may read it.")
def unknown_variable(facts: Facts) -> Iterable[Finding]:
    for engine in facts.engines:
        version = engine.command.version or parse_version(_newest_with_variables())
        if not engine.release_told:
            continue
        for name, setting in engine.service.environment.items():
            if name.startswith("VLLM_"):
                problem = problem_of(name, version[:2])
                if problem:
                    yield found(setting.node, problem, edits=remove_setting(engine.service, setting))


def problem_of(name: str, version: tuple[int, ...]) -> str:
    known = _known_variables()
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.9)
        return f"vLLM has no variable {name}; {near[0]} is meant?" if near else ""  # otherwise somebody's own
    first, last = (parse_version(text) for text in known[name])
    oldest = parse_version(known_versions()[0])  # what that one has may be older still
    newest = parse_version(_newest_with_variables())[:2]
    if version > last[:2] and last[:2] < newest:  # what the newest list has is not gone from a release after it
        return f"{name} is gone in vLLM {show_version(version)}"
    return (
        f"{name} is new in vLLM {show_version(first[:2])}, not in {show_version(version)}"
        if version < first[:2] > oldest[:2]
        else ""
    )


_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@rule("VL023", ERROR, risk="The engine answers on all addresses of its container.")
def unreachable_port(facts: Facts) -> Iterable[Finding]:
    yield from _others_on_loopback(facts)
    for engine in facts.engines:
        service = engine.service
        host = engine.command.option("--host")
        if host is not None and host.value in _LOOPBACK and not service.host_network and not service.on_host:
            yield found(
                host.word,
                f"{engine.name} listens on {host.value} of its own container: nobody else reaches it",
                edits=replace_option(host, host.name, "0.0.0.0"),  # noqa: S104
            )
        listening = service.listen_port
        published = [port for port in service.ports if port.targets()]
        if listening is None or not published or service.host_network:
            continue
        if not any(listening in port.targets() for port in published):
            yield found(
                published[0].node,
                f"port {published[0].target} is published; {engine.name} listens on {listening}",
                edits=_with_target(published[0], listening),
            )


def _others_on_loopback(facts: Facts) -> Iterator[Finding]:
    """Other engines that only their own container reaches; SGLang listens so unless it is told otherwise."""
    for service in facts.services:
        if service.vllm is not None or service.kind not in {"sglang", "tgi", "llama.cpp", "lmdeploy"}:
            continue
        host, port, word = listens_at(service.kind, service.words, None)
        if host in _LOOPBACK and service.words and not service.host_network and not service.on_host:
            said = f" (port {port})" if port is not None else ""
            yield found(
                word or service,
                f"{service.name} listens on {host} of its own container{said}: nobody else reaches it",
                fix="--host 0.0.0.0.",
            )


def _with_target(port: Port, listening: int) -> Edits:
    node = port.node if not port.node.is_map else port.node.get("target")
    if node is None or node.text is None or not node.known:
        return ()
    text = re.sub(rf"{re.escape(port.target)}(/\w+)?$", rf"{listening}\1", node.text)
    return replace_value(node, f'"{text}"' if not port.node.is_map else text)


_COMPARED = (
    "--served-model-name",
    "--max-model-len",
    "--quantization",
    "--dtype",
    "--kv-cache-dtype",
    "--generation-config",
    "--override-generation-config",
    "--chat-template",
    "--tool-call-parser",
    "--reasoning-parser",
)


@rule("VL024", WARNING)
def unlike_twins(facts: Facts) -> Iterable[Finding]:
    for route in facts.upstream_routes:
        engines = [engine for engine in facts.engines if engine.service in route.services]
        for other in engines[1:]:
            differences = _differences(engines[0], other)
            if differences:
                yield found(
                    other.service,
                    f"{other.name} and {engines[0].name} serve one upstream and differ in {join(differences)}",
                )


def _differences(one: ServedEngine, other: ServedEngine) -> list[str]:
    pairs = {
        "the image": (_image(one.service), _image(other.service)),
        "the model": (one.command.model, other.command.model),
        **{name: (one.command.text(name), other.command.text(name)) for name in _COMPARED},
    }
    return [name for name, (mine, theirs) in pairs.items() if mine != theirs]


def _image(service: Service) -> str | None:
    return service.image.text if service.image is not None else None
