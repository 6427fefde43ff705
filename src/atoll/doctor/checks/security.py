"""Known holes, code from the hub, keys."""

import re
from collections.abc import Iterable
from dataclasses import replace

from atoll.doctor.checks.commands import VALUES_CHANGED, modern_value
from atoll.doctor.checks.environment import problem_of
from atoll.doctor.checks.images import VLLM
from atoll.doctor.checks.places import found, installed, join, named_options
from atoll.doctor.command_edits import remove_option
from atoll.doctor.compose import Service
from atoll.doctor.edits import Edits, add_item, add_key, replace_value
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, WARNING, rule
from atoll.doctor.vllm import GivenOption, OptionTable, Version, show_version, table_for
from atoll.engines.vllm.images import is_official_image
from atoll.engines.vllm.options import options_of
from atoll.engines.vllm.versions import tag_version

# (name, from, below): the releases that a hole is in. CVE list and PyPI's advisories, read in November 2026.
_HOLES: tuple[tuple[str, Version, Version], ...] = (
    ("CVE-2026-115911", (0, 0), (0, 32)),
    ("CVE-2026-114053 (code execution with trust_remote_code through /tokenize)", (0, 0), (0, 31)),
    ("CVE-2026-105757", (0, 0), (0, 30)),
    ("CVE-2026-27893", (0, 10, 1), (0, 18)),
)


@rule(
    "SE001",
    ERROR,
    risk="Another release of vLLM: its options, defaults and memory differ. Try it beside the old one first.",
)
def known_holes(facts: Facts) -> Iterable[Finding]:
    for engine in facts.engines:
        version, node = engine.command.version, engine.service.get("image")
        image = engine.service.image
        if version is None or not engine.command.version_known or node is None or image is None:
            continue
        holes = [name for name, first, below in _HOLES if first <= version < below]
        if holes:
            official = is_official_image(image.path) and image.digest is None and not _is_patched(engine.service)
            official = official and _suits(engine)
            edits = replace_value(node, f"{image.path}:{VLLM}") if official else ()
            said = f"vLLM {show_version(version)} has {join(holes)}"
            weight = ERROR if _is_reached_from_afar(facts, engine.service) else WARNING
            made = found(node, said, edits=edits, risk=_jump(version), alike=said)
            yield replace(made, weight=weight)


def _is_reached_from_afar(facts: Facts, service: Service) -> bool:
    """Whether another machine may ask it: a port that is open to all, a Kubernetes Service, an open door before it."""
    if facts.project_of(service).origin == "kubernetes" or service.host_network:
        return True
    doors = [route.config.service for route in facts.routes_to(service)]
    behind = any(door is None or door.host_network or any(p.open_to_all for p in door.ports) for door in doors)
    return behind or any(port.open_to_all for port in service.ports)


def _jump(version: Version) -> str:
    return f"vLLM {show_version(version)} becomes {VLLM}: options, defaults, memory differ. Try it beside the old."


def _suits(engine: ServedEngine) -> bool:
    """Whether the release that it would get reads its options and variables: others are mended first (VL002)."""
    newer = tag_version(VLLM)
    assert newer is not None
    read = all(_is_read(option, table_for(newer)) for option in engine.command.options)
    return read and not any(problem_of(name, newer[:2]) for name in engine.service.environment if name[:5] == "VLLM_")


def _is_read(option: GivenOption, table: OptionTable) -> bool:
    """Whether a release has the option, and takes its value as it is written."""
    listed = options_of(show_version(table.version)).get(option.name)
    choices = listed.choices if listed is not None and not listed.several else None
    takes = choices is None or option.path != "" or option.value in {None, *choices}
    return (table.known(option.name) or option.name.startswith("-O")) and takes and not _is_old(option)


def _is_old(option: GivenOption) -> bool:
    return option.name in VALUES_CHANGED and option.path in {"", "level"} and modern_value(option) is not None


def _is_patched(service: Service) -> bool:
    """Whether nobody can tell what another release makes of it.

    Files of vLLM's own are replaced, the tag carries more than the release, or not all options are known.
    """
    image, command = service.image, service.vllm
    inside = any("-packages/" in mount.target or "/vllm-workspace" in mount.target for mount in service.mounts)
    plain = image is not None and re.fullmatch(r"v?\d+(\.\d+)+", image.tag or "") is not None
    unknown = command is not None and any(word.text.startswith("${") or word.text == "$@" for word in command.words)
    return inside or not plain or unknown


@rule("SE002", ERROR)
def code_from_the_hub(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--trust-remote-code"):
        model = engine.command.model or "${"
        pinned = [engine.command.text(name) or "" for name in ("--revision", "--code-revision")]
        on_disk = model.startswith(("/", ".", "${"))
        if not on_disk and not any(re.fullmatch(r"[0-9a-f]{40}", text) for text in pinned):
            yield found(option.word, f"the code in the repository of {model} runs unpinned, as it stands there today")


@rule("SE003", ERROR, risk="The stack does not start before the key is in .env.")
def key_on_the_command_line(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--api-key"):
        if option.value and option.value.upper() != "EMPTY":
            variable = re.fullmatch(r"\$\{?(\w+)[^}]*\}?", option.value)
            name = variable[1] if variable is not None else "VLLM_API_KEY"
            yield found(
                option.word,
                f"the API key of {engine.name} is an argument",
                edits=_as_variable(engine.service, name, remove_option(option)),
            )


def _as_variable(service: Service, name: str, removal: Edits) -> Edits:
    value = f"${{{name}:?put {name} into .env}}"
    node = service.get("environment")
    if node is None:
        added = add_key(service.node, ("environment:", f'  VLLM_API_KEY: "{value}"'))
    elif node.is_map:
        added = add_key(node, (f'VLLM_API_KEY: "{value}"',))
    else:
        added = add_item(node, f"VLLM_API_KEY={value}")
    return (*removal, *added) if added and removal and service.node.style == "block" else ()


@rule("SE004", ERROR)
def stolen_keys(facts: Facts) -> Iterable[Finding]:
    stolen = r"(?<![\d.])(1\.82\.[78]|1\.107\.0)(?![\d.]*\d)"
    for service in facts.services:
        image, node = service.image, service.get("image")
        version = re.search(stolen, image.tag or "") if image is not None and service.kind == "litellm" else None
        if version is not None and node is not None:
            yield found(node, f"LiteLLM {version[1]} steals credentials")
        for word in installed(service, "litellm"):
            version = re.search(stolen, word.text)
            if version is not None:
                yield found(word, f"LiteLLM {version[1]} steals credentials")


@rule("SE005", WARNING, risk="Clients can no longer send what this option allows.")
def risky_inputs(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(
        facts, "--allowed-local-media-path", "--enable-prompt-embeds", "--enable-mm-embeds"
    ):
        if not engine.command.has("--api-key") and "VLLM_API_KEY" not in engine.service.environment:
            yield found(
                option.word, f"{option.name}, and {engine.name} asks nobody for a key", edits=remove_option(option)
            )
