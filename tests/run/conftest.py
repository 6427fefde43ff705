"""Two emulated replicas, as files in a temporary folder."""

from pathlib import Path

import pytest

from atoll.layout.layout import Layout
from atoll.model.read import read_model
from atoll.run.process import prepare
from stand_ins.layouts import MODEL, two_pairs


@pytest.fixture
def layout() -> Layout:
    return two_pairs()


@pytest.fixture
def bundle(tmp_path: Path, layout: Layout) -> Path:
    """The folder of a process bundle on free ports, not started."""
    prepare(layout, read_model(MODEL), folder=tmp_path / "bundle", free_router_port=True)
    return tmp_path / "bundle"
