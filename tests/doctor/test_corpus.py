"""Good files are left in peace; faulty ones get exactly the findings that a reviewer would stand by."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data" / "doctor"
BUNDLES = DATA.parent / "bundles"
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
