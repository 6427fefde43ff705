"""`--fail-if` as a build server meets it: the exit code, one sentence, a JUnit file."""

import json

import pytest
from typer.testing import CliRunner

from atoll.cli.main import make_app
from atoll.errors import GateFailed, InputError

APP = make_app(["bench", "compare"])


def atoll(*words):
    done = CliRunner().invoke(APP, [str(word) for word in words])
    return done, done.exception


def bench(url, out, *more):
    load = ("--model", "m", "--users", 2, "--requests", 8, "--prompt", 8, "--output", 4, "--start", "at_once")
    return atoll("bench", url, *load, "-o", out, "--json", *more)


def test_a_gate_that_holds_ends_the_command_and_stands_in_every_output(naughty, tmp_path):
    naughty.manner = "busy_at_first"
    gates = ("--fail-if", "failed > 1%", "--fail-if", "e2e_p95 > 1h")
    done, error = bench(naughty.url, tmp_path / "run", *gates, "--junit", tmp_path / "gates.xml")
    assert isinstance(error, GateFailed)
    assert str(error) == "failed is 25.0%, and has to be not above 1.0%."
    assert [gate["holds"] for gate in json.loads(done.stdout)["gates"]] == [True, False]
    assert 'failures="1"' in (tmp_path / "gates.xml").read_text()
    assert (tmp_path / "run" / "records.parquet").is_file()


def test_without_gates_and_with_kept_ones_all_is_well(naughty, tmp_path):
    kept = ("--fail-if", "failed > 1%", "--fail-if", "good < 95%", "--slo-ttft", "1h")
    assert bench(naughty.url, tmp_path / "a", *kept)[1] is None
    naughty.manner = "busy_at_first"
    naughty.asked.clear()
    assert bench(naughty.url, tmp_path / "b")[1] is None
    assert atoll("compare", tmp_path / "a", tmp_path / "b", "--json", "--fail-if", "ttft_p95 > +100000%")[1] is None
    done, error = atoll("compare", tmp_path / "a", tmp_path / "b", "--fail-if", "requests_per_s < 100000")
    assert isinstance(error, GateFailed)
    assert str(error) in done.stdout.replace("\n", " ")


@pytest.mark.parametrize("gate", ["failed", "good < 95%", "ttft_p95 > +10%"])
def test_what_is_no_gate_is_refused_before_anything_is_sent(naughty, tmp_path, gate):
    _, error = bench(naughty.url, tmp_path / "run", "--fail-if", gate)
    assert isinstance(error, InputError)
    assert naughty.asked == []
    assert not (tmp_path / "run").exists()
