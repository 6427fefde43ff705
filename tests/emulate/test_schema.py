"""Values made from JSON schemas, held against jsonschema; texts made from patterns, held against `re`."""

import json
import re
from random import Random

import jsonschema
import pytest

from atoll.emulate.body import ChatBody, read_fields
from atoll.emulate.constraint import constraint_of, text_for, value_for
from atoll.emulate.pattern import BadPattern, matches, text_of_pattern
from atoll.emulate.refusal import Refusal
from atoll.emulate.schema import Unsatisfiable, value_of_schema
from atoll.emulate.schema_check import fits

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"mail": {"type": "string", "format": "email"}, "kids": {"items": {"$ref": "#/$defs/node"}}},
            "required": ["mail", "kids"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS = [
    {},
    {"type": "object"},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3, "exclusiveMaximum": 5}}, "required": ["b"]},
    {"type": "array", "items": {"type": "string", "pattern": r"^[A-Z]{2}-\d{3}$"}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
    {"type": "array", "items": {"type": "integer"}, "contains": {"const": 3}, "minContains": 2},
    {"type": "array", "maxItems": 0},
    {"anyOf": [{"type": "null"}, {"type": "integer", "multipleOf": 7, "minimum": 10}]},
    {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]},
    {"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {"const": 4}}}]},
    {"allOf": [{"type": "number", "minimum": 4}, {"type": "integer", "maximum": 5}]},
    {
        "type": "object",
        "properties": {"k": {"enum": ["x", "y"]}},
        "required": ["k"],
        "if": {"properties": {"k": {"const": "x"}}},
        "then": {"required": ["p"], "properties": {"p": {"type": "boolean"}}},
        "else": {"required": ["q"]},
    },
    {"type": "string", "minLength": 30, "maxLength": 31},
    {"type": "string", "maxLength": 2},
    {"type": "object", "patternProperties": {"^x_[a-z]+$": {"type": "integer"}}, "additionalProperties": False, "minProperties": 2},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]{3}$"}, "minProperties": 1},
    {"type": "object", "properties": {"card": {"type": "integer"}}, "required": ["card"], "dependentRequired": {"card": ["addr"]}},
    {"not": {"type": "string"}},
    {"type": ["integer", "null"], "minimum": -5, "maximum": -3},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "multipleOf": 0.01},
    {"enum": [1, "a", None, [1], {"b": 2}]},
    {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
    TREE,
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_a_value_satisfies_its_schema(schema):
    for seed in range(20):
        value = value_of_schema(schema, Random(seed))
        jsonschema.Draft202012Validator(schema).validate(value)
        assert json.loads(json.dumps(value)) == value


WRONG = [(5, {"type": "string"}), ("aa", {"maxLength": 1}), ([1, 1], {"uniqueItems": True}), ({}, {"required": ["a"]})]
WRONG += [
    (3, {"not": {"type": "integer"}}),
    (True, {"const": 1}),
    ({"b": 1}, {"additionalProperties": False}),
    (1.5, {"multipleOf": 1}),
]
WRONG += [
    ([1], {"contains": {"const": 2}}),
    ("ab", {"pattern": "^b"}),
    (2, {"oneOf": [{"type": "integer"}, {"minimum": 1}]}),
]


@pytest.mark.parametrize(("value", "schema"), WRONG)
def test_what_does_not_satisfy_a_schema_is_seen(value, schema):
    assert not fits(value, schema, schema)
    assert not jsonschema.Draft202012Validator(schema).is_valid(value)


def test_a_schema_that_contradicts_itself_has_no_value():
    with pytest.raises(Unsatisfiable):
        value_of_schema({"type": "string", "enum": [1, 2]}, Random(1))
    with pytest.raises(Refusal, match="found no JSON"):
        value_for({"type": "object", "required": ["a"], "properties": {"a": False}}, Random(1))


def test_a_schema_that_branches_without_end_is_answered_all_the_same():
    many = {"type": "object", "properties": {name: {"$ref": "#"} for name in "abcdefghij"}}
    assert len(json.dumps(value_of_schema(many, Random(1)))) < 100_000


# What vLLM 0.32 answered, asked in November 2026 (its CPU build from PyPI).
REFUSED = [
    ({"properties": {"foo": "bar"}}, "Grammar error: schema must be an object or boolean"),
    ({"properties": 5}, "Grammar error: properties must be an object"),
    ({"required": "a"}, "Grammar error: Expected array for 'required', got \"a\""),
    ({"enum": 5}, "Grammar error: enum must be an array"),
    ({"type": "string", "pattern": "("}, "Grammar error: regex parse error:\n    (\n    ^\nerror: unclosed group"),
    ({"type": "string", "pattern": 5}, "Grammar error: Expected string for 'pattern', got 5"),
    ({"items": {"minimum": "a"}}, "Grammar error: Expected f64 for 'minimum', got \"a\""),
    (
        {"type": "integer", "minimum": 5, "maximum": 2},
        "Grammar error: Unsatisfiable schema: minimum (5) is greater than maximum (2)",
    ),
    ({"type": ["string", "nil"]}, "Grammar error: Invalid type: nil"),
    (True, "Invalid grammar specification: Expecting object schema to apply options"),
]


@pytest.mark.parametrize(("schema", "words"), REFUSED)
def test_what_is_no_schema_is_refused_in_vllms_words(schema, words):
    with pytest.raises(Refusal) as refusal:
        value_for(schema, Random(1))
    assert refusal.value.message == words


def test_a_definition_that_nothing_refers_to_may_be_wrong():
    assert isinstance(value_for({"type": "object", "$defs": {"a": {"type": "x"}}}, Random(1)), dict)


PATTERNS = [
    "a+b*",
    r"\d{3}-\d{4}",
    "(yes|no)!?",
    "[^a-c]{2,4}",
    r"[\w.]+@[a-z]+\.com\n",
    r"(?:\+|-)?0x[0-9A-F]+",
    "^x{2,}$",
]
PATTERNS += [
    r"[[:alpha:]]{2}"[:0] + r"[\]\-a]{3}",
    r"(?P<year>\d{4})",
    r"\u0041\x42",
    "",
    "a{,2}"[:1],
    r"((25[0-5]|1\d\d)\.){3}7",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_text_matches_its_pattern(pattern):
    for seed in range(20):
        text = text_of_pattern(pattern, Random(seed))
        assert re.fullmatch(pattern.strip("^$"), text), text


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("[.*", "unclosed character class"),
        ("(a", "unclosed group"),
        ("a)", "unopened group"),
        ("*a", "repetition operator missing expression"),
        ("a{3,2}", "invalid repetition count range, the start must be <= the end"),
        ("a{x}", "repetition quantifier expects a valid decimal"),
        ("a\\", "incomplete escape sequence, reached end of pattern prematurely"),
        ("(?=a)", "look-around, including look-ahead and look-behind, is not supported"),
        (r"(a)\1", "backreferences are not supported"),
        ("(" * 100, "exceeded the maximum number of nested parentheses/brackets"),
    ],
)
def test_what_is_no_pattern_is_refused_in_the_words_of_rusts_parser(pattern, words):
    with pytest.raises(BadPattern) as error:
        text_of_pattern(pattern, Random(1))
    assert str(error.value) == words


