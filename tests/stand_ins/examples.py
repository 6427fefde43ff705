"""The examples of the rules' pages, run as if they were files.

A fence named `options` holds what would be given on the command line: users, prompt, output, gpu; one named `host` what
`--live` would have found.
"""

from collections.abc import Mapping
from typing import Any

from atoll.doctor.facts import Facts, Host, Load
from atoll.doctor.files import HeldFiles
from atoll.doctor.finding import Finding
from atoll.doctor.gather import Asked, gather
from atoll.doctor.rule import Rule
from atoll.documents import parse_yaml
from atoll.model.card import ModelCard
from atoll.model.catalog import find_card


def findings_of(rule: Rule, files: Mapping[str, str]) -> tuple[Finding, ...]:
    """What one rule finds in the files of an example."""
    return tuple(rule.run(facts_of(files)))


def facts_of(files: Mapping[str, str]) -> Facts:
    """Facts of texts held in memory."""
    texts = {name: text for name, text in files.items() if name not in {"options", "host"}}
    return gather(sorted(texts), HeldFiles(texts), _asked(files))


def _asked(files: Mapping[str, str]) -> Asked:
    options = _plain(files.get("options", "{}"))
    load = Load(
        users=options.get("users"),
        prompt_tokens=options.get("prompt"),
        output_tokens=options.get("output"),
        shared_prefix=options.get("shared_prefix"),
    )
    return Asked(load=load, gpu=options.get("gpu"), host=_host(files.get("host")), find_card=known_card)


def known_card(name: str) -> ModelCard | None:
    """The card of a model that is in the shipped catalogue."""
    return find_card(name)


def _host(text: str | None) -> Host | None:
    if text is None:
        return None
    plain = _plain(text)
    return Host(
        networks=frozenset(plain["networks"]) if "networks" in plain else None,
        runtimes=frozenset(plain["runtimes"]) if "runtimes" in plain else None,
        nginx_version=plain.get("nginx"),
    )


def _plain(text: str) -> dict[str, Any]:
    plain = parse_yaml(text, origin="options")
    assert isinstance(plain, dict)
    return plain
