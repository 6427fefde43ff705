"""What a request says that its answer must look like, and a text that does: JSON of a schema, a pattern, one of some.

What is no schema, pattern or grammar is refused as vLLM 0.32 does (SamplingParams._validate_structured_outputs and the
xgrammar and llguidance backends behind it).
"""

import json
from random import Random
from typing import Any

from atoll.emulate.pattern import BadPattern, text_of_pattern
from atoll.emulate.refusal import Refusal, refused
from atoll.emulate.schema import Unsatisfiable, value_of_schema
from atoll.emulate.schema_check import BadReference
from atoll.emulate.schema_rules import check_schema

ANY_OBJECT = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}
_NAMES = ("json", "regex", "choice", "grammar", "json_object")


def constraint_of(fields: Any) -> dict[str, Any] | None:
    """The one constraint of a body, as {name: value}; `response_format` overrides `structured_outputs`.

    Raises:
        Refusal: none of them, or several at once.
    """
    given = fields.structured_outputs
    asked = None if given is None else dict(_plain(given))
    kind = _format_of(fields)
    if kind is not None:
        asked = {**(asked or _plain(None)), **kind}
    if asked is None:
        return None
    named = {name: value for name, value in asked.items() if value is not None and name in (*_NAMES, "structural_tag")}
    if len(named) > 1:
        raise refused(f"You can only use one kind of structured outputs constraint but multiple are specified: {asked}")
    if not named:
        raise refused(f"You must use one kind of structured outputs constraint but none are specified: {asked}")
    return named


def _plain(given: Any) -> dict[str, Any]:
    """All fields as vLLM prints them."""
    return {
        "json": getattr(given, "json_plain", None),
        **{name: getattr(given, name, None) for name in _NAMES[1:]},
        "disable_any_whitespace": getattr(given, "disable_any_whitespace", False),
        "disable_additional_properties": getattr(given, "disable_additional_properties", False),
        "whitespace_pattern": getattr(given, "whitespace_pattern", None),
        "structural_tag": getattr(given, "structural_tag", None),
        "_backend": None,
        "_backend_was_auto": False,
    }


def _format_of(fields: Any) -> dict[str, Any] | None:
    asked = getattr(fields, "response_format", None)
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return {"json_object": True}
    return {"json": asked.json_schema.plain}


def text_for(constraint: dict[str, Any], dice: Random) -> str:
    """A text that satisfies the constraint.

    Raises:
        Refusal: it is none, or not one that the emulated engine can follow.
    """
    ((name, value),) = constraint.items()
    match name:
        case "json":
            return json.dumps(value_for(_schema_of(value), dice), ensure_ascii=False)
        case "json_object":
            if not value:
                words = (
                    "structured_outputs.json_object must be True if set; omit structured_outputs to disable structured"
                )
                raise refused(f"{words} outputs")
            return json.dumps(value_for(ANY_OBJECT, dice), ensure_ascii=False)
        case "choice":
            if not value:
                raise refused(f"Choice '{value}' cannot be an empty list")
            return str(dice.choice(value))
        case "regex":
            return _matching(value, dice)
        case "grammar":
            if not value.strip():
                raise refused("structured_outputs.grammar cannot be an empty string")
            raise Refusal(
                400, "The emulated engine does not follow grammars; ask with json, regex or choice.", param="grammar"
            )
        case _:
            raise Refusal(400, "The emulated engine does not follow structural tags.", param="structural_tag")


def value_for(schema: Any, dice: Random) -> Any:
    """A value that satisfies the schema, which is checked first.

    Raises:
        Refusal: it is no schema, or no value was found.
    """
    check_schema(schema)
    try:
        return value_of_schema(schema, dice)
    except BadPattern as error:
        raise refused(f"Grammar error: regex parse error:\n    {error.pattern}\n    ^\nerror: {error}") from None
    except BadReference as error:
        raise refused(f"Grammar error: {error}") from None
    except Unsatisfiable:
        words = "The emulated engine found no JSON that satisfies this schema; it may contradict itself."
        raise refused(words) from None
    except (TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError) as error:
        # A keyword of a type that it cannot have, such as minLength "3" or required 5.
        raise refused(f"Grammar error: {error}") from None


def _schema_of(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise refused("structured_outputs.json cannot be an empty string")
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise refused("Invalid JSON grammar specification.") from None


def _matching(pattern: str, dice: Random) -> str:
    if "\0" in pattern:
        raise refused("structured_outputs.regex must not contain a NUL character ('\\x00')")
    try:
        return text_of_pattern(pattern, dice)
    except BadPattern as error:
        # llguidance shows the pattern with a mark under the place of the error
        shown = (
            f'at 1(8): invalid regex "{pattern}" (in regex): regex parse error:\n    {pattern}\n    ^\nerror: {error}'
        )
        raise refused(f"Grammar error: {shown}\n   1 | start: /{pattern}/\n              ^") from None
