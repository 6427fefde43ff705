"""Documents: read with errors that name file and field, written so that reading gives them back."""

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atoll.documents import Document, parse_yaml, read_cell, write_table, write_yaml
from atoll.errors import BadDocument
from atoll.layout import Layout

LAYOUT = """
name: two
model: m
box: {gpus: [{index: 0}, {index: 1}], links: [{a: 0, b: 1, kind: NV, nvlinks: 12}]}
replicas: [{gpus: [0], tensor_parallel: 1}, {gpus: [1], tensor_parallel: 1}]
"""


class Small(Document):
    name: str
    sizes: tuple[int, ...] = ()


def refused(text, kind=Layout):
    with pytest.raises(BadDocument) as caught:
        kind.parse(text, origin="layout.yaml")
    return str(caught.value)


def test_a_wrong_gpu_is_named_by_its_path_with_what_there_is():
    text = LAYOUT.replace("gpus: [1], tensor", "gpus: [7], tensor")
    assert refused(text) == (
        "layout.yaml: replicas[1].gpus names GPU 7; this box has 0-1. Run `atoll inspect` to see them."
    )


def test_an_unknown_field_is_named_by_its_path():
    assert refused("name: x\nsize: [1]\n", Small) == "layout.yaml: size is not a field here (fields: name, sizes)."


def test_a_missing_field_is_named():
    assert refused("sizes: [1]\n", Small) == "layout.yaml: name is missing."


def test_a_field_of_the_wrong_kind_is_named_by_its_place():
    assert refused("name: x\nsizes: [1, two]\n", Small) == (
        "layout.yaml: sizes[1]: a whole number is expected, this is 'two'."
    )


def test_text_that_is_no_yaml_is_refused_with_its_line():
    assert refused("name: x\nsizes: [1\n", Small).startswith("layout.yaml: line 3: this is not YAML")


def test_text_that_is_no_mapping_is_refused():
    assert refused("- 1\n", Small) == "layout.yaml: a mapping is expected, this is a list."
    assert refused("", Small) == "layout.yaml: a mapping is expected, this is empty."


def test_a_layout_comes_back_as_it_was_written():
    layout = Layout.parse(LAYOUT, origin="layout.yaml")
    assert Layout.parse(layout.to_yaml(), origin="again") == layout


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(plain)
@example(["?0", {"?a": "?"}])
def test_yaml_gives_back_what_was_written(value):
    assert parse_yaml(write_yaml(value), origin="x") == value


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_any_text_is_a_document_or_one_error(text):
    try:
        Small.parse(text, origin="x.yaml")
    except BadDocument as error:
        assert str(error).startswith("x.yaml")


# Tables


@pytest.mark.parametrize("name", ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", '=HYPERLINK("http://a","b")'])
def test_a_name_that_a_spreadsheet_would_take_for_a_formula_is_led_by_an_apostrophe(name):
    text = write_table([[name, -1.5, "-1.5", "plain"]])
    row = next(csv.reader(io.StringIO(text, newline="")))
    assert row == [f"'{name}", "-1.5", "-1.5", "plain"]
    assert read_cell(row[0]) == name


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_cell_comes_back_as_it_was_and_begins_no_formula(value):
    cell = next(csv.reader(io.StringIO(write_table([[value, "x"]]), newline="")))[0]
    assert cell == value or read_cell(cell) == value
    assert cell[:1] not in {"=", "@", "\t", "\r"}
