"""What atoll knows by name: models and GPU kinds."""

from atoll.cost.memory import kv_bytes_per_token
from atoll.documents import Document
from atoll.inventory.catalog import GpuKind, all_gpus
from atoll.model.catalog import find_card, known_models


class KnownModel(Document):
    """One name of the catalogue."""

    name: str
    architecture: str
    parameters: int
    active_parameters: int
    weight_bytes: int
    kv_bytes_per_token: int
    max_context: int
    format: str  # bfloat16, fp8, mxfp4 ...


def list_models(word: str | None = None) -> tuple[KnownModel, ...]:
    """Those whose name has the word in it, in any case; all without one, by name."""
    names = sorted(known_models(), key=str.lower)
    cards = [find_card(name) for name in names if word is None or word.lower() in name.lower()]
    return tuple(
        KnownModel(
            name=card.name,
            architecture=card.architecture,
            parameters=card.parameters,
            active_parameters=card.active_parameters,
            weight_bytes=card.weight_bytes,
            kv_bytes_per_token=kv_bytes_per_token(card),
            max_context=card.max_context,
            format=card.quantisation.method or card.dtype,
        )
        for card in cards
        if card is not None
    )


def list_gpus(word: str | None = None) -> tuple[GpuKind, ...]:
    """Those whose name or alias has the word in it, in any case; all without one, in the catalogue's order."""
    if word is None:
        return all_gpus()
    return tuple(
        kind for kind in all_gpus() if any(word.lower() in text.lower() for text in (kind.name, *kind.aliases))
    )
