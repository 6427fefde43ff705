"""A JSON value that satisfies a schema: guessed keyword by keyword, then checked, and guessed again.

Objects have all their properties while they are not nested deeply, arrays one or two items, texts a few words.
"""

from random import Random
from typing import Any

from atoll.emulate.pattern import text_of_pattern
from atoll.emulate.schema_check import fits, leading_items, resolve, schemas_of
from atoll.emulate.words import answer_ring

TRIES = 30
FULL_DEPTH = 5  # below this depth objects have only what they must have
MOST_VALUES = 300  # of one document; beyond it, too
DEEPEST = 40
MOST_ITEMS = 2000  # an array or text that must be longer is refused


class Unsatisfiable(ValueError):
    """No value was found."""


def value_of_schema(schema: Any, dice: Random) -> Any:
    """A value that satisfies the schema.

    Raises:
        Unsatisfiable: none was found.
        BadReference: a `$ref` names nothing.
        BadPattern: a `pattern` is no regular expression.
    """
    for _ in range(TRIES):
        try:
            value = _Maker(schema, dice).value(schema, 0)
        except Unsatisfiable:
            continue
        if fits(value, schema, schema):
            return value
    raise Unsatisfiable


class _Maker:
    def __init__(self, root: Any, dice: Random) -> None:
        self._root = root
        self._dice = dice
        self._made = 0

    def _is_roomy(self, depth: int) -> bool:
        """Whether more than what must be there is made."""
        return depth < FULL_DEPTH and self._made < MOST_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        """One guess at a value; Unsatisfiable where there is plainly none."""
        self._made += 1
        if depth > DEEPEST or self._made > 50 * MOST_VALUES:
            raise Unsatisfiable
        if schema is False:
            raise Unsatisfiable
        if not isinstance(schema, dict):
            return self._words(0, None)
        schema = self._flat(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            allowed = [one for one in schema["enum"] if fits(one, schema, self._root)]
            if not allowed:
                raise Unsatisfiable
            return self._dice.choice(allowed)
        return self._of_kind(self._kind(schema), schema, depth)

    def _of_kind(self, kind: str, schema: dict[str, Any], depth: int) -> Any:
        value: Any = None
        match kind:
            case "object":
                value = self._object(schema, depth)
            case "array":
                value = self._array(schema, depth)
            case "string":
                value = self._text(schema)
            case "integer" | "number":
                value = self._number(schema, whole=kind == "integer")
            case "boolean":
                value = self._dice.random() < 0.5
        return value

    def _flat(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """The schema with references followed, one of each choice taken and all parts merged into one."""
        for _ in range(DEEPEST):
            if "$ref" in schema:
                rest = {name: part for name, part in schema.items() if name != "$ref"}
                schema = merged(rest, resolve(schema["$ref"], self._root))
            elif schema.get("allOf"):
                rest = {name: part for name, part in schema.items() if name != "allOf"}
                for part in schema["allOf"]:
                    rest = merged(rest, part)
                schema = rest
            elif schema.get("anyOf") or schema.get("oneOf"):
                word = "anyOf" if schema.get("anyOf") else "oneOf"
                rest = {name: part for name, part in schema.items() if name != word}
                schema = merged(rest, self._option(schema[word], depth))
            elif "if" in schema:
                rest = {name: part for name, part in schema.items() if name not in {"if", "then", "else"}}
                holds = self._dice.random() < 0.5
                schema = merged(
                    merged(rest, schema["if"]) if holds else rest, schema.get("then" if holds else "else", {})
                )
            else:
                return schema
        raise Unsatisfiable

    def _option(self, options: list[Any], depth: int) -> Any:
        """One of the choices: any while there is room, one that ends where it gets deep; null as a last resort."""
        real = [one for one in options if not (isinstance(one, dict) and one.get("type") == "null")]
        if self._is_roomy(depth):
            return self._dice.choice(real or options)
        ends = [one for one in options if isinstance(one, dict) and one.get("type") in _LEAVES]
        return self._dice.choice(ends or options)

    def _kind(self, schema: dict[str, Any]) -> str:
        kinds = schema.get("type")
        if isinstance(kinds, str):
            return kinds
        if isinstance(kinds, list):
            real = [kind for kind in kinds if kind != "null"] or kinds
            if not real:
                raise Unsatisfiable
            return str(self._dice.choice(real))
        told = next((kind for kind, words in _TELLING.items() if words & schema.keys()), None)
        return told or self._dice.choice(("string", "string", "integer", "boolean"))

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties: dict[str, Any] = schema.get("properties", {})
        required = list(dict.fromkeys(schema.get("required", ())))
        most = schema.get("maxProperties", 1000)
        names = list(properties) if self._is_roomy(depth) else []
        names = [name for name in properties if name in required or (name in names and properties[name] is not False)]
        names += [name for name in required if name not in names]
        for name, needed in {**schema.get("dependentRequired", {}), **schema.get("dependencies", {})}.items():
            if name in names and isinstance(needed, list):
                names += [other for other in needed if other not in names]
        while len(names) > most and (spare := [name for name in names if name not in required]):
            names.remove(spare[-1])
        if schema.get("minProperties", 0) > MOST_ITEMS:
            raise Unsatisfiable
        while len(names) < schema.get("minProperties", 0):
            names.append(self._new_name(schema, names))
        value: dict[str, Any] = {}
        for name in names:
            try:
                value[name] = self._property(name, schema, depth)
            except Unsatisfiable:
                if name in required:
                    raise
        return value

    def _property(self, name: str, schema: dict[str, Any], depth: int) -> Any:
        whole: Any = True
        for part in schemas_of(name, schema):
            whole = merged(whole, part)
        return self.value(whole, depth + 1)

    def _new_name(self, schema: dict[str, Any], taken: list[str]) -> str:
        for _ in range(TRIES):
            if schema.get("patternProperties") and schema.get("additionalProperties", True) is False:
                name = text_of_pattern(self._dice.choice(list(schema["patternProperties"])), self._dice)
            elif "propertyNames" in schema:
                name = self.value(merged({"type": "string"}, schema["propertyNames"]), DEEPEST - 1)
            else:
                name = self._words(0, None).replace(" ", "_")
            if name not in taken:
                return str(name)
        raise Unsatisfiable

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        first, rest = leading_items(schema)
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, len(first)) + 2)
        wanted = max(least, len(first), self._dice.randint(1, 2) if self._is_roomy(depth) and rest is not False else 0)
        if (least := min(max(wanted, schema.get("minContains", 1 if "contains" in schema else 0)), most)) > MOST_ITEMS:
            raise Unsatisfiable
        value: list[Any] = []
        for place in range(least):
            part = first[place] if place < len(first) else rest
            if "contains" in schema and place < schema.get("minContains", 1):
                part = merged(part, schema["contains"])
            try:
                value.append(
                    self._unlike(value, part, depth) if schema.get("uniqueItems") else self.value(part, depth + 1)
                )
            except Unsatisfiable:
                if place < schema.get("minItems", 0):
                    raise
                break
        return value

    def _unlike(self, others: list[Any], schema: Any, depth: int) -> Any:
        for _ in range(TRIES):
            value = self.value(schema, depth + 1)
            if value not in others:
                return value
        raise Unsatisfiable

    def _text(self, schema: dict[str, Any]) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if least > MOST_ITEMS * 100:
            raise Unsatisfiable
        if "pattern" in schema:
            for _ in range(TRIES):
                text = text_of_pattern(schema["pattern"], self._dice)
                if least <= len(text) and (most is None or len(text) <= most):
                    return text
            raise Unsatisfiable
        if schema.get("format") in _FORMATS:
            return self._dice.choice(_FORMATS[schema["format"]])
        return self._words(least, most)

    def _words(self, least: int, most: int | None) -> str:
        """One to three words, or as many letters as asked for."""
        ring = answer_ring()
        start, count = (
            self._dice.randrange(len(ring)),
            max(self._dice.randint(1, 3), -(-least // 5) + 1 if least else 0),
        )
        text = "".join(ring[(start + place) % len(ring)] for place in range(count)).strip()
        return text if most is None or len(text) <= most else text[:most].ljust(most, "a")

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        low, high = _bounds(schema)
        step = schema.get("multipleOf") or (1 if whole else 0.5)
        if low is None:
            low = 0 if high is None or high >= 0 else high - 20 * step
        if high is None:
            high = low + 20 * step
        first, last = int(-(-low // step)), int(high // step)
        if last < first:
            if whole or "multipleOf" in schema:
                raise Unsatisfiable
            return (low + high) / 2
        value = self._dice.randint(first, last) * step
        if isinstance(value, float) and (whole or value.is_integer()):
            value = int(value) if whole else value
        return value


_LEAVES = {"null", "string", "integer", "number", "boolean"}
_TELLING = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "patternProperties", "propertyNames"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_FORMATS = {
    "date-time": ("2026-03-14T09:26:53Z", "2025-11-02T18:00:00Z"),
    "date": ("2026-03-14", "2025-11-02"),
    "time": ("09:26:53Z", "18:00:00Z"),
    "duration": ("P1D", "PT90M"),
    "email": ("anna@example.org", "bo@example.com"),
    "idn-email": ("anna@example.org",),
    "hostname": ("example.org", "www.example.com"),
    "idn-hostname": ("example.org",),
    "ipv4": ("192.0.2.1", "198.51.100.7"),
    "ipv6": ("2001:db8::1", "2001:db8::7"),
    "uri": ("https://example.org/a", "https://example.com/b?c=1"),
    "uri-reference": ("/a/b", "https://example.org/a"),
    "iri": ("https://example.org/a",),
    "iri-reference": ("/a/b",),
    "uri-template": ("https://example.org/{id}",),
    "uuid": ("0b0e6f1c-8a6e-4d0a-9f43-3f1a5c2b7d10", "7c9e6679-7425-40de-944b-e07fc1f90ae7"),
    "json-pointer": ("/a/0",),
    "relative-json-pointer": ("0/a",),
    "regex": ("[a-z]+",),
}


def _bounds(schema: dict[str, Any]) -> tuple[float | None, float | None]:
    """The closed range that is looked into; the check afterwards holds the open ends."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    whole = schema.get("type") == "integer"
    if above is True or below is True:  # draft 4
        above, below = (low if above is True else None), (high if below is True else None)
    if isinstance(above, int | float) and not isinstance(above, bool):
        above = above + 1 if whole and float(above).is_integer() else above
        low = above if low is None else max(low, above)
    if isinstance(below, int | float) and not isinstance(below, bool):
        below = below - 1 if whole and float(below).is_integer() else below
        high = below if high is None else min(high, below)
    return low, high


def merged(one: Any, other: Any) -> Any:
    """One schema that asks for what both ask for, as far as keywords can be joined; the check sees to the rest."""
    if one is False or other is False:
        return False
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other if not isinstance(one, dict) else one
    whole = dict(one)
    for name, part in other.items():
        whole[name] = _joined(name, whole[name], part) if name in whole else part
    return whole


def _joined(name: str, one: Any, other: Any) -> Any:
    joined = other
    match name:
        case "properties" | "patternProperties" | "$defs" | "definitions" | "dependentRequired" | "dependentSchemas":
            common = {key: merged(one[key], other[key]) for key in one.keys() & other.keys() if name == "properties"}
            joined = {**one, **other, **common}
        case "required" | "allOf":
            joined = [*one, *other]
        case "type":
            ones, others = ([kind] if isinstance(kind, str) else kind for kind in (one, other))
            joined = [kind for kind in ones if kind in others]
            if not joined and {*ones, *others} == {"integer", "number"}:
                joined = ["integer"]
        case "enum":
            joined = [value for value in one if value in other]
        case "minimum" | "minLength" | "minItems" | "minProperties" | "exclusiveMinimum":
            joined = max(one, other)
        case "maximum" | "maxLength" | "maxItems" | "maxProperties" | "exclusiveMaximum":
            joined = min(one, other)
        case "items" | "additionalProperties" | "contains" | "propertyNames":
            joined = merged(one, other)
    return joined
