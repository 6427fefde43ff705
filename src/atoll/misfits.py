"""What does not fit in a document, in words of ours: where it is, what is expected there, and what stands there."""

import contextlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # of a layout, a variant, a study


def tell_misfit(error: ValidationError, *, origin: str, names: Sequence[str], plain: object) -> str:
    """The sentence of a document that is refused, with how many more problems there are.

    Args:
        error: as pydantic gives it.
        origin: the file's name.
        names: the fields that there are, for one that is not.
        plain: what stands in the file, for its own words.
    """
    problems = [one for one in error.errors() if not _follows(one, error.errors())]
    family = _of_one_value(problems, plain)
    location = _as_written(family[0]["loc"], plain)
    alike = [one for one in family[1:] if _as_written(one["loc"], plain) == location]
    words = misfit(family[0], *alike, place=f"{origin}: {show_path(location)}" if location else origin)
    if family[0]["type"] == "extra_forbidden" and len(location) == 1:
        words += f" (fields: {', '.join(names)})"
    others = len(problems) - len(family)
    return f"{words}. ({others} more like this.)" if others else f"{words}."


def _follows(problem: ErrorDetails, problems: Sequence[ErrorDetails]) -> bool:
    """Whether a list is called too short for the entries alone that are refused themselves."""
    end = len(problem["loc"])
    return problem["type"] == "too_short" and any(
        len(one["loc"]) > end and one["loc"][:end] == problem["loc"] for one in problems
    )


def _of_one_value(problems: Sequence[ErrorDetails], plain: object) -> list[ErrorDetails]:
    """The first problem, and what else is said of its value where that may be one of several things.

    Then the one that got furthest stands in front: of `box: {gpu: X, gpus: 0}` that 0 is too few.
    """
    first = problems[0]
    stem = next((number for number, part in enumerate(first["loc"]) if _is_branch(part)), None)
    if stem is None:
        return [first]
    family = [one for one in problems if one["loc"][:stem] == first["loc"][:stem]]
    return sorted(family, key=lambda one: -len(_as_written(one["loc"], plain)))


_BRANCH = re.compile(r"[A-Z]\w*|str|int|float|bool|none|enum|[a-z]+-.*|.*[\[(].*", re.DOTALL)


def _is_branch(part: int | str) -> bool:
    """Whether pydantic names one of several kinds that a value may have, and not a place in the document."""
    return isinstance(part, str) and _BRANCH.fullmatch(part) is not None


def _as_written(location: Sequence[int | str], plain: object) -> tuple[int | str, ...]:
    """The path in the file's own words: `slo.ttft` where the field is `ttft_s`, `slow[0]` where that is `1=-1`."""
    written: list[int | str] = []
    for part in location:
        if isinstance(plain, dict):
            key = next((key for key in (part, str(part).removesuffix("_s")) if key in plain), None)
            if key is None and _is_branch(part):
                continue
            written.append(part if key is None else key)
            plain = None if key is None else plain[key]
        elif isinstance(plain, list | tuple) and isinstance(part, int):
            written.append(part)
            plain = plain[part] if part < len(plain) else None
        elif plain is None and not _is_branch(part):
            written.append(part)
    return tuple(written)


# What is expected where pydantic gives an error of this type. A test holds the table to the types of all our fields.
_A_NUMBER = ("int_type", "int_parsing", "int_from_float", "int_parsing_size")
_A_LIST = ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type")
_A_MAPPING = ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type")
EXPECTED: Mapping[str, str] = {
    **dict.fromkeys(_A_NUMBER, "a whole number"),
    **dict.fromkeys(_A_LIST, "a list"),
    **dict.fromkeys(_A_MAPPING, "a mapping"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "text"),
    **dict.fromkeys(("path_type", "is_instance_of"), "the name of a file"),
    **dict.fromkeys(("json_invalid", "json_type"), "JSON"),
    **dict.fromkeys(("literal_error", "enum"), "{expected}"),
    "finite_number": "a finite number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
    "invalid_key": "text as the name of a field",
    "string_pattern_mismatch": "text of the form {pattern}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or less",
}
# What a pattern of ours means.
_FORMS = {NAME: "a name of the letters A-Z and a-z, digits, '.', '_' and '-' that begins with a letter or a digit"}
_HIDDEN = re.compile(r"(?i)secret|token$|password|api_?key")


