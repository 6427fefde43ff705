"""What atoll knows by name."""

import json

from typer.testing import CliRunner

from atoll.cli.main import make_app
from atoll.inventory.catalog import find_gpu


def run(*words):
    return CliRunner().invoke(make_app(), words).output


def test_models_by_a_word_of_their_name():
    found = json.loads(run("models", "glm-4.5-air", "--json"))["models"]
    assert [one["name"] for one in found] == [
        "cpatonn/GLM-4.5-Air-AWQ-4bit",
        "zai-org/GLM-4.5-Air",
        "zai-org/GLM-4.5-Air-FP8",
    ]
    assert "models, and their" in run("models", "glm")


def test_there_are_enough_of_them():
    assert len(json.loads(run("models", "--json"))["models"]) >= 140


def test_cards_whose_memory_alone_is_known_say_so():
    found = json.loads(run("gpus", "mi3", "--json"))["gpus"]
    assert [(one["name"], one["timed"]) for one in found] == [
        ("MI300X-192GB", False),
        ("MI325X-256GB", False),
        ("MI355X-288GB", False),
    ]
    assert "memory only" in run("gpus", "mi3")


def test_a_mig_slice_is_a_card_of_its_own():
    slice_ = find_gpu("NVIDIA H100 80GB HBM3 MIG 3g.40gb")
    whole = find_gpu("H100")
    assert slice_.name == "H100-SXM-80GB-MIG-3g.40gb"
    assert find_gpu(slice_.name) == slice_
    assert slice_.memory_bytes == whole.memory_bytes // 2
    assert slice_.sm_count == whole.sm_count * 3 // 7
    assert not slice_.nvlinks
