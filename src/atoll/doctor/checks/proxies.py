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
    for root in facts.ray:
        for node in _walk(root):
            if not (node.string("import_path") or "").startswith("ray.serve.llm"):
                continue
            listed = node.get("args", "llm_configs")
            for config in listed.items if listed is not None else ():
                if config.is_map and config.get("experimental_configs", "stream_batching_interval_ms") is None:
                    yield found(config, "Ray Serve gathers the chunks of a stream")
