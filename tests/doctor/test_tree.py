"""YAML with its places: lines, characters, anchors, substitution."""

import pytest

from atoll.doctor.letters import letters
from atoll.doctor.substitution import interpolate
from atoll.doctor.tree import Source, read_yaml
from atoll.errors import BadDocument


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "one"),
        ("${A}", "one"),
        ("${B:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY-two}", ""),
        ("${B-}", ""),
        ("${B:-${A}}", "one"),
        ("${A:+set}", "set"),
        ("${B:+set}", ""),
        ("${B:?must be there}", "${B:?must be there}"),
        ("$${A}", "${A}"),
        ("a $ b", "a $ b"),
        ("${A}:${B:-8000}", "one:8000"),
    ],
)
def test_substitution_is_that_of_compose(text, value):
    assert interpolate(text, {"A": "one", "EMPTY": ""}) == value


def test_a_variable_without_a_value_leaves_the_text_unknown(tree_of):
    tree = tree_of("a: x-${NOWHERE}\nb: x-${HERE}\n", {"HERE": "1"})
    assert tree.get("a").known is False
    assert tree.string("a") is None
    assert tree.string("b") == "x-1"


def test_values_know_their_lines_and_characters(tree_of):
    tree = tree_of("a:\n  - one\n  - 'two'\nb: {c: 3}\n")
    assert (tree.get("a", 1).line, tree.get("b", "c").line) == (3, 4)
    node = tree.get("a", 1)
    assert node.source.text[node.start : node.end] == "'two'"


def test_anchors_and_merges_are_resolved(tree_of):
    tree = tree_of("x: &base {image: i, restart: always}\ns:\n  <<: *base\n  restart: 'no'\n")
    assert tree.get("s").plain() == {"image": "i", "restart": "no"}


def test_an_alias_to_itself_is_refused():
    with pytest.raises(BadDocument, match="an alias refers to itself"):
        read_yaml(Source("x", "a: &a [*a]\n"))


def test_a_key_that_stands_twice_is_refused_with_its_line():
    with pytest.raises(BadDocument, match="line 3: the key 'a' stands twice"):
        read_yaml(Source("x", "a: 1\nb: 2\na: 3\n"))


@pytest.mark.parametrize(
    ("yaml", "spelled"),
    [
        ("a: 'it''s'", "it's"),
        ('a: "x\\ny"', "x\ny"),
        ("a: plain words", "plain words"),
        ("a: >-\n  one\n  two\n", "one   two"),
        ("a: |-\n  one\n  two\n", "one\n  two"),
    ],
)
def test_letters_of_every_style_are_those_of_the_file(tree_of, yaml, spelled):
    node = tree_of(yaml + "\n").get("a")
    made = letters(node)
    assert "".join(letter.text for letter in made).strip() == spelled
    direct = [letter for letter in made if letter.text not in {"\n", " ", "'", ""}]
    assert all(node.source.text[letter.offset] == letter.text for letter in direct)


def test_billions_of_laughs_are_read_without_being_told():
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]\n" for n in range(1, 12))
    assert len(read_yaml(Source("x", text))[0].entries) == 12
