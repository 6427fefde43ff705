"""A run's id: made once when the run begins, kept in its run.yaml; a catalogue knows the run by it."""

import hashlib
import secrets
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

# One part of a URL's path: no slash, no control characters, and not only dots, which browsers take for folders.
RunId = Annotated[str, Field(pattern=r"^[^/\p{Cc}]*[^/.\p{Cc}][^/\p{Cc}]*$")]

_PARTS = 2  # of the folder's path: a study's folder and its variant
_LONGEST = 40  # letters of a part; a file system takes 255 bytes
_CHANCE_BYTES = 5  # a thousand runs of one name, on any boxes, meet with a chance of 5e-7


def new_run_id(folder: Path, *, chance: Callable[[int], str] = secrets.token_hex) -> str:
    """`four-h100-nvl-vllm:2xTP2:9f3c2a71d0`: where it is run, to read, and what no other box draws."""
    return _join(folder, chance(_CHANCE_BYTES))


def derived_run_id(folder: Path, *facts: object) -> str:
    """The id of a run that was written without one: the same whenever the folder is read."""
    place = folder.resolve()
    digest = hashlib.sha256("\0".join([ascii(str(place)), *map(repr, facts)]).encode())
    return _join(place, digest.hexdigest()[: 2 * _CHANCE_BYTES])


def _join(folder: Path, ending: str) -> str:
    named = (_readable(part) for part in folder.resolve().parts[-_PARTS:])
    return ":".join([*filter(None, named), ending])


def _readable(part: str) -> str:
    """Letters of every script; what a shell or a URL would take for its own becomes a dash."""
    kept = "".join(c if _is_plain(c) else "-" for c in unicodedata.normalize("NFC", part))
    return kept.strip("-.")[:_LONGEST]


def _is_plain(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in "._-"
    return character.isprintable()  # neither a blank nor a byte that is no UTF-8
