"""Programs are run and their words are kept."""

import pytest

from atoll.errors import CommandFailed, MissingProgram
from atoll.outside.shell import RealShell


def test_a_program_gives_its_text_and_exit_code():
    done = RealShell().run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.exit_code, done.stdout, done.stderr) == (3, "out\n", "err\n")
    with pytest.raises(CommandFailed, match="ended with 3: err"):
        done.check()


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(MissingProgram, match="`no-such-program` is not installed"):
        RealShell().run(["no-such-program"])


def test_a_program_that_does_not_end_is_killed():
    assert RealShell().run(["sleep", "30"], timeout_s=0.2).exit_code == 124


def test_text_and_variables_are_handed_over():
    done = RealShell().run(["sh", "-c", 'cat; printf %s "$ATOLL_TEST"'], stdin="in ", env={"ATOLL_TEST": "x"})
    assert done.stdout == "in x"