def test_each_way_to_ask_for_a_form_gives_a_text_of_that_form():
    def text(**fields):
        body = read_fields(ChatBody, {"messages": [{"role": "user", "content": "x"}]} | fields)
        return text_for(constraint_of(body), Random(1))

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert isinstance(json.loads(text(response_format=asked))["n"], int)
    assert isinstance(json.loads(text(response_format={"type": "json_object"})), dict)
    assert isinstance(json.loads(text(structured_outputs={"json": json.dumps(schema)}))["n"], int)
    assert text(structured_outputs={"choice": ["yes", "no"]}) in {"yes", "no"}
    assert re.fullmatch(r"\d{2}", text(structured_outputs={"regex": r"\d{2}"}))


@pytest.mark.parametrize(
    "asked",
    [
        {"json": {"type": "string", "pattern": "((a{1000}){1000}){1000}"}},
        {"regex": "((a{1000}){1000}){1000}"},
        {"json": {"type": "array", "minItems": 10**9}},
        {"json": {"type": "object", "minProperties": 10**9, "patternProperties": {"^[a-z]{20}$": {}}}},
        {"json": {"type": "string", "minLength": 10**9}},
    ],
)
def test_what_would_be_endless_is_refused(asked):
    with pytest.raises(Refusal):
        text_for(asked, Random(1))


def test_a_pattern_that_makes_matching_run_away_is_not_matched():
    assert matches("(a+)+b", "a" * 60) is None
    assert matches("^(a|aa)+$", "a" * 60 + "b") is None
    assert matches(r"^x_[a-z]+$", "x_abc") is True
    names = {"type": "object", "properties": {"a" * 60: {}}, "patternProperties": {"(a+)+b": {"type": "integer"}}}
    assert "a" * 60 in json.loads(text_for({"json": names}, Random(1)))
