"""What is printed is words: neither markup nor anything that a terminal acts upon."""

import io
import json

import pytest
from rich.console import Console

from atoll.cli import show
from atoll.cli.main import guarded
from atoll.errors import InputError

HOSTILE = "a\x1b[31mred\x1b]0;owned\x07\r\x9b5m\u202e\u2028[/nope][bold]:fire:b"
SHOWN = r"a\x1b[31mred\x1b]0;owned\x9b5m\u202e\u2028[/nope][bold]:fire:b"


@pytest.mark.parametrize("console", [show.out, show.progress])
def test_words_are_printed_as_they_are(console):
    with console.capture() as captured:
        console.print(HOSTILE, soft_wrap=True)
        console.print(show.bold(HOSTILE, HOSTILE), soft_wrap=True)
        console.rule(HOSTILE)
        console.print(show.table(HOSTILE, (HOSTILE,), [(HOSTILE,)]))
    text = captured.get()
    assert text.count("[/nope]") >= 6
    assert not set(text) & set("\x1b\x07\r\x9b\u202e\u2028")
    assert SHOWN in text


def test_styles_of_our_own_stay():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, color_system="standard", markup=False)
    console.push_render_hook(show._Visible())
    console.print(show.bold("strong"))
    assert text.getvalue() == "\x1b[1mstrong\x1b[0m\n"


def test_json_is_the_same_document_without_controls(capsys):
    show.show_json({"name": HOSTILE})
    text = capsys.readouterr().out
    assert json.loads(text) == {"name": HOSTILE}
    assert not set(text) & set("\x1b\x07\r\x9b\u202e\u2028")


def test_an_error_is_one_line(capsys):
    def fail() -> None:
        raise InputError("a\nb\x1b[2J.")

    with pytest.raises(SystemExit):
        guarded(fail)
    assert capsys.readouterr().err == "atoll: a b\\x1b[2J.\n"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_table_cuts_a_name_into_letters(monkeypatch, width):
    monkeypatch.setattr(show, "out", Console(width=width, file=io.StringIO(), markup=False))
    names = ("2xTP2-least-conn", "1xTP4", "넓은배치-두벌")
    columns = ("", "variant", "TTFT\np50", "TTFT\np95", "TPOT\np50", "E2E\np50", "tok/s", "p95 vs\n1xTP4-plain")
    rows = [("1=", name, "118 ms", "224 ms", "14.8 ms", "42.3 s", "2,021", "unclear") for name in names]
    show.show_table("Study", columns, rows, numbers=range(2, 8), wrap=(1,))
    text = show.out.file.getvalue()
    for word in (*names, "variant"):
        assert word in text
    if width >= 60:
        assert all(len(line.rstrip()) <= width for line in text.splitlines())
        assert text.count("2,021  ") == len(names)  # each row's figures stand whole beside each other
