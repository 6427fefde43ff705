"""Does a value satisfy a JSON schema? The keywords of drafts 6 to 2020-12 that say something of one document."""

from collections.abc import Callable
from typing import Any

from atoll.emulate.pattern import matches

_KINDS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    ),
}
KINDS = tuple(_KINDS)
DEEPEST = 100


class BadReference(ValueError):
    """A `$ref` that names nothing in its document."""


def resolve(reference: str, root: Any) -> Any:
    """What a reference within the document names: `#`, `#/$defs/item`, or an anchor.

    Raises:
        BadReference: nothing.
    """
    if not reference.startswith("#"):
        raise BadReference(f"Pointer '{reference}' does not exist")
    if reference.startswith("#/"):
        place: Any = root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~").replace("%25", "%").replace("%22", '"')
            if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
                place = place[int(name)]
            elif isinstance(place, dict) and name in place:
                place = place[name]
            else:
                raise BadReference(f"Pointer '{reference[1:]}' does not exist")
        return place
    if reference == "#":
        return root
    for inner in _all_within(root, 0):
        if inner.get("$anchor") == reference[1:] or inner.get("$id") == reference:
            return inner
    raise BadReference(f"Pointer '{reference[1:]}' does not exist")


def _all_within(schema: Any, depth: int) -> list[dict[str, Any]]:
    if depth > DEEPEST:
        return []
    if isinstance(schema, list):
        return [found for item in schema for found in _all_within(item, depth + 1)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(found for item in schema.values() for found in _all_within(item, depth + 1))]


def fits(value: Any, schema: Any, root: Any, depth: int = 0) -> bool:
    """Whether the value satisfies the schema; `root` is the document that references point into."""
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict) or depth > DEEPEST:
        return True
    if "$ref" in schema and not fits(value, resolve(schema["$ref"], root), root, depth + 1):
        return False
    return (
        _fits_kind(value, schema)
        and _fits_combined(value, schema, root, depth)
        and (not isinstance(value, str) or _fits_text(value, schema))
        and (not _KINDS["number"](value) or _fits_number(value, schema))
        and (not isinstance(value, list) or _fits_array(value, schema, root, depth))
        and (not isinstance(value, dict) or _fits_object(value, schema, root, depth))
    )


def _fits_kind(value: Any, schema: dict[str, Any]) -> bool:
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(_KINDS[kind](value) for kind in kinds if kind in _KINDS):
            return False
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        return False
    return "const" not in schema or _same(value, schema["const"])


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is 1.0, but not true."""
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return bool(one == other)


def _fits_combined(value: Any, schema: dict[str, Any], root: Any, depth: int) -> bool:
    def ok(part: Any) -> bool:
        return fits(value, part, root, depth + 1)

    if not all(ok(part) for part in schema.get("allOf", ())):
        return False
    if "anyOf" in schema and not any(ok(part) for part in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(ok(part) for part in schema["oneOf"]) != 1:
        return False
    if "not" in schema and ok(schema["not"]):
        return False
    if "if" in schema:
        return ok(schema.get("then" if ok(schema["if"]) else "else", True))
    return True


def _fits_text(value: str, schema: dict[str, Any]) -> bool:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", float("inf")):
        return False
    pattern = schema.get("pattern")
    return pattern is None or matches(pattern, value) is not False  # where it cannot be told, it was made from it


def _fits_number(value: float, schema: dict[str, Any]) -> bool:
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if isinstance(above, bool):  # draft 4: it makes `minimum` exclusive
        above = schema.get("minimum") if above else None
    if isinstance(below, bool):
        below = schema.get("maximum") if below else None
    if value < schema.get("minimum", value) or value > schema.get("maximum", value):
        return False
    if (above is not None and value <= above) or (below is not None and value >= below):
        return False
    step = schema.get("multipleOf")
    return not step or float(value / step).is_integer()


def _fits_array(value: list[Any], schema: dict[str, Any], root: Any, depth: int) -> bool:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", float("inf")):
        return False
    if schema.get("uniqueItems") and any(_same(one, two) for at, one in enumerate(value) for two in value[at + 1 :]):
        return False
    first, rest = leading_items(schema)
    if not all(fits(item, part, root, depth + 1) for item, part in zip(value, first, strict=False)):
        return False
    if not all(fits(item, rest, root, depth + 1) for item in value[len(first) :]):
        return False
    if "contains" in schema:
        found = sum(fits(item, schema["contains"], root, depth + 1) for item in value)
        return bool(schema.get("minContains", 1) <= found <= schema.get("maxContains", float("inf")))
    return True


def leading_items(schema: dict[str, Any]) -> tuple[list[Any], Any]:
    """The schemas of the first items, one each, and that of all further ones; older drafts had a list in `items`."""
    items = schema.get("items", True)
    if isinstance(items, list):
        return items, schema.get("additionalItems", True)
    return schema.get("prefixItems", []), items


def _fits_object(value: dict[str, Any], schema: dict[str, Any], root: Any, depth: int) -> bool:
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", float("inf")):
        return False
    if any(name not in value for name in schema.get("required", ())):
        return False
    rules: list[tuple[Any, Any]] = (
        [(name, schema["propertyNames"]) for name in value] if "propertyNames" in schema else []
    )
    rules += [(item, part) for name, item in value.items() for part in schemas_of(name, schema)]
    for name, needed in {**schema.get("dependentRequired", {}), **schema.get("dependencies", {})}.items():
        if name in value and isinstance(needed, list) and any(other not in value for other in needed):
            return False
        if name in value and isinstance(needed, dict):
            rules.append((value, needed))
    rules += [(value, part) for name, part in schema.get("dependentSchemas", {}).items() if name in value]
    return all(fits(one, part, root, depth + 1) for one, part in rules)


def schemas_of(name: str, schema: dict[str, Any]) -> list[Any]:
    """All that an object's schema asks of the property of this name."""
    found = [schema["properties"][name]] if name in schema.get("properties", {}) else []
    found += [part for pattern, part in schema.get("patternProperties", {}).items() if matches(pattern, name)]
    if not found:
        found = [schema.get("additionalProperties", True)]
    return found
