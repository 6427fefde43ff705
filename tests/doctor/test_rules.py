"""Every rule's page carries an example that fails and one that passes; both are run here."""

import pytest

from atoll.doctor.checks import all_rules
from atoll.doctor.rule import Rule
from stand_ins.examples import findings_of

RULES = [pytest.param(rule, id=rule.id) for rule in all_rules()]


@pytest.mark.parametrize("rule", RULES)
def test_page_is_complete(rule: Rule):
    page = rule.page
    assert page.what
    assert page.consequence
    assert page.evidence
    assert page.fix
    assert page.fails
    assert page.passes


@pytest.mark.parametrize("rule", RULES)
def test_failing_example_fails(rule: Rule):
    found = findings_of(rule, rule.page.fails)
    assert found
    assert all(finding.why and finding.fix and finding.line >= 1 for finding in found)


@pytest.mark.parametrize("rule", RULES)
def test_passing_example_passes(rule: Rule):
    assert findings_of(rule, rule.page.passes) == ()


def test_numbers_are_given_once():
    numbers = [rule.id for rule in all_rules()]
    assert len(set(numbers)) == len(numbers)
