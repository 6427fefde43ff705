"""vLLM's version numbers: how they are read, and the one that is meant where none is named."""

import re

from packaging.version import InvalidVersion, Version

from atoll.errors import InputError
from atoll.layout.layout import ENGINE_VERSION

DEFAULT_VERSION = ENGINE_VERSION

Release = tuple[int, int, int]

# `v0.8.5.post1-cu121`: what tags put behind the number is no part of it.
_NUMBER = re.compile(r"v?\d+\.\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")


def parse_version(text: str) -> Release:
    """`0.32.0`, `v0.10.1.post2`, `0.10.1rc2` and `0.9` as three numbers; raises InputError for what is no version."""
    found = _NUMBER.match(text)
    try:
        release = Version(found.group() if found else text).release
    except InvalidVersion:
        raise InputError(f"{text!r} is no vLLM version; write it like {DEFAULT_VERSION}.") from None
    if len(release) < 2:
        raise InputError(f"{text!r} is no vLLM version; write it like {DEFAULT_VERSION}.")
    return release[0], release[1], release[2] if len(release) > 2 else 0
