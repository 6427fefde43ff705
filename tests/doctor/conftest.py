"""What the doctor's tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.doctor.facts import Facts
from atoll.doctor.files import HeldFiles
from atoll.doctor.finding import Finding
from atoll.doctor.gather import Asked, gather
from atoll.doctor.tree import Node, Source, read_yaml
from atoll.workflows.diagnose import ask, diagnose


@pytest.fixture
def facts_of() -> Callable[..., Facts]:
    """Facts of texts by file name."""

    def make(files: dict[str, str], **asked: object) -> Facts:
        return gather(sorted(files), HeldFiles(files), Asked(**asked))

    return make


@pytest.fixture
def tree_of() -> Callable[[str], Node]:
    """The tree of a YAML text."""

    def make(text: str, variables: dict[str, str] | None = None) -> Node:
        return read_yaml(Source("file.yaml", text), variables)[0]

    return make


@pytest.fixture
def folder_findings() -> Callable[[Path], tuple[Finding, ...]]:
    """What the doctor says of a folder on disk, file names relative to it."""

    def find(folder: Path) -> tuple[Finding, ...]:
        return diagnose(ask([str(folder)])).findings

    return find


@pytest.fixture(scope="session")
def listed() -> Callable[[tuple[Finding, ...], Path], list[str]]:
    """One line a finding, as expected.txt holds them."""

    def show(findings: tuple[Finding, ...], folder: Path) -> list[str]:
        return [
            f"{Path(found.file).relative_to(folder)}:{found.line} {found.severity} {found.rule} {found.what}"
            for found in findings
        ]

    return show
