"""Keys and passwords that stand in a file."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.edits import Edits, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.masks import SECRET_NAME, TOKEN
from atoll.doctor.rule import ERROR, rule
from atoll.doctor.tree import Node
from atoll.doctor.words import words_of

_DUMMY = re.compile(
    r"^(|empty|none|null|dummy|fake|test|token-abc123|not-needed|no-?key.*|sk-(no-key-required|fake.*|dummy.*|none|x+|1234)|"
    r"local|ollama|vllm|na|n/a|unused|ignored|placeholder|true|false|\d|<.*>|your[-_ ].*|/run/secrets/.*)$",
    re.IGNORECASE,
)


@rule("DC013", ERROR, risk="The stack does not start before the value is in .env.")
def literal_secret(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        ours = any(service.serves_llm or service.kind == "mongo" for service in project.services)
        for service in project.services:
            for name, setting in service.environment.items():
                node, value = setting.node, setting.value or ""
                if "$" in (node.raw or "") or node.source not in project.sources:
                    continue
                password = _PASSWORD_IN_URL.search(value)
                if TOKEN.search(value) or (ours and SECRET_NAME.search(name) and _is_secret(name, value)):
                    edits = _by_variable(node, name) if node.is_scalar and project.origin == "compose" else ()
                    yield found(node, f"{name} of {service.name} is written out in the file", edits=edits)
                elif ours and password is not None and not _DUMMY.match(password[1]):
                    yield found(node, f"the password in {name} of {service.name} is written out in the file")
            for word in words_of(service.get("command")):
                if word.direct and TOKEN.search(word.text):
                    yield found(word, f"a key in the command of {service.name} is written out in the file")


_PASSWORD_IN_URL = re.compile(r"^[a-z][a-z0-9+.-]*://[^:/@\s]*:([^@/\s]+)@")


def _is_secret(name: str, value: str) -> bool:
    if _DUMMY.match(value) or "${" in value:
        return False
    return name.endswith(("PASSWORD", "PASSWD", "PASSPHRASE")) or len(value) >= 12


def _by_variable(node: Node, name: str) -> Edits:
    reference = f"${{{name}:?put {name} into .env}}"
    listed = (node.raw or "").startswith(f"{name}=")
    return replace_value(node, f'"{name}={reference}"' if listed else f'"{reference}"')
