"""vLLM's environment variables, and what several engines and their files must agree on."""

import json
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from atoll.doctor.checks.connections import engine_keep_alive_s, kept_s
from atoll.doctor.checks.places import found, join, option_place, remove_setting
from atoll.doctor.compose import Service
from atoll.doctor.edits import Edits, replace_option, replace_value
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
    """Engines that share a GPU promise themselves more than there is.

    Consequence: The second one stops: not enough free memory. The share is of the whole card, for each engine.

    Evidence: the help of 0.32.0; the default share is 0.92.

    Fix: Disjoint GPUs, shares that add up to less than 0.95, or --kv-cache-memory-bytes.

    Fails:
    ```compose.yaml
    services:
      a:
        image: vllm/vllm-openai:v0.32.0
        command: [m/one, --gpu-memory-utilization, "0.6"]
        gpus: [{device_ids: ["0"]}]
      b:
        image: vllm/vllm-openai:v0.32.0
        command: [m/two, --gpu-memory-utilization, "0.6"]
        gpus: [{device_ids: ["0"]}]
    ```

    Passes:
    ```compose.yaml
    services:
      a:
        image: vllm/vllm-openai:v0.32.0
        command: [m/one, --gpu-memory-utilization, "0.5"]
        gpus: [{device_ids: ["0"]}]
      b:
        image: vllm/vllm-openai:v0.32.0
        command: [m/two, --gpu-memory-utilization, "0.4"]
        gpus: [{device_ids: ["0"]}]
    ```
    """
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
    """An engine ends idle connections (after 5 s unless told otherwise) before nginx does; NG006 is nginx's side.

    Consequence: A POST lands on a connection that vLLM is closing: 502, not tried again, and the engine is left out for
    10 s.

    Evidence: reproduced with nginx 1.31.3: POST 502, GET tried again; vLLM PR 18472,
    https://github.com/llm-d/llm-d/pull/1564, https://github.com/llm-d/llm-d-benchmark/pull/1675.

    Fix: VLLM_HTTP_TIMEOUT_KEEP_ALIVE above nginx's time, or keepalive_timeout 4s in the upstream.

    Fails:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; keepalive 64; keepalive_timeout 60s; }
      server { location /v1/ { proxy_pass http://vllm; proxy_http_version 1.1; proxy_set_header Connection ""; } }
    }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        environment: {VLLM_HTTP_TIMEOUT_KEEP_ALIVE: "75"}
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; keepalive 64; keepalive_timeout 60s; }
      server { location /v1/ { proxy_pass http://vllm; proxy_http_version 1.1; proxy_set_header Connection ""; } }
    }
    ```
    """
    for route in facts.upstream_routes:
        kept, engine = kept_s(route), engine_keep_alive_s(route)
        if not route.engines or kept is None or kept < engine:
            continue
        first = route.engines[0]
        setting = first.environment.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE")
        names = join([service.name for service in route.engines])
        yield found(
            setting.node if setting is not None else first,
            f"idle connections end after {engine:g} s at {names}; nginx keeps them for {kept:g} s",
        )


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
    """An environment variable that this vLLM does not know.

    Consequence: vLLM warns and goes on without it, so what was wanted does not happen.

    Evidence: `environment_variables` in vllm/envs.py of 26 releases from 0.8 to 0.33; platforms/interface.py.

    Fix: The option that took its place (--attention-backend for VLLM_ATTENTION_BACKEND), or take it out;
    --fail-on-environ-validation makes it an error.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        environment: {VLLM_USE_V1: "1", HF_HUB_OFFLINE: "1"}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        environment: {VLLM_LOGGING_LEVEL: INFO}
    ```
    """
    for engine in facts.engines:
        version = engine.command.version or parse_version(_newest_with_variables())
        if not engine.release_told:
            continue
        for name, setting in engine.service.environment.items():
            if name.startswith("VLLM_"):
                problem = _problem_of(name, version[:2])
                if problem:
                    yield found(setting.node, problem, edits=remove_setting(engine.service, setting))


def _problem_of(name: str, version: tuple[int, ...]) -> str:
    known = _known_variables()
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.9)
        return f"vLLM has no variable {name}; {near[0]} is meant?" if near else ""  # otherwise somebody's own
    first, last = (parse_version(text) for text in known[name])
    oldest = parse_version(known_versions()[0])  # what that one has may be older still
    if version > last[:2]:
        return f"{name} is gone in vLLM {show_version(version)}"
    return (
        f"{name} is new in vLLM {show_version(first[:2])}, not in {show_version(version)}"
        if version < first[:2] > oldest[:2]
        else ""
    )


_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@rule("VL023", ERROR, risk="The engine answers on all addresses of its container.")
def unreachable_port(facts: Facts) -> Iterable[Finding]:
    """The engine listens on loopback inside its container, or on another port than the one that is published.

    Consequence: Connection refused: nginx answers 502.

    Evidence: the compose file and the flags, held together; a refused upstream gives 502.

    Fix: --host 0.0.0.0, and one port everywhere.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model, --port, "9000"]
        ports: ["127.0.0.1:8000:8000"]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model, --port, "9000"]
        ports: ["127.0.0.1:8000:9000"]
    ```
    """
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
    """The engines of one upstream differ.

    Consequence: Every other request gets 404 (`model does not exist`), 400 for a long prompt, or an answer of another
    kind.

    Evidence: the files, held together.

    Fix: One YAML anchor for all engines of an upstream.

    Fails:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, --max-model-len, "8192"]}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, --max-model-len, "4096"]}
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, --max-model-len, "8192"]}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, --max-model-len, "8192"]}
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; } }
    }
    ```
    """
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
