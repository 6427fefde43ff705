"""The same fault written in other ways is found, once and where it stands; what only looks like it is left in peace.

A case of tests/data/doctor/renderings is a line `== RULE file:line ...` (or `silent`), then its files, each after
`--- name`; `options` and `host` are those of the rules' examples.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.doctor.examine import find_rule
from stand_ins.examples import findings_of

CASES = Path(__file__).parents[1] / "data" / "doctor" / "renderings"


def cases() -> Iterator[object]:
    for path in sorted(CASES.glob("*.txt")):
        for number, text in enumerate(re.split(r"^== ", path.read_text(), flags=re.MULTILINE)[1:]):
            head, *parts = re.split(r"^--- (\S+)\n", text, flags=re.MULTILINE)
            rule, *places = head.split()
            files = dict(zip(parts[::2], parts[1::2], strict=True))
            yield pytest.param(rule, [] if places == ["silent"] else places, files, id=f"{path.stem}-{number}-{rule}")


@pytest.mark.parametrize(("rule", "places", "files"), list(cases()))
def test_a_fault_is_found_where_it_stands(rule: str, places: list[str], files: dict[str, str]):
    found = findings_of(find_rule(rule), files)
    assert sorted(f"{one.file}:{one.line}" for one in found) == places
