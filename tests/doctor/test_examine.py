"""What is looked for, what is left out, and in which order it is told."""

import pytest

from atoll.doctor.examine import examine, find_rule
from atoll.errors import InputError
from stand_ins.examples import facts_of

COMPOSE = """services:
  vllm:{service}
    image: vllm/vllm-openai:v0.32.0
{above}    command: [org/m, -tp, "3", --swap-space, "4"]{line}
    shm_size: 16gb
"""


def rules(select=(), ignore=(), **parts):
    text = COMPOSE.format(**{"service": "", "above": "", "line": "", **parts})
    return [found.rule for found in examine(facts_of({"compose.yaml": text}), select=select, ignore=ignore)]


def test_rules_and_families_are_chosen():
    assert rules(select=["VL001"]) == ["VL001"]
    assert rules(select=["tp,VL001"]) == ["VL001", "TP003"]
    assert "VL001" not in rules(ignore=["VL"])
    assert rules(select=["VL"], ignore=["VL001,VL018"]) == []


def test_a_name_that_no_rule_has_is_refused():
    with pytest.raises(InputError, match="ZZ is no rule"):
        rules(select=["ZZ"])
    with pytest.raises(InputError, match="VL999 is no rule"):
        find_rule("VL999")


@pytest.mark.parametrize(
    "parts",
    [
        {"line": "  # atoll: ignore VL001 an old habit"},
        {"line": "  # atoll: ignore VL"},
        {"line": "  # atoll: ignore DC001, VL001 both"},
        {"above": "    # atoll: ignore VL001\n    # for the old box\n"},
    ],
)
def test_a_comment_silences_a_rule_on_its_line(parts):
    assert "VL001" not in rules(**parts)
    assert "TP003" in rules(**parts)


def test_a_comment_elsewhere_silences_nothing():
    assert "VL001" in rules(service="  # atoll: ignore VL001")


def test_a_comment_at_the_head_counts_for_the_file():
    text = "# our own box\n# atoll: ignore VL001,TP\n" + COMPOSE.format(service="", above="", line="")
    found = [finding.rule for finding in examine(facts_of({"compose.yaml": text}))]
    assert "VL001" not in found
    assert "TP003" not in found
    assert "VL018" in found


def test_comments_of_nginx_silence_too():
    text = "events {}\nhttp { server { location /v1/ {\n  proxy_pass http://vllm:8000;  # atoll: ignore NG001,NG018\n} } }\n"
    found = [finding.rule for finding in examine(facts_of({"nginx.conf": text}))]
    assert "NG002" in found
    assert not {"NG001", "NG018"} & set(found)


def test_findings_go_down_the_page_the_worst_first():
    found = examine(facts_of({"compose.yaml": COMPOSE.format(service="", above="", line="")}))
    assert [finding.order for finding in found] == sorted(finding.order for finding in found)


def test_what_two_services_share_is_told_once():
    text = """services:
  a: &a
    image: vllm/vllm-openai:v0.32.0
    command: [org/m, --swap-space, "4"]
  b: *a
"""
    found = [finding.rule for finding in examine(facts_of({"compose.yaml": text}), select=["VL001"])]
    assert found == ["VL001"]
