"""Commands shown in pages are run, and what they print stands beneath them."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "fill_pages.py"
spec = importlib.util.spec_from_file_location("fill_pages", SCRIPT)
fill_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fill_pages)

PAGE = """Before.

<!-- run -->
```
$ python -c \\
    "print('one  '); print()"
old
$ python -c "print('two')"
older
older still
```

```
$ python -c "print('left alone')"
as it was
```
"""


def test_output_is_replaced_commands_and_other_blocks_stay():
    assert fill_pages.fill(PAGE) == PAGE.replace("old\n$", "one\n\n$").replace("older\nolder still\n", "two\n")


def test_filling_again_changes_nothing():
    once = fill_pages.fill(PAGE)
    assert fill_pages.fill(once) == once


@pytest.mark.parametrize("name", ["plan", "simulate"])
def test_every_command_of_a_page_to_be_filled_can_be_run(name):
    text = (ROOT / "docs" / f"{name}.md").read_text()
    found = [command for block in fill_pages.BLOCK.finditer(text) for command in fill_pages.commands(block[2])]
    found += fill_pages.SILENT.findall(text)
    assert len(found) >= 2
    assert all(re.match("(atoll|python) ", command) for command in found)
