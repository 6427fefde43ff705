"""The page of rules is fresh, and the catalogue of faults is covered."""

import csv
from pathlib import Path

from atoll.doctor.checks import all_rules
from atoll.doctor.show import show_handbook

ROOT = Path(__file__).parents[2]
CATALOGUE = ROOT / "tests" / "data" / "doctor" / "rules.csv"

# About files that it cannot read or does not know, its own comments, figures that cannot be, habits told together.
OF_THE_DOCTOR = {"AT001", "AT002", "AT003", "AT004", "AT005"}


def test_the_page_of_rules_is_up_to_date(regenerate):
    text = "\n".join(show_handbook()) + "\n"
    page = ROOT / "docs" / "doctor-rules.md"
    if regenerate:
        page.write_text(text)
    assert page.read_text() == text


def test_every_fault_of_the_catalogue_has_its_rule():
    with CATALOGUE.open() as file:
        catalogue = {row["id"]: row["severity"] for row in csv.DictReader(file)}
    rules = {rule.id: str(rule.severity) for rule in all_rules() if rule.id not in OF_THE_DOCTOR}
    assert len(catalogue) >= 136
    assert rules == catalogue


def test_the_docs_count_the_rules_right():
    text = (ROOT / "docs" / "doctor.md").read_text()
    assert f"There are {len(all_rules())} rules" in text
