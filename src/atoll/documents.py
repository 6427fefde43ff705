"""The base of every value that is read or written.

A Document is a frozen pydantic model that forbids unknown fields. A bad field is named by file and path, as in
`layout.yaml: replicas[1].gpus`.
"""

import contextlib
import csv
import io
import json
import warnings
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import ReusedAnchorWarning, YAMLError

from atoll.errors import BadDocument
from atoll.misfits import NAME, kind_of, kind_of_text, other_kind, tell_misfit


class Document(BaseModel):
    """A value with a file form. Make a changed copy with `replace`; equality compares all fields."""

    noun: ClassVar[str] = "another document"  # what a file of it is, where one is expected

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null", protected_namespaces=())

    def replace(self, **changes: Any) -> Self:
        """The same value with other fields, checked again."""
        fields = {name: getattr(self, name) for name in type(self).model_fields} | changes
        return type(self).model_validate(fields)

    @classmethod
    def parse(cls, text: str, *, origin: str) -> Self:
        """Read YAML or JSON text.

        Args:
            text: the document.
            origin: the file's name, for the error sentence.

        Raises:
            BadDocument: not YAML, not a mapping, or a field that does not fit.
        """
        return cls.from_plain(parse_yaml(text, origin=origin), origin=origin)

    @classmethod
    def from_plain(cls, plain: object, *, origin: str) -> Self:
        """Check plain data (dicts, lists, numbers); raises BadDocument naming `origin` and the field's path."""
        if not isinstance(plain, dict):
            kind = kind_of_text(plain) if isinstance(plain, str) else None
            if kind is not None:
                raise BadDocument(f"{origin} is {kind}.")
            raise BadDocument(f"{origin}: a mapping is expected, this is {kind_of(plain)}.")
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            other = other_kind(plain, wanted=cls.noun)
            if other is not None:
                raise BadDocument(f"{origin} is {other}.") from None
            raise BadDocument(tell_misfit(error, origin=origin, names=tuple(cls.model_fields), plain=plain)) from None

    def to_plain(self) -> dict[str, Any]:
        """Plain data, without fields that are None: what is not known is not written."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_yaml(self) -> str:
        return write_yaml(self.to_plain())

    def to_json(self) -> str:
        return json.dumps(self.to_plain(), indent=2, ensure_ascii=False) + "\n"


def _one_line(value: str) -> str:
    wrong = next((letter for letter in value if not letter.isprintable()), None)
    if wrong is not None:
        raise ValueError(f"holds the character {wrong!r}, which no name in a file or a command line can hold")
    return value


Name = Annotated[str, Field(pattern=NAME)]  # of a layout, a variant, a study: also a folder's and a service's
OneLine = Annotated[str, AfterValidator(_one_line)]  # a name that goes into files of other programs: no line ends


def parse_yaml(text: str, *, origin: str) -> object:
    """Plain data of a YAML (or JSON) text; raises BadDocument with the line."""
    if origin.endswith(".json"):
        with contextlib.suppress(ValueError, RecursionError):  # YAML says better what is wrong, and where
            return json.loads(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # allowed; the later one counts
            return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        kind = kind_of_text(text)
        if kind is not None:
            raise BadDocument(f"{origin} is {kind}.") from None
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise BadDocument(f"{origin}:{where} this is not YAML: {problem}.") from None
    except (ValueError, RecursionError, ArithmeticError, AttributeError, TypeError, LookupError) as error:
        raise BadDocument(f"{origin}: this is not YAML: {error}.") from None


def write_yaml(plain: object) -> str:
    """Block-style YAML in the order given; short lists of numbers stay on one line."""
    yaml = YAML(typ="rt", pure=True)
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 110
    yaml.representer.ignore_aliases = lambda _: True
    buffer = io.StringIO()
    yaml.dump(_with_flow_lists(plain), buffer)
    return buffer.getvalue()


def _with_flow_lists(plain: object) -> object:
    from ruamel.yaml.comments import CommentedSeq

    if isinstance(plain, dict):
        return {key: _with_flow_lists(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        items = CommentedSeq([_with_flow_lists(value) for value in plain])
        if all(_stands_in_a_row(value) for value in plain) and len(str(plain)) < 90:
            items.fa.set_flow_style()
        return items
    return plain


def _stands_in_a_row(value: object) -> bool:
    """Whether `[a, b]` gives it back: ruamel.yaml leaves `?0` without quotes there and reads it as a key."""
    return isinstance(value, int | float) or (isinstance(value, str) and not value.startswith("?"))


# Tables


_FORMULA = tuple("=+-@\t\r")  # a spreadsheet takes a cell that begins so for a formula, which may start a program


def write_table(rows: Iterable[Iterable[object]], *, line_end: str = "\n") -> str:
    """CSV that a spreadsheet shows as it is: text that would be a formula is led by an apostrophe.

    See OWASP, "CSV Injection". Numbers stay, also those that are written as text.
    """
    return "".join(_row(row) + line_end for row in rows)


def _row(row: Iterable[object]) -> str:
    """Ended by CR and LF while it is written, so that a cell with either is quoted."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow([_cell(value) for value in row])
    return buffer.getvalue().removesuffix("\r\n")


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_cell(text: str) -> str:
    """What `write_table` was given: without the apostrophe before what would be a formula."""
    return text[1:] if text.startswith("'") and _cell(text[1:]) == text else text
