"""Values of .env are read back by Compose as they were given; names that would be lines of their own are refused."""

import pytest

from atoll.errors import BadDocument, InputError
from atoll.layout.layout import Layout
from atoll.render.compose import bind_address
from atoll.render.dotenv import read_settings, read_value, show_value
from stand_ins.layouts import two_pairs


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/data/models", "/data/models"),
        ("/data/my models #1", "'/data/my models #1'"),
        ("$HOME/m", "'$HOME/m'"),
        ("it's", r"'it\'s'"),
        ('"q"', "'\"q\"'"),
        ("모델", "'모델'"),
        (r"a\tb", r"'a\tb'"),
        ("", ""),
    ],
)
def test_a_value_is_quoted_as_compose_reads_it(value, shown):
    assert show_value(value) == shown
    assert read_value(shown) == value
    assert read_settings(f"A={shown}\n")["A"] == value


@pytest.mark.parametrize("value", ["a\nX=1", "a\rb", "a\u2028b", "a\x00", "it\\'s ", "end \\"])
def test_what_env_cannot_hold_is_refused(value):
    with pytest.raises(InputError, match=r"\.env cannot hold"):
        show_value(value)


def test_the_door_is_published_on_an_address():
    assert [bind_address(text) for text in ("0.0.0.0", "::1", "[::1]")] == ["0.0.0.0", "[::1]", "[::1]"]
    for text in ("127.0.0.1\nX=1", "localhost:1", ""):
        with pytest.raises(InputError, match="is no address"):
            bind_address(text)


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028", "\x85"])
def test_a_line_end_in_a_name_is_refused(end):
    plain = two_pairs().to_plain()
    with pytest.raises(BadDocument, match=r"model.*holds the character"):
        Layout.from_plain(plain | {"model": f"m{end}services:"}, origin="layout.yaml")
