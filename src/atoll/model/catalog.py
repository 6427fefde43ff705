"""Known models, from data/models: the facts of their config.json, so that no hub is needed."""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from atoll.model.card import ModelCard
from atoll.model.parse import card_from_plain

_NAMED = "How the weights are quantised was taken from the name."
_OTHER = "The config is that of {}, the model of this name that atoll knows."


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogModel:
    """One name of the catalogue with its whole config."""

    name: str
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Suffix:
    suffix: str
    config: dict[str, Any]
    organisation: str = ""
    stem: str = ""

    def fits(self, organisation: str, short: str) -> bool:
        return (
            short.endswith(self.suffix.lower())
            and short.startswith(self.stem)
            and (not self.organisation or organisation == self.organisation)
        )


def known_models() -> tuple[str, ...]:
    """All names of the catalogue, without those that a quantisation suffix makes."""
    return tuple(entry.name for entry in _entries())


def find_card(name: str) -> ModelCard | None:
    """The card of a name, with or without its organisation and in any case; None when it is not known.

    A suffix such as `-AWQ`, `-GPTQ-Int4` or `-FP8` on a known name gives the known model in that format, with a note.
    """
    organisation, _, short = name.strip().lower().rpartition("/")
    entry = _find_entry(organisation, short)
    suffix = next((suffix for suffix in _suffixes() if suffix.fits(organisation, short)), None)
    if entry is None and suffix is not None:
        entry = _find_entry(organisation, short.removesuffix(suffix.suffix.lower()))
    if entry is None:
        return None
    if suffix is None or "quantization_config" in entry.config:
        return _plain_card(name, entry, organisation)
    return _quantised_card(name, entry, suffix)


def unsized_part(name: str) -> str | None:
    """The part of a model known by name that atoll cannot size; None for any other name."""
    short = name.strip().lower().rpartition("/")[2]
    text = (files("atoll") / "data" / "unsized_names.json").read_text(encoding="utf-8")
    return next((part for start, part in json.loads(text)["beginnings"].items() if short.startswith(start)), None)


def _plain_card(name: str, entry: CatalogModel, organisation: str) -> ModelCard:
    if not organisation or name.strip().lower() == entry.name.lower():
        return _make_card(entry.name, entry, entry.config)
    return _make_card(name.strip(), entry, entry.config, note=_OTHER.format(entry.name))


def _quantised_card(name: str, entry: CatalogModel, suffix: _Suffix) -> ModelCard:
    """Named after the model that it was made of, in that one's spelling; Qwen publishes its quantised models itself."""
    owner, _, short = entry.name.rpartition("/")
    short = short if short.lower().endswith(suffix.suffix.lower()) else short + suffix.suffix
    asked = name.strip().rpartition("/")[0] or (owner if owner == "Qwen" else "")
    shown = f"{owner if asked.lower() == owner.lower() else asked}/{short}" if asked else short
    return _make_card(shown, entry, {**entry.config, "quantization_config": suffix.config}, note=_NAMED)


def _make_card(shown: str, entry: CatalogModel, config: dict[str, Any], *, note: str | None = None) -> ModelCard:
    card = card_from_plain(config, name=shown, origin=f"data/models ({entry.name})")
    return card if note is None else card.replace(notes=(*card.notes, note))


def _find_entry(organisation: str, short: str) -> CatalogModel | None:
    matches = [entry for entry in _entries() if entry.name.lower().rpartition("/")[2] == short]
    exact = [entry for entry in matches if entry.name.lower().rpartition("/")[0] == organisation]
    return next(iter(exact or matches), None)


@lru_cache(maxsize=1)
def _entries() -> tuple[CatalogModel, ...]:
    folder = files("atoll") / "data" / "models"
    found: list[CatalogModel] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        document = json.loads(path.read_text(encoding="utf-8"))
        for name, changes in document["names"].items():
            found.append(CatalogModel(name=name, config={**document["config"], **changes}))
    return tuple(found)


@lru_cache(maxsize=1)
def _suffixes() -> tuple[_Suffix, ...]:
    text = (files("atoll") / "data" / "quantised_names.json").read_text(encoding="utf-8")
    return tuple(_Suffix(**row) for row in json.loads(text)["suffixes"])
