"""Compose's substitution of variables."""

import re
from collections.abc import Mapping

# $VAR, ${VAR}, ${VAR:-default}, ${VAR-default}, ${VAR:?error}, ${VAR:+other}, $$
VARIABLE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?P<rest>[^{}]*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_DOLLAR = re.compile(r"\$\$|" + VARIABLE.pattern)


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Substitute variables; nested defaults (`${A:-${B:-x}}`) are done from the inside out."""
    if "$" not in text:
        return text
    for _ in range(5):
        done = _DOLLAR.sub(lambda match: _value_of(match, variables), text)
        if done == text or "${" not in done:
            break
        text = done
    return done.replace("\0", "$")


def _value_of(match: "re.Match[str]", variables: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "\0"
    name = match["braced"] or match["bare"]
    rest = match["rest"] or ""
    value = variables.get(name)
    if rest.startswith(":-"):
        return value or rest[2:]
    if rest.startswith("-"):
        return value if value is not None else rest[1:]
    if rest.startswith((":+", "+")):
        return rest.lstrip(":")[1:] if value else ""
    return value if value is not None else match[0]
