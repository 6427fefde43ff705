"""What does not fit in a document is told in words of ours, whatever it is, and at the place where the file has it."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic_core.core_schema import ErrorType

import atoll
from atoll.documents import Document
from atoll.errors import BadDocument
from atoll.inventory.box import Box
from atoll.layout import Layout
from atoll.layout.study import Study
from atoll.misfits import EXPECTED, misfit
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload

STUDY = {"name": "a", "box": "t.txt", "model": "m", "workload": {}, "variants": [{"name": "v"}]}


def refused(kind, plain) -> str:
    with pytest.raises(BadDocument) as caught:
        kind.from_plain(plain, origin="x.yaml")
    return str(caught.value).removeprefix("x.yaml: ")


@pytest.mark.parametrize(
    ("kind", "plain", "sentence"),
    [
        (SLO, {"ttft": "0s"}, "ttft: a number above 0 is expected, this is 0.0."),
        (SLO, {"tpot": [1]}, "tpot: a number is expected, this is a list."),
        (Workload, {"duration": 0}, "duration: a number above 0 is expected, this is 0."),
        (Workload, {"users": 10**7}, "users: 1,000,000 or less is expected, this is 10000000."),
        (Workload, {"users": 10**5000}, "users: 1,000,000 or less is expected, this is a number."),
        (Workload, {"prompt": -5}, "prompt: a number above 0 is expected, this is -5."),
        (Workload, {"start": -1}, "start: 'spread' or 'at_once' or 0 or more is expected, this is -1."),
        (Workload, {"start": [1]}, "start: 'spread' or 'at_once' or a number is expected, this is a list."),
        (Workload, {"start": float("nan")}, "start: 'spread' or 'at_once' or a finite number is expected, this is nan."),
        (Study, STUDY | {"box": 5}, "box: text or a mapping is expected, this is 5."),
        (Study, STUDY | {"box": {"gpu": "H", "gpus": 0}}, "box.gpus: 1 or more is expected, this is 0."),
        (Study, STUDY | {"variants": []}, "variants: a list of 1 or more is expected, this is one of 0."),
        (Study, STUDY | {"variants": [{}]}, "variants[0].name is missing."),
        (Study, STUDY | {"flags": {"enforce_eager": "maybe"}}, "flags.enforce_eager: true or false is expected, this is 'maybe'."),
        (Box, {"gpus": [{"index": 0, "memory_bytes": "big"}], "links": []}, "gpus[0].memory_bytes: a whole number is expected, this is 'big'."),
    ],
)  # fmt: skip
def test_a_value_is_told_with_what_is_expected_in_the_words_of_the_file(kind, plain, sentence):
    assert refused(kind, plain) == sentence


def test_a_name_says_which_letters_it_may_have():
    assert refused(Layout, {"name": "a b"}).startswith("name: a name of the letters A-Z and a-z, digits, '.', '_' and")


def test_a_secret_is_not_shown():
    problem = {"type": "string_type", "loc": ("secret",), "msg": "", "input": 12345}
    assert misfit(problem, place="secret") == "secret: text is expected, this is another"


# Every kind of error, and every field of ours


def test_no_error_is_told_in_the_words_of_the_library():
    for kind in get_args(ErrorType):
        problem = {"type": kind, "loc": ("a",), "msg": "the library's words", "input": "x", "ctx": {"error": "ours"}}
        assert "library" not in misfit(problem, place="a"), kind


def _documents() -> list[type[Document]]:
    for module in pkgutil.walk_packages(atoll.__path__, "atoll."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, left = [], [Document]
    while left:
        for kind in left.pop().__subclasses__():
            left.append(kind)
            found.append(kind)
    return [kind for kind in found if kind.__module__.startswith("atoll.")]


def _schemas(schema: object, seen: set[int]) -> Iterator[dict]:
    if id(schema) in seen:
        return
    seen.add(id(schema))
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for value in schema.values():
            yield from _schemas(value, seen)
    elif isinstance(schema, list | tuple):
        for value in schema:
            yield from _schemas(value, seen)


# The types of error that a schema of this kind gives, and those that a bound of it gives.
OF_A_KIND = {
    "int": ("int_type", "int_parsing", "int_from_float", "int_parsing_size", "finite_number"),
    "float": ("float_type", "float_parsing"),
    "bool": ("bool_type", "bool_parsing"),
    "str": ("string_type", "string_sub_type", "string_unicode"),
    "tuple": ("tuple_type",),
    "list": ("list_type",),
    "dict": ("dict_type", "invalid_key"),
    "model": ("model_type", "model_attributes_type", "invalid_key"),
    "dataclass": ("dataclass_type",),
    "enum": ("enum",),
    "literal": ("literal_error",),
    "is-instance": ("is_instance_of", "path_type"),
}
OF_A_BOUND = {
    "gt": "greater_than",
    "ge": "greater_than_equal",
    "lt": "less_than",
    "le": "less_than_equal",
    "allow_inf_nan": "finite_number",
    "pattern": "string_pattern_mismatch",
    "min_length": "too_short",
    "max_length": "too_long",
}
TELLS_NOTHING = {
    "any", "default", "definition-ref", "definitions", "nullable", "union", "json-or-python", "lax-or-strict",
    "function-after", "function-before", "function-wrap", "function-plain", "no-info",
    "model-field", "model-fields", "dataclass-args", "dataclass-field",
}  # fmt: skip


def test_every_error_that_a_field_of_ours_gives_has_words():
    seen: set[int] = set()
    for kind in _documents():
        for schema in _schemas(kind.__pydantic_core_schema__, seen):
            assert schema["type"] in OF_A_KIND or schema["type"] in TELLS_NOTHING, f"{kind.__name__}: {schema['type']}"
            types = OF_A_KIND.get(schema["type"], ())
            types += tuple(name for bound, name in OF_A_BOUND.items() if bound in schema)
            assert not set(types) - set(EXPECTED), f"{kind.__name__}: {schema['type']}"


ODD = [None, True, -1, 0, 1.5, 10**30, 10**5000, float("nan"), float("-inf"), "", "x y", "1", "1s", "\ud800", [], [1], [[]], {}, {"a": 1}, {1: 2}]  # fmt: skip
LIBRARY = ("Input should", "Unable to", "valid ", "should have", "constrained", "function-", "[type=")


def test_whatever_stands_in_a_field_is_taken_or_refused_in_a_sentence():
    told = 0
    for kind in _documents():
        for name in [*kind.model_fields, "other"]:
            for value in ODD:
                try:
                    kind.from_plain({name: value}, origin="x.yaml")
                except BadDocument as error:
                    told += 1
                    assert not any(words in str(error) for words in LIBRARY), str(error)
    assert told > 1000


# A file of another kind


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (Study, "name: a\nreplicas: []\nbox: {}\n", "a layout; a study is expected here. `atoll simulate`, `render` and"),
        (Layout, "name: a\nvariants: []\nworkload: {}\n", "a study; a layout is expected here. `atoll study run` takes it."),
        (Layout, "services: {vllm: {}}\n", "a Compose file; a layout is expected here. `atoll doctor` reads it."),
        (Box, '{"architectures": [], "model_type": "qwen2"}', "the config.json of a model; a box is expected here."),
        (Layout, "\tGPU0\tGPU1\nGPU0\t X \tNV12\n", "a capture of `nvidia-smi topo -m`. `atoll plan --box` takes it."),
        (Layout, "name: a\nbox: {}\nmodels: []\n", "a stack of several models; a layout is expected here. `atoll plan` takes"),
        (Layout, "name: a\nlayouts: []\n", "the layouts of a stack; a layout is expected here. `atoll render` and `up`"),
        (Box, "name: a\nboxes: []\n", "a fleet; a box is expected here. `atoll inspect` and `atoll plan --fleet` take"),
        (Study, "<!DOCTYPE html>\n<p>a: b: c", "a page. A browser shows it."),
        (Study, "id,model,gpu,tp\n1,2,3,4\n", "a table. `atoll validate` and --trace take such."),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_called_what_it_is(kind, text, sentence):
    with pytest.raises(BadDocument) as caught:
        kind.parse(text, origin="x.yaml")
    assert str(caught.value).startswith(f"x.yaml is {sentence}")


def test_a_damaged_file_of_the_right_kind_is_told_by_its_field():
    assert refused(Study, STUDY | {"name": 5}) == "name: text is expected, this is 5."
