"""What is no JSON schema, in the words that vLLM 0.32 refuses it with; it is llguidance, its fallback, that speaks.

Only what the schema reaches is looked at: a wrong definition that nothing refers to is left alone, as there.
"""

import json
from typing import Any

from atoll.emulate.refusal import Refusal, refused
from atoll.emulate.schema_check import KINDS, BadReference, resolve

DEEPEST_SCHEMA = 64
_NAMED = {"properties", "patternProperties", "dependentSchemas"}  # objects that hold schemas under names of their own
_LISTED = {"allOf", "anyOf", "oneOf", "prefixItems"}
_SINGLE = {"additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "additionalItems"}
_NUMBERS = {"minimum", "maximum", "multipleOf"}
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains"}
_TEXTS = {"pattern", "format", "$ref"}


def check_schema(schema: Any) -> None:
    """Refuse what is none.

    Raises:
        Refusal: with the first thing that is wrong.
    """
    level, depth = [schema], 0
    while level := [part for one in level if isinstance(one, dict | list) for part in _inside(one)]:
        depth += 1
        if depth > DEEPEST_SCHEMA:
            words = "The JSON schema is nested too deeply: objects and arrays may nest at most"
            raise refused(f"{words} {DEEPEST_SCHEMA} levels")
    if not isinstance(schema, dict):
        raise refused("Invalid grammar specification: Expecting object schema to apply options")
    _check(schema, schema, set())


def _inside(one: Any) -> list[Any]:
    return [part for part in (one.values() if isinstance(one, dict) else one) if isinstance(part, dict | list)]


def _check(part: Any, root: Any, seen: set[int]) -> None:
    if isinstance(part, bool):
        return
    if not isinstance(part, dict):
        raise _grammar("schema must be an object or boolean")
    if id(part) in seen:
        return
    seen.add(id(part))
    _check_values(part)
    for name, inner in part.items():
        for one in _schemas(name, inner):
            _check(one, root, seen)
    if "$ref" in part:
        try:
            _check(resolve(part["$ref"], root), root, seen)
        except BadReference as error:
            raise _grammar(str(error)) from None


def _schemas(name: str, inner: Any) -> list[Any]:
    """The schemas under one keyword."""
    if name in _NAMED:
        if not isinstance(inner, dict):
            raise _grammar(f"{name} must be an object")
        return list(inner.values())
    if name in _LISTED or (name == "items" and isinstance(inner, list)):
        if not isinstance(inner, list):
            raise _grammar(f"{name} must be an array")
        return inner
    return [inner] if name in _SINGLE or name == "items" else []


def _check_values(part: dict[str, Any]) -> None:
    kinds = part.get("type", [])
    if not isinstance(kinds, str | list):
        raise _grammar("type must be a string or an array of strings")
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind not in KINDS:
            raise _grammar(f"Invalid type: {kind}")
    if not isinstance(part.get("enum", []), list):
        raise _grammar("enum must be an array")
    for names, what, right in (
        ({"required"}, "array", list),
        (_NUMBERS, "f64", int | float),
        (_COUNTS, "usize", int),
        (_TEXTS, "string", str),
    ):
        for name in names & part.keys():
            if not isinstance(part[name], right) or (right is not str and isinstance(part[name], bool)):
                raise _grammar(f"Expected {what} for '{name}', got {json.dumps(part[name])}")
    low, high = part.get("minimum"), part.get("maximum")
    if low is not None and high is not None and low > high:
        raise _grammar(f"Unsatisfiable schema: minimum ({low}) is greater than maximum ({high})")


def _grammar(words: str) -> Refusal:
    return refused(f"Grammar error: {words}")
