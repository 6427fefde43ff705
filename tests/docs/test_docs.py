"""Docs cannot rot: every command has its page, generated pages are fresh, links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def test_generated_pages_are_up_to_date():
    done = subprocess.run([sys.executable, "tools/make_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_told_of_in_a_page_of_its_stage(command):
    pages = [page for page in PAGES if "reference" not in page.parts]
    assert any(f"atoll {command}" in page.read_text() for page in pages)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    done = subprocess.run([sys.executable, "-m", "atoll", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    text = done.stdout
    if "Commands" in text:  # a group: its own commands have the examples
        from typer.main import get_command

        from atoll.cli.main import make_app

        text = " ".join(sub.help for sub in get_command(make_app([command])).commands[command].commands.values())
    assert "Example" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
