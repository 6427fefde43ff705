"""The name of a container's image: `[REGISTRY[:PORT]/]PATH[:TAG][@DIGEST]`, as the distribution project defines it."""

import re

from atoll.errors import InputError

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
_REFERENCE = re.compile(rf"(?:{_REGISTRY}/)?{_PART}(?:/{_PART})*(?::{_TAG})?(?:@(?:{_DIGEST}))?")


def check_image(text: str, *, option: str) -> str:
    """The name, if it is one; raises InputError. It stands in a Compose file and in the arguments of `docker pull`."""
    if len(text) > 4096 or _REFERENCE.fullmatch(text) is None:
        raise InputError(
            f"{option} {text[:200]!r} is no name of an image; write it like vllm/vllm-openai:v0.32.0,"
            " registry.lan:5000/vllm:1 or NAME:TAG@sha256: and 64 digits."
        )
    return text
