"""Catalogue, folder, file, hub."""

import json
import shutil
from importlib.resources import files

import pytest

from atoll.errors import BadModel, UnknownModel
from atoll.model.read import read_model

CONFIG = json.loads((files("atoll") / "data" / "models" / "qwen2.5-0.5b.json").read_text())["config"]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "my-model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    return made


def test_a_folder_is_named_after_itself(folder):
    card = read_model(str(folder))
    assert (card.name, card.parameters) == ("my-model", 494_032_768)


def test_a_config_json_is_named_after_its_folder(folder):
    assert read_model(str(folder / "config.json")) == read_model(str(folder))


def test_another_json_is_named_after_itself(folder):
    shutil.copy(folder / "config.json", folder / "tiny.json")
    assert read_model(str(folder / "tiny.json")).name == "tiny"


def test_the_index_beside_the_config_is_used(folder):
    (folder / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 988097536}}')
    assert read_model(str(folder)).weight_bytes == 988_097_536


def test_a_folder_without_config_is_said_to_have_none(tmp_path):
    with pytest.raises(UnknownModel, match=r"holds no config\.json"):
        read_model(str(tmp_path))


def test_a_broken_config_names_the_file(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(BadModel) as caught:
        read_model(str(folder))
    assert str(folder / "config.json") in str(caught.value)


def test_an_unknown_name_gets_near_ones():
    with pytest.raises(UnknownModel) as caught:
        read_model("Qwen/Qwen2.5-33B-Instruct")
    assert "Qwen/Qwen2.5-32B-Instruct" in str(caught.value)


@pytest.mark.parametrize("name", ["", "no/such", "x" * 5000, "a\0b", "../../nowhere"])
def test_anything_else_is_unknown(name):
    with pytest.raises(UnknownModel):
        read_model(name)


def test_the_hub_is_asked_only_when_told_and_its_refusal_is_a_sentence(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(UnknownModel, match="The hub did not give it either"):
        read_model("no/such", hub=True)
