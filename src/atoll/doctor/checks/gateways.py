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
from atoll.doctor.rule import ERROR, SAFE, WARNING, rule

_LLM = re.compile(r"vllm|llm|sglang|ollama|llama|qwen|openai|tgi|inference|/v1\b", re.IGNORECASE)


@rule("PX007", ERROR, risk="Requests go to another port.")
def asks_another_port(facts: Facts) -> Iterable[Finding]:
    """A door (Caddy, Traefik, HAProxy, Envoy, LiteLLM) asks a port on which the engine does not listen.

    Consequence: 502 for every request, or LiteLLM's connection error.

    Evidence: the engine's command and the door's file, held together (as NG031 for nginx).

    Fix: The port inside the network (vLLM's --port, 8000), not the published one.

    Fails:
    ```compose.yaml
    services:
      a: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct, ports: ["127.0.0.1:8001:8000"]}
      caddy: {image: "caddy:2.10", volumes: ["./Caddyfile:/etc/caddy/Caddyfile"]}
    ```
    ```Caddyfile
    :80 {
        reverse_proxy a:8001
    }
    ```

    Passes:
    ```compose.yaml
    services:
      a: {image: "vllm/vllm-openai:v0.32.0", command: Qwen/Qwen2.5-7B-Instruct, ports: ["127.0.0.1:8001:8000"]}
      caddy: {image: "caddy:2.10", volumes: ["./Caddyfile:/etc/caddy/Caddyfile"]}
    ```
    ```Caddyfile
    :80 {
        reverse_proxy a:8000
    }
    ```
    """
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
    """A door (Caddy, Traefik, HAProxy, LiteLLM) gives up before an answer is there.

    Consequence: 502 or 504, and streams that end in the middle, for the longest answers first.

    Evidence: Caddy's transport http {}, Traefik's forwardingTimeouts and respondingTimeouts, HAProxy's
    `timeout server`, LiteLLM's timeout (of the entire call), as their documentation has them.

    Fix: A limit longer than the longest answer and its wait in the queue: 30 minutes, or none.

    Fails:
    ```haproxy.cfg
    defaults
        mode http
        option http-no-delay
        timeout server 30s
    backend vllm
        server vllm-0 10.0.0.1:8000
    ```

    Passes:
    ```haproxy.cfg
    defaults
        mode http
        option http-no-delay
        timeout server 30m
    backend vllm
        server vllm-0 10.0.0.1:8000
    ```
    """
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
    reached = [facts.behind(door, backend) for backend in door.backends]
    if any(service is not None for service in reached):
        return any(service is not None and service.serves_llm for service in reached)
    if not door.backends:  # the limits of all that it serves
        around = facts.projects_around(door.node.source)
        return any(service.serves_llm for project in around for service in project.services)
    names = [door.node.source.line(door.node.line)]
    names += [name for backend in door.backends for name in (backend.host, backend.node.text or "")]
    return any(_LLM.search(name) for name in names)


@rule("PX009", WARNING)
def key_written_out(facts: Facts) -> Iterable[Finding]:
    """LiteLLM's master key stands in its file.

    Consequence: Whoever reads the file, or a repository that it gets into, may make keys and use every model.

    Evidence: LiteLLM's documentation reads `os.environ/NAME`.

    Fix: master_key: os.environ/LITELLM_MASTER_KEY, and the key in the environment or a secret.

    Fails:
    ```litellm.yaml
    model_list:
      - {model_name: chat, litellm_params: {model: hosted_vllm/m, api_base: "http://a:8000/v1"}}
    general_settings: {master_key: sk-1234}
    ```

    Passes:
    ```litellm.yaml
    model_list:
      - {model_name: chat, litellm_params: {model: hosted_vllm/m, api_base: "http://a:8000/v1"}}
    general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}
    ```
    """
    for door in facts.doors:
        for key in door.keys:
            yield found(key, f"{door.kind}'s master key is written out")


@rule("PX010", ERROR)
def asks_another_model(facts: Facts) -> Iterable[Finding]:
    """A router asks for a model under a name that the engine does not serve.

    Consequence: vLLM answers 404: `The model ... does not exist`.

    Evidence: vLLM's entrypoints/openai/serving_models.py; the names are those of --served-model-name, else the model's.

    Fix: One of the names that the engine serves.

    Fails:
    ```compose.yaml
    services:
      a: {image: "vllm/vllm-openai:v0.32.0", command: [org/m, --served-model-name, chat]}
    ```
    ```litellm.yaml
    model_list:
      - {model_name: chat, litellm_params: {model: hosted_vllm/org/m, api_base: "http://a:8000/v1"}}
    ```

    Passes:
    ```compose.yaml
    services:
      a: {image: "vllm/vllm-openai:v0.32.0", command: [org/m, --served-model-name, chat]}
    ```
    ```litellm.yaml
    model_list:
      - {model_name: chat, litellm_params: {model: hosted_vllm/chat, api_base: "http://a:8000/v1"}}
    ```
    """
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
