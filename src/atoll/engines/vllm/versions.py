"""vLLM's version numbers: how they are read, and the one that is meant where none is named."""

import re
from functools import cache

from packaging.version import InvalidVersion, Version

from atoll.engines.engine import Release
from atoll.errors import InputError
from atoll.layout.layout import ENGINE_VERSION

# `v0.8.5.post1-cu121`: what tags put behind the number is no part of it.
_NUMBER = re.compile(r"v?\d+\.\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")

# What goes on to `sha` is the name of a build or a digest, no release.
_DIGEST = re.compile(r"v?\d+\.\d+[\d.]*[a-z]*sha")


@cache
def parse_version(text: str) -> Release:
    """`0.32.0`, `v0.10.1.post2`, `0.10.1rc2` and `0.9` as three numbers; raises InputError for what is no version."""
    numbers = _numbers(text)
    if numbers is None:
        raise InputError(f"{text!r} is no vLLM version; write it like {ENGINE_VERSION}.")
    major, minor, patch = (*numbers, 0)[:3]
    return major, minor, patch


def tag_version(tag: str | None) -> tuple[int, ...] | None:
    """The two or three numbers of an image's tag: `v0.8.5.post1`, `1.27-alpine` (any 1.27); None for `latest`."""
    return None if tag is None or _DIGEST.match(tag) else _numbers(tag)


def _numbers(text: str) -> tuple[int, ...] | None:
    found = _NUMBER.match(text)
    try:
        release = Version(found.group() if found else text).release
    except InvalidVersion:
        return None
    return release[:3] if len(release) > 1 else None
