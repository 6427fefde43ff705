"""Proxies other than nginx before the engines."""

import re
from collections.abc import Iterable, Iterator, Mapping

from atoll.doctor.checks.places import found, installed
from atoll.doctor.checks.timeouts import needed_wait_s
from atoll.doctor.compose import Service
from atoll.doctor.edits import Edits, add_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.haproxy import haproxy_sections
from atoll.doctor.rule import ERROR, INFO, SAFE, WARNING, rule
from atoll.doctor.tree import Node, Source
from atoll.doctor.words import Word, words_of

_LLM = re.compile(r"vllm|llm|sglang|ollama|llama|qwen|openai|tgi|inference", re.IGNORECASE)


@rule("PX001", ERROR, risk=SAFE)
def haproxy_waits(facts: Facts) -> Iterable[Finding]:
    """HAProxy before an engine without `option http-no-delay`.

    Consequence: Streamed tokens wait: +208 to 212 ms TTFT, and bursts every 200 ms.

    Evidence: measured with HAProxy 2.6.12; with the option +0.5 ms.

    Fix: option http-no-delay in the backend or the defaults.

    Fails:
    ```haproxy.cfg
    defaults
        mode http
    backend vllm
        server vllm-0 10.0.0.1:8000
    ```

    Passes:
    ```haproxy.cfg
    defaults
        mode http
        option http-no-delay
    backend vllm
        server vllm-0 10.0.0.1:8000
    ```
    """
    option = r"option\s+http-no-delay"
    for source in facts.haproxy:
        sections = list(haproxy_sections(source))
        defaults = [section for section in sections if section.kind == "defaults"]
        if any(section.says(option) for section in defaults):
            continue
        http = any(section.says(r"mode\s+http") for section in defaults)
        for section in sections:
            servers = " ".join(text for _, text in section.lines if text.startswith("server"))
            leads_to_llm = bool(_LLM.search(f"{section.name} {servers}"))
            speaks_http = section.says(r"mode\s+http") or (http and not section.says(r"mode\s+tcp"))
            if section.kind in {"backend", "listen"} and leads_to_llm and speaks_http and not section.says(option):
                yield Finding(
                    file=source.path,
                    line=section.line,
                    what=f"HAProxy holds the tokens of {section.name} back",
                    edits=_line_after(source, section.line),
                )


def _line_after(source: Source, line: int) -> tuple[Edit, ...]:
    if not source.fixable:
        return ()
    end = source.start(line + 1) - 1
    indent = re.match(r"\s*", source.line(line + 1))
    text = f"\n{indent[0] if indent is not None and indent[0] else '    '}option http-no-delay"
    return (Edit(file=source.path, start=end, end=end, text=text),)


@rule("PX002", WARNING)
def slow_first_chunk(facts: Facts) -> Iterable[Finding]:
    """sglang-router 0.3.2 on kept client connections.

    Consequence: The first chunk is held for about 43 ms (Nagle and delayed acknowledgement).

    Evidence: measured: headers leave at 51 ms, the first chunk at 95 ms; gone with TCP_QUICKACK.

    Fix: Another version, vllm-router or nginx.

    Fails:
    ```compose.yaml
    services:
      router: {image: "lmsysorg/sglang-router:v0.3.2"}
    ```

    Passes:
    ```compose.yaml
    services:
      router: {image: "lmsysorg/sglang-router:v0.4.0"}
    ```
    """
    for service in facts.services:
        node = service.get("image")
        if (
            node is not None
            and service.kind == "sglang-router"
            and service.image is not None
            and service.image.version == (0, 3, 2)
        ):
            yield found(node, "sglang-router 0.3.2 holds the first chunk of an answer")
        for word in installed(service, "sglang-router"):
            if word.text.endswith("==0.3.2"):
                yield found(word, "sglang-router 0.3.2 holds the first chunk of an answer")


def _options(words: Iterable[Word]) -> Mapping[str, str]:
    """--name value and --name=value of a plain command."""
    made: dict[str, str] = {}
    listed = [word.text for word in words]
    for place, text in enumerate(listed):
        name, equals, value = text.partition("=")
        if name.startswith("--"):
            following = listed[place + 1] if place + 1 < len(listed) else ""
            made[name] = value if equals else following if not following.startswith("--") else ""
    return made


def _all_words(service: Service) -> tuple[Word, ...]:
    return (*words_of(service.get("entrypoint")), *words_of(service.get("command")))


@rule("PX003", WARNING)
def all_to_one(facts: Facts) -> Iterable[Finding]:
    """vllm-router with --policy cache_aware, its default.

    Consequence: Every request costs two more calls to every engine (+11 ms TTFT), and prompts that begin alike all go
    to one engine until it is 64 requests ahead, more than many engines run at once.

    Evidence: measured with vllm-router 0.1.17: 124 of 124 on one of two engines;
    https://github.com/ai-dynamo/dynamo/issues/737, https://github.com/vllm-project/production-stack/pull/884.

    Fix: --balance-abs-threshold 8, or --policy power_of_two or consistent_hash; --enable-scale-out on vLLM.

    Fails:
    ```compose.yaml
    services:
      router: {image: "vllm/vllm-router:0.1.17", command: [--worker-urls, "http://a:8000", "http://b:8000"]}
    ```

    Passes:
    ```compose.yaml
    services:
      router:
        image: vllm/vllm-router:0.1.17
        command: [--worker-urls, "http://a:8000", "http://b:8000", --policy, power_of_two]
    ```
    """
    for service in facts.services:
        if service.kind != "vllm-router" or (service.image is not None and "lmstack" in service.image.path):
            continue
        given = _options(_all_words(service))
        threshold = given.get("--balance-abs-threshold", "64")
        slots = [
            e.command.integer("--max-num-seqs", 256) or 256
            for e in facts.engines
            if e.service.project == service.project
        ]
        if given.get("--policy", "cache_aware") != "cache_aware" or not threshold.isdecimal():
            continue
        if "--balance-abs-threshold" not in given or int(threshold) > min(slots, default=256):
            yield found(
                service, f"{service.name} sends prompts that begin alike to one engine until it is {threshold} ahead"
            )


