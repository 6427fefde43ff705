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
class Entry:
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
    config, notes = entry.config, []
    if suffix is not None and "quantization_config" not in config:
        config = {**config, "quantization_config": suffix.config}
        notes.append(_NAMED)
    shown = _shown_name(name, entry, quantised=bool(notes))
    if organisation and organisation != entry.name.lower().rpartition("/")[0] and not notes:
        notes.append(_OTHER.format(entry.name))
    card = card_from_plain(config, name=shown, origin=f"data/models ({entry.name})")
    return card.replace(notes=(*card.notes, *notes))


def _shown_name(name: str, entry: Entry, *, quantised: bool) -> str:
    """As the catalogue writes it; a quantised name keeps what was asked for, with the organisation added if known."""
    if not quantised:
        return entry.name if "/" not in name or name.lower() == entry.name.lower() else name.strip()
    if "/" in name:
        return name.strip()
    return f"{entry.name.rpartition('/')[0]}/{name.strip()}" if entry.name.startswith("Qwen/") else name.strip()


def _find_entry(organisation: str, short: str) -> Entry | None:
    matches = [entry for entry in _entries() if entry.name.lower().rpartition("/")[2] == short]
    exact = [entry for entry in matches if entry.name.lower().rpartition("/")[0] == organisation]
    return next(iter(exact or matches), None)


@lru_cache(maxsize=1)
def _entries() -> tuple[Entry, ...]:
    folder = files("atoll") / "data" / "models"
    found: list[Entry] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        document = json.loads(path.read_text(encoding="utf-8"))
        for name, changes in document["names"].items():
            found.append(Entry(name=name, config={**document["config"], **changes}))
    return tuple(found)


@lru_cache(maxsize=1)
def _suffixes() -> tuple[_Suffix, ...]:
    text = (files("atoll") / "data" / "quantised_names.json").read_text(encoding="utf-8")
    return tuple(_Suffix(**row) for row in json.loads(text)["suffixes"])