def misfit(problem: ErrorDetails, *alike: ErrorDetails, place: str) -> str:
    """What is wrong at a place of a document, without a full stop: `slo.ttft: a number above 0 is expected, this is 0`.

    Args:
        problem: as pydantic tells it; none of its own words are used.
        alike: of the same value, where it may be one of several things.
        place: stands in front; may be empty.
    """
    kind = problem["type"]
    if kind == "missing":
        return f"{place} is missing"
    if kind == "extra_forbidden":
        return f"{place} is not a field here"
    lead = f"{place}: " if place else ""
    if kind in {"value_error", "assertion_error"}:
        return lead + str(problem.get("ctx", {}).get("error") or problem["msg"]).rstrip(".")
    expected = " or ".join(dict.fromkeys(_expected(one) for one in (problem, *alike)))
    return f"{lead}{expected} is expected, this is {_shown(problem)}"


def _expected(problem: ErrorDetails) -> str:
    context = problem.get("ctx", {})
    words = _FORMS.get(context.get("pattern", "")) or EXPECTED.get(problem["type"], "another value")
    bounds = {name: _number(value) for name, value in context.items()}
    return words.format_map(defaultdict(lambda: "another", bounds))


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


_LONGEST_VALUE = 60  # characters of a value that a sentence shows


def _shown(problem: ErrorDetails) -> str:
    """The value, so that it is found again; of what is long or holds more, its kind."""
    value, context = problem["input"], problem.get("ctx", {})
    if context.get("actual_length") is not None:
        return f"one of {context['actual_length']}"
    if any(isinstance(part, str) and _HIDDEN.search(part) for part in problem["loc"]):
        return "another"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        with contextlib.suppress(ValueError):  # a number of more digits than Python writes
            text = repr(value)
            return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
    return kind_of(value)


def show_path(location: Sequence[int | str]) -> str:
    """`("replicas", 1, "gpus")` is `replicas[1].gpus`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def kind_of(plain: object) -> str:
    return {dict: "a mapping", list: "a list", tuple: "a list", str: "plain text", type(None): "empty"}.get(
        type(plain), "a number" if isinstance(plain, int | float) else f"a {type(plain).__name__}"
    )


# What a file is by the fields that it has, and what takes it: the first whose fields are all there.
_RUN = "name the run's folder"
_DOCTOR = "`atoll doctor` reads it"
_MODEL = ("the config.json of a model", "`atoll model` takes it")
_KINDS: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"variants", "workload"}), "a study", "`atoll study run` takes it"),
    (frozenset({"replicas", "box"}), "a layout", "`atoll simulate`, `render` and `up` take it"),
    (frozenset({"schema_version", "source", "engine"}), "the notes of a run", _RUN),
    (frozenset({"requests", "ttft_s", "duration_s"}), "the summary of a run", _RUN),
    (frozenset({"weights_time", "attention_time"}), "a machine's profile", "--profile takes it"),
    (frozenset({"layouts"}), "the layouts of a stack", "`atoll render` and `up` take it"),
    (frozenset({"box", "models"}), "a stack of several models", "`atoll plan` takes it"),
    (frozenset({"name", "boxes"}), "a fleet", "`atoll inspect` and `atoll plan --fleet` take it"),
    (frozenset({"gpus", "links"}), "a box", "`atoll plan --box` takes it"),
    (frozenset({"services"}), "a Compose file", _DOCTOR),
    (frozenset({"apiVersion", "kind"}), "a Kubernetes object", _DOCTOR),
    (frozenset({"architectures"}), *_MODEL),
    (frozenset({"model_type"}), *_MODEL),
    (frozenset({"request_throughput"}), "a load generator's result", "`atoll exchange import` takes it"),
)
_CAPTURE = ("a capture of `nvidia-smi topo -m`", "`atoll plan --box` takes it")
_TEXTS = (
    (re.compile(r"^\W*GPU0\s.*GPU|^\s*GPU0\s+X\s", re.MULTILINE), *_CAPTURE),
    (re.compile(r"^\s*<(!doctype html|html|svg|\?xml)", re.IGNORECASE), "a page", "a browser shows it"),
    (re.compile(r"^PAR1"), "a table of records", _RUN),
    (re.compile(r"^[^\s:{,]+(,[^\s:{,]*){2,}\s"), "a table", "`atoll validate` and --trace take such"),
)


def other_kind(plain: object, *, wanted: str) -> str | None:
    """`a study; a layout is expected here. `atoll study run` takes it`: what a document is instead; None: not known."""
    fields = set(plain) if isinstance(plain, dict) else set()
    found = next(((noun, use) for known, noun, use in _KINDS if known <= fields), None)
    return None if found is None or found[0] == wanted else _instead(*found, wanted)


def kind_of_text(text: str) -> str | None:
    """The same of text that is no document, such as a capture or a page; None: not known."""
    found = next(((noun, use) for pattern, noun, use in _TEXTS if pattern.search(text[:4096])), None)
    return None if found is None else _instead(*found, "")


def _instead(noun: str, use: str, wanted: str) -> str:
    expected = f"; {wanted} is expected here" if wanted else ""
    return f"{noun}{expected}. {use[0].upper()}{use[1:]}"
