"""The model card of a config.json that was given beside the other files."""

from atoll.doctor.tree import Source
from atoll.model.card import ModelCard
from atoll.model.parse import parse_card


def card_of_config(source: Source) -> ModelCard:
    """Raises BadModel for a config.json that cannot be understood."""
    folder = source.folder.rpartition("/")[2]
    return parse_card(source.text, name=folder if folder not in {"", "."} else "model", origin=source.path)
