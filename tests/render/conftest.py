"""Layouts and cards that the tests of rendering share."""

from pathlib import Path

import pytest

from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.model.read import read_model

BUNDLES = Path(__file__).parents[1] / "data" / "bundles"


@pytest.fixture(scope="session")
def golden_layouts() -> dict[str, Layout]:
    """The layouts whose bundles are kept whole in tests/data/bundles, by name."""
    paths = sorted(BUNDLES.glob("*.layout.yaml"))
    return {layout.name: layout for path in paths if (layout := Layout.parse(path.read_text(), origin=path.name))}


@pytest.fixture(scope="session")
def card_of():
    """The card of a layout's model; a folder's is that of the catalogue's model of the same name."""

    def find(layout: Layout) -> ModelCard:
        name = layout.model if not layout.model.startswith("/") else f"Qwen/{Path(layout.model).name}"
        return read_model(name)

    return find


@pytest.fixture
def two_pairs(golden_layouts) -> Layout:
    """Two TP 2 replicas on two NVLink pairs of H100 NVL."""
    return golden_layouts["h100-nvl-2xtp2"]
