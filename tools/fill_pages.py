"""Run the commands that pages show, and put what they print beneath them.

python tools/fill_pages.py docs/plan.md docs/simulate.md

A fenced block that follows a line `<!-- run -->` is made anew: each command after `$ ` (with its lines continued by a
backslash) stays, what stood beneath it is replaced by what it prints, errors included. A line `<!-- run: COMMAND -->`
is run for what it writes, such as a picture. Commands run from the repository's root, 110 columns wide.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- run -->\n```\w*\n)(.*?)(^```)", re.DOTALL | re.MULTILINE)
SILENT = re.compile(r"<!-- run: (.+?) -->")
PROGRAMS = {"atoll": [sys.executable, "-m", "atoll"], "python": [sys.executable]}


def fill(text: str) -> str:
    """The page with every block made anew."""
    for found in SILENT.finditer(text):
        run(found[1])
    return BLOCK.sub(lambda block: block[1] + "\n".join(shown(block[2])) + "\n" + block[3], text)


def shown(block: str) -> Iterator[str]:
    """Each command as it is written, then what it prints; an empty line between two of them."""
    for place, command in enumerate(commands(block)):
        yield from [""] if place else []
        yield f"$ {command}"
        yield run(command.replace("\\\n", " "))


def commands(block: str) -> list[str]:
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)


def run(command: str) -> str:
    """What it prints, without spaces at the ends of lines and lines that are empty at the end."""
    program, *arguments = shlex.split(command)
    done = subprocess.run(
        [*PROGRAMS[program], *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "110"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = ROOT / name
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"filled {name}")
