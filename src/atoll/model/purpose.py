"""What a model is for: text, vectors, or an order of documents."""

from typing import Literal

Purpose = Literal["generate", "embed", "rank"]


def purpose_of(name: str) -> Purpose:
    """By its name, as its authors give it; what says nothing of the kind gives text."""
    name = name.lower()
    if "rerank" in name:
        return "rank"
    return "embed" if "embedding" in name or "bge-m3" in name else "generate"
