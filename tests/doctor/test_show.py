"""The same findings as text, as GitHub's annotations and as SARIF."""

import json
from pathlib import Path

import jsonschema
import pytest

from atoll.doctor.checks import all_rules
from atoll.doctor.examine import examine
from atoll.doctor.finding import Edit, Finding, Severity
from atoll.doctor.show import count_line, show_github, show_page, show_text, to_sarif
from stand_ins.examples import facts_of

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "doctor" / "sarif-schema-2.1.0.json").read_text())

COMPOSE = """services:
  vllm:
    image: vllm/vllm-openai:v0.32.0
    command: [org/m, -tp, "2"]
    restart: always
"""


@pytest.fixture
def found():
    facts = facts_of({"compose.yaml": COMPOSE})
    return facts, examine(facts, select=["DC004", "DC005"])


def test_text_shows_file_line_consequence_and_fix(found):
    facts, findings = found
    lines = [line for _, line in show_text(findings, facts.sources)]
    assert lines[0] == "compose.yaml"
    assert lines[1] == "  2: error DC004  vllm has 2 workers and 64 MiB of shared memory  (--fix mends it)"
    assert lines[2] == "      | vllm:"
    assert lines[3].strip().startswith("/dev/shm is 64 MiB")
    assert lines[4] == "      fix: shm_size: 16gb, or ipc: host."
    assert lines[-1] == "1 error, 1 warning."


def test_nothing_is_said_in_words():
    assert count_line(()) == "Nothing to report."


def test_github_gets_one_escaped_line_each(found):
    _, findings = found
    lines = list(show_github(findings))
    assert lines[0].startswith("::error file=compose.yaml,line=2,title=DC004::vllm has 2 workers")
    assert lines[1].startswith("::warning file=compose.yaml,line=2,title=DC005::")
    odd = Finding(file="a,b:c", line=1, what="50%\nof it", rule="X", severity=Severity.INFO)
    assert next(show_github([odd])).startswith("::notice file=a%2Cb%3Ac,line=1,title=X::50%25%0Aof it")


def test_sarif_of_every_rules_example_is_valid():
    """With fixes, whose places are characters of the file."""
    validator = jsonschema.validators.validator_for(SCHEMA)(SCHEMA)
    for rule in all_rules():
        facts = facts_of(rule.page.fails)
        log = to_sarif(examine(facts), facts.sources)
        assert [error.message for error in validator.iter_errors(log)] == [], rule.id


def test_sarif_places_fixes_by_characters():
    facts = facts_of({"compose.yaml": COMPOSE})
    finding = examine(facts, select=["DC004"])[0]
    change = to_sarif([finding], facts.sources)["runs"][0]["results"][0]["fixes"][0]["artifactChanges"][0]
    edit = finding.edits[0]
    assert change["replacements"][0]["deletedRegion"] == {"charOffset": edit.start, "charLength": 0}
    assert isinstance(edit, Edit)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.id)
def test_pages_are_whole(rule):
    text = "\n".join(show_page(rule))
    assert text.startswith(f"## {rule.id}: ")
    assert all(part in text for part in ("**If left:** ", "**Fix:** ", "**Evidence:** ", "and one that passes"))


def test_files_named_in_full_are_shown_as_seen_from_the_folder():
    finding = Finding(rule="DC001", file="/work/it/a b.yaml", line=1, what="w", why="y", fix="f")
    outside = Finding(rule="DC001", file="/etc/x.yaml", line=1, what="w", why="y", fix="f")
    log = to_sarif([finding, outside], {}, "/work/it")
    places = [one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in log["runs"][0]["results"]]
    assert places == ["a%20b.yaml", "file:///etc/x.yaml"]
    assert next(show_github([finding], "/work/it")).startswith("::notice file=a b.yaml,line=1,")
