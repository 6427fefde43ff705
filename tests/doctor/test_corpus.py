"""Good files are left in peace; faulty ones get exactly the findings that a reviewer would stand by."""

import json
from pathlib import Path

import jsonschema
import pytest

from atoll.doctor.files import DiskFiles, HeldFiles
from atoll.documents import parse_yaml
from atoll.workflows.diagnose import ask, correct

DATA = Path(__file__).parents[1] / "data" / "doctor"
BUNDLES = DATA.parent / "bundles"
SCHEMA = json.loads((DATA.parent / "compose" / "compose-spec.json").read_text())
CORPUS = sorted(path for path in (DATA / "corpus").iterdir())
GOLDEN = sorted(path for path in BUNDLES.glob("*/*") if path.is_dir())


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_our_own_bundles_have_nothing_wrong(folder: Path, folder_findings, listed):
    assert listed(folder_findings(folder), folder) == []


def test_the_reference_configuration_has_nothing_wrong(folder_findings):
    assert folder_findings(DATA / "nginx.reference.conf") == ()


@pytest.mark.parametrize("folder", [*CORPUS, DATA / "stack-a", DATA / "stack-b"], ids=lambda path: path.name)
def test_findings_are_those_that_were_reviewed(folder: Path, folder_findings, listed, regenerate):
    found = "".join(line + "\n" for line in listed(folder_findings(folder), folder))
    if regenerate:
        (folder / "expected.txt").write_text(found)
    assert found == (folder / "expected.txt").read_text()


def test_the_corpus_is_varied():
    quiet = [path for path in CORPUS if not (path / "expected.txt").read_text()]
    assert len(CORPUS) >= 30
    assert len(quiet) >= 15


@pytest.mark.parametrize("folder", [*CORPUS, *GOLDEN], ids=lambda path: path.name)
def test_fixes_leave_files_that_can_be_read_and_settle(folder: Path):
    question = ask([str(folder)])
    made = correct(question, risky=True)
    mended, left = made.files, made.left
    texts = HeldFiles({one.path: one.after for one in mended}, DiskFiles())
    assert [finding for finding in left.findings if finding.rule == "AT001"] == []
    assert correct(question, texts, risky=True).files == ()
    for one in mended:
        if one.path.endswith((".yaml", ".yml")):
            assert compose_errors(one.after) <= compose_errors(one.before)


def compose_errors(text: str) -> set[str]:
    """What the Compose specification says against a file; nothing for a file of another kind."""
    plain = parse_yaml(text, origin="file") if "services:" in text else {}
    validator = jsonschema.Draft7Validator(SCHEMA)
    return {error.message for error in validator.iter_errors(plain)} if plain else set()
