"""Finds a model's files through the door: the shipped catalogue, a folder, a file, or the hub when asked."""

import asyncio
from difflib import get_close_matches
from pathlib import Path

from atoll.errors import AtollError, BadModel, RunFailed, UnknownModel
from atoll.model.card import ModelCard
from atoll.model.catalog import find_card, known_models, unsized_part
from atoll.model.parse import parse_card
from atoll.outside.files import read_text
from atoll.outside.http import get_text
from atoll.outside.shell import environment

_INDEX = "model.safetensors.index.json"
_SIDECAR = "hf_quant_config.json"


def known_card(model: str) -> ModelCard | None:
    """As read_model, of a model that was there once: None when its folder is gone."""
    try:
        return read_model(model)
    except AtollError:
        return None


def read_model(name_or_path: str, *, hub: bool = False) -> ModelCard:
    """The card of a catalogue name, a folder with a config.json, or a config.json.

    Args:
        name_or_path: `Qwen/Qwen2.5-32B-Instruct`, `qwen2.5-32b-instruct`, `/models/mine`, `mine/config.json`.
        hub: ask the Hugging Face hub (or the mirror that HF_ENDPOINT names) for a name that the catalogue lacks.

    Raises:
        UnknownModel: neither in the catalogue nor on disk, with near names.
        BadModel: a config.json that cannot be understood, or a model with a part that atoll cannot size.
    """
    check_name(name_or_path)
    path = _existing_path(name_or_path)
    if path is not None and path.is_dir():
        return _read_folder(path)
    if path is not None:
        return _read_folder(path.parent, config=path.name, name=_name_of(path))
    card = find_card(name_or_path)
    if card is not None:
        return card
    part = unsized_part(name_or_path)
    if part is not None:
        raise BadModel(f"{name_or_path} has {part}, which atoll cannot size yet.")
    if hub:
        return _read_hub(name_or_path)
    raise UnknownModel(_unknown(name_or_path))


def check_name(name_or_path: str) -> None:
    """What a layout, a command line or an engine could not hold is no model's name; raises UnknownModel."""
    wrong = next((letter for letter in name_or_path if not letter.isprintable()), None)
    if wrong is not None:
        raise UnknownModel(
            f"The model {name_or_path[-60:]!r} holds the character {wrong!r}, which no layout can; rename its folder."
        )


def _existing_path(text: str) -> Path | None:
    """None when it names nothing on disk, or cannot (empty, too long)."""
    path = Path(text)
    try:
        return path if text and path.exists() else None
    except OSError:
        return None


def _read_folder(folder: Path, *, config: str = "config.json", name: str | None = None) -> ModelCard:
    if not (folder / config).is_file():
        raise UnknownModel(f"{folder} holds no config.json. Give the folder of a model, its config.json, or a name.")
    beside = config == "config.json"
    return parse_card(
        read_text(folder / config),
        name=name or folder.resolve().name,
        index=_read_if_there(folder / _INDEX) if beside else None,
        sidecar=_read_if_there(folder / _SIDECAR) if beside else None,
        origin=str(folder / config),
    )


def _name_of(path: Path) -> str:
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def _read_if_there(path: Path) -> str | None:
    return read_text(path) if path.is_file() else None


def _read_hub(name: str) -> ModelCard:
    endpoint = environment().get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        config = asyncio.run(get_text(f"{endpoint}/{name}/raw/main/config.json", timeout_s=10.0))
    except RunFailed as error:
        raise UnknownModel(f"{_unknown(name)} The hub did not give it either: {error}") from None
    return parse_card(config, name=name, index=_ask_hub(endpoint, name), origin=f"{name}/config.json")


def _ask_hub(endpoint: str, name: str) -> str | None:
    """The index of a model in one file does not exist; the config alone is enough then."""
    try:
        return asyncio.run(get_text(f"{endpoint}/{name}/raw/main/{_INDEX}", timeout_s=10.0))
    except RunFailed:
        return None


def _unknown(name: str) -> str:
    short = {known.lower().rpartition("/")[2]: known for known in known_models()}
    near = [short[key] for key in get_close_matches(name.lower().rpartition("/")[2], short, n=3, cutoff=0.5)]
    hint = f"Near names: {', '.join(near)}" if near else f"For example {known_models()[0]}"
    return f"{name!r} is neither a model that atoll knows nor a folder with a config.json. {hint}."
