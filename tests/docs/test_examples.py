"""Every example prints what stands beside it."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.out"))


@pytest.mark.parametrize("expected", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_its_output(expected):
    done = subprocess.run([sys.executable, expected.with_suffix(".py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected.read_text()