@rule("PX004", WARNING)
def slow_data_plane(facts: Facts) -> Iterable[Finding]:
    """A single LiteLLM worker carries the tokens of local engines.

    Consequence: 150 to 235 CPU seconds for 1000 streams of 64 chunks, about a hundred times nginx, and seconds more
    to the first token at 30 streams.

    Evidence: measured with 1.106.2; https://github.com/BerriAI/litellm/issues/13546,
    https://github.com/BerriAI/litellm/issues/13505, https://github.com/BerriAI/litellm/issues/21046.

    Fix: Several workers (--num_workers), or keep it for keys and budgets and let tokens go through nginx.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      litellm: {image: "ghcr.io/berriai/litellm:main-v1.106.2-stable", command: [--config, /app/config.yaml]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      litellm:
        image: ghcr.io/berriai/litellm:main-v1.106.2-stable
        command: [--config, /app/config.yaml, --num_workers, "8"]
    ```
    """
    for project in facts.projects:
        local = [service for service in project.services if service.kind in {"vllm", "tgi", "sglang"}]
        for service in project.services:
            workers = _options(_all_words(service)).get("--num_workers", "1")
            if (
                service.kind == "litellm"
                and local
                and workers in {"1", ""}
                and "NUM_WORKERS" not in service.environment
            ):
                yield found(service, f"one worker of {service.name} carries every token of {local[0].name}")


def _walk(node: Node, depth: int = 0) -> Iterator[Node]:
    yield node
    if depth < 25:
        for child in (*(value for _, value in node.pairs()), *node.items):
            yield from _walk(child, depth + 1)


@rule("PX005", ERROR, risk=SAFE)
def cut_after_15_s(facts: Facts) -> Iterable[Finding]:
    """An Envoy route to an engine without `timeout: 0s`.

    Consequence: Envoy's default is 15 s: 504, and streams are cut at 15.0 s.

    Evidence: Envoy 1.40.0.

    Fix: timeout: 0s and a stream_idle_timeout of 600s.

    Fails:
    ```envoy.yaml
    static_resources:
      listeners:
        - name: main
          filter_chains:
            - filters:
                - typed_config:
                    route_config:
                      virtual_hosts:
                        - routes:
                            - match: {prefix: /v1/}
                              route:
                                cluster: vllm
    ```

    Passes:
    ```envoy.yaml
    static_resources:
      listeners:
        - name: main
          filter_chains:
            - filters:
                - typed_config:
                    route_config:
                      virtual_hosts:
                        - routes:
                            - match: {prefix: /v1/}
                              route:
                                cluster: vllm
                                timeout: 0s
    ```
    """
    for root in facts.envoy:
        for node in _walk(root):
            route, match = node.get("route"), node.get("match")
            if route is None or match is None or not route.is_map:
                continue
            cluster, prefix, limit = route.string("cluster") or "", match.string("prefix") or "", route.get("timeout")
            seconds = _seconds(limit) if limit is not None else 15.0
            if seconds is None or not 0 < seconds < needed_wait_s(facts, root.file):
                continue
            if _LLM.search(cluster) or prefix.startswith("/v1"):
                edits: Edits = replace_value(limit, "0s") if limit is not None else add_key(route, ("timeout: 0s",))
                yield found(limit or route, f"Envoy cuts answers of {cluster} after {seconds:g} s", edits=edits)


def _seconds(node: Node) -> float | None:
    """Envoy writes durations in seconds alone: `15s`, `0.5s`."""
    written = re.fullmatch(r"(\d+(?:\.\d+)?)s", node.text or "")
    return float(written[1]) if written is not None else None


@rule("PX006", INFO)
def batched_stream(facts: Facts) -> Iterable[Finding]:
    """Ray Serve LLM gathers stream chunks (its default).

    Consequence: +50 ms TTFT, -12 % throughput at 32 streams.

    Evidence: https://github.com/ray-project/ray/issues/59681.

    Fix: experimental_configs: {stream_batching_interval_ms: 0}.

    Fails:
    ```serve.yaml
    applications:
      - name: llm
        import_path: ray.serve.llm:build_openai_app
        args:
          llm_configs:
            - model_loading_config: {model_id: m}
    ```

    Passes:
    ```serve.yaml
    applications:
      - name: llm
        import_path: ray.serve.llm:build_openai_app
        args:
          llm_configs:
            - model_loading_config: {model_id: m}
              experimental_configs: {stream_batching_interval_ms: 0}
    ```
    """
    for root in facts.ray:
        for node in _walk(root):
            if not (node.string("import_path") or "").startswith("ray.serve.llm"):
                continue
            listed = node.get("args", "llm_configs")
            for config in listed.items if listed is not None else ():
                if config.is_map and config.get("experimental_configs", "stream_batching_interval_ms") is None:
                    yield found(config, "Ray Serve gathers the chunks of a stream")
